// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers in words. Where zero stands for "nothing stated", nothing is said: fields that are zero and have no meaning
//! are not shown.

use std::fmt::Write;

use super::table::Scope;

/// A number with its thousands set apart.
pub(super) fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and what is counted.
pub(super) fn plural(number: u128, one: &str) -> String {
    match (number, one.strip_suffix('y')) {
        (1, _) => format!("1 {one}"),
        (_, Some(stem)) => format!("{} {stem}ies", grouped(number)),
        (_, None) => format!("{} {one}s", grouped(number)),
    }
}

/// A size in bytes, in the largest binary unit that leaves at least 1.
pub(super) fn size(bytes: u128) -> String {
    const UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (0..UNITS.len()).rev().find(|unit| bytes >> (10 * unit) != 0).unwrap_or(0);
    if unit == 0 {
        return plural(bytes, "byte");
    }
    let whole = bytes >> (10 * unit);
    // Two digits behind the point, cut off; sizes above the largest unit have none.
    let rest = bytes - (whole << (10 * unit));
    let hundredths = rest.saturating_mul(100) >> (10 * unit);
    let mut text = grouped(whole);
    if hundredths > 0 {
        let _ = write!(text, ".{hundredths:02}");
    }
    format!("{text} {} ({} bytes)", UNITS[unit], grouped(bytes))
}

/// As [`size`], where 0 means that nothing is stated.
pub(super) fn size_if_stated(bytes: u128) -> String {
    if bytes == 0 { String::new() } else { size(bytes) }
}

/// 2^`exponent` times `unit` bytes.
pub(super) fn power_size(exponent: u128, unit: u128) -> String {
    let bytes =
        u32::try_from(exponent).ok().and_then(|n| 1_u128.checked_shl(n)).and_then(|n| n.checked_mul(unit));
    bytes.map_or_else(|| format!("2^{exponent} times {}", size(unit)), size)
}

/// 2^`exponent` times the smallest memory page, where 0 means that there is no limit.
pub(super) fn pages_or_no_limit(exponent: u128, scope: &Scope<'_>) -> String {
    match (exponent, scope.context.page_bytes) {
        (0, _) => "no limit".into(),
        (_, Some(page)) => power_size(exponent, u128::from(page)),
        (_, None) => format!("2^{exponent} times the smallest memory page (CAP.MPSMIN)"),
    }
}

/// A zero-based count.
pub(super) fn zero_based(number: u128) -> String {
    grouped(number.saturating_add(1))
}

/// A zero-based count of blocks.
pub(super) fn zero_based_blocks(number: u128) -> String {
    plural(number.saturating_add(1), "block")
}

/// A zero-based count of queue slots.
pub(super) fn zero_based_slots(number: u128) -> String {
    plural(number.saturating_add(1), "slot")
}

/// A count, where 0 means that there is no limit.
pub(super) fn no_limit_if_zero(number: u128) -> String {
    if number == 0 { "no limit".into() } else { String::new() }
}

/// A temperature in kelvin, where 0 means that nothing is stated.
pub(super) fn kelvin(number: u128) -> String {
    let kelvin = i128::try_from(number).unwrap_or(i128::MAX);
    if kelvin == 0 { String::new() } else { format!("{kelvin} K ({} °C)", kelvin - 273) }
}

/// Microseconds, where 0 means that nothing is stated.
pub(super) fn microseconds(number: u128) -> String {
    if number == 0 { String::new() } else { seconds(number, 1_000_000) }
}

/// Milliseconds.
pub(super) fn milliseconds(number: u128) -> String {
    seconds(number, 1000)
}

/// Units of 100 ms, where 0 means that there is none.
pub(super) fn tenths_of_second(number: u128) -> String {
    if number == 0 { String::new() } else { seconds(number, 10) }
}

/// Units of 500 ms.
pub(super) fn half_seconds(number: u128) -> String {
    seconds(number, 2)
}

/// Minutes.
pub(super) fn minutes(number: u128) -> String {
    match number {
        0..120 => plural(number, "minute"),
        _ => format!("{} h {:02} min", grouped(number / 60), number % 60),
    }
}

/// Percent.
pub(super) fn percent(number: u128) -> String {
    format!("{number} %")
}

/// `number` parts of which `per_second` make a second, as seconds or milliseconds.
fn seconds(number: u128, per_second: u128) -> String {
    let decimals = |number: u128, unit: u128, name: &str| {
        let (whole, rest) = (number / unit, number % unit);
        let digits = format!("{rest:0width$}", width = unit.to_string().len() - 1);
        let digits = digits.trim_end_matches('0');
        let point = if digits.is_empty() { "" } else { "." };
        format!("{}{point}{digits} {name}", grouped(whole))
    };
    match per_second {
        2 => decimals(number.saturating_mul(5), 10, "s"),
        1_000_000 if number < 1000 => format!("{number} µs"),
        1_000_000 if number < 1_000_000 => decimals(number, 1000, "ms"),
        1000 if number < 1000 => format!("{number} ms"),
        _ => decimals(number, per_second, "s"),
    }
}

/// A version as in property VS.
pub(super) fn version(number: u128) -> String {
    if number == 0 {
        return String::new();
    }
    format!("{}.{}.{}", (number >> 16) & 0xFFFF, (number >> 8) & 0xFF, number & 0xFF)
}

/// Padded or NUL-terminated text; what is no printable character is escaped.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (head, tail) = bytes.split_at(end);
    // Bytes behind the terminator are part of the field: they are shown unless they are padding.
    let shown = if tail.iter().all(|byte| matches!(byte, 0 | b' ')) { head } else { bytes };
    shown
        .utf8_chunks()
        .fold(String::new(), |mut text, chunk| {
            for character in chunk.valid().chars() {
                match character {
                    '\\' => text.push_str("\\\\"),
                    character if character.is_control() || !is_plain(character) => {
                        let _ = write!(text, "{}", character.escape_unicode());
                    }
                    character => text.push(character),
                }
            }
            for byte in chunk.invalid() {
                let _ = write!(text, "\\x{byte:02x}");
            }
            text
        })
        .trim()
        .to_string()
}

/// Whether a character can be shown without changing what stands around it: no format and no line separators.
fn is_plain(character: char) -> bool {
    !matches!(character,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}')
}

/// A UUID, most significant byte first; empty if it is all zero.
pub(super) fn uuid(bytes: &[u8]) -> String {
    if bytes.iter().all(|byte| *byte == 0) {
        return String::new();
    }
    let mut text = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The words for a small number; `reserved` for one that has none.
pub(super) fn choice(number: u128, words: &[&str]) -> String {
    let word = usize::try_from(number).ok().and_then(|index| words.get(index));
    word.map_or_else(|| "reserved".into(), |word| (*word).into())
}

/// The set bits by name.
pub(super) fn set(number: u128, names: &[(u8, &str)]) -> String {
    let names = names.iter().filter(|(bit, _)| number >> bit & 1 == 1).map(|(_, name)| *name);
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_said_in_words() {
        let rows = [
            (grouped(0), "0"),
            (grouped(999), "999"),
            (grouped(1_234_567), "1,234,567"),
            (plural(1, "entry"), "1 entry"),
            (plural(0, "entry"), "0 entries"),
            (plural(2, "block"), "2 blocks"),
            (size(1), "1 byte"),
            (size(1023), "1,023 bytes"),
            (size(1024), "1 KiB (1,024 bytes)"),
            (size(1_000_000_000_000), "931.32 GiB (1,000,000,000,000 bytes)"),
            (size(5 << 60), "5 EiB (5,764,607,523,034,234,880 bytes)"),
            (power_size(200, 1), "2^200 times 1 byte"),
            (kelvin(0), ""),
            (kelvin(273), "273 K (0 °C)"),
            (kelvin(200), "200 K (-73 °C)"),
            (microseconds(16), "16 µs"),
            (microseconds(1_500), "1.5 ms"),
            (microseconds(2_000_000), "2 s"),
            (microseconds(2_000_001), "2.000001 s"),
            (milliseconds(120), "120 ms"),
            (milliseconds(120_500), "120.5 s"),
            (half_seconds(255), "127.5 s"),
            (tenths_of_second(7), "0.7 s"),
            (minutes(1), "1 minute"),
            (minutes(125), "2 h 05 min"),
            (version(0x0002_0100), "2.1.0"),
            (choice(1, &["zero", "one"]), "one"),
            (choice(2, &["zero", "one"]), "reserved"),
            (set(0b101, &[(0, "a"), (1, "b"), (2, "c")]), "a, c"),
            (uuid(&[0; 16]), ""),
            (text(b"  padded \0\0"), "padded"),
            (text(b"a\0b"), "a\\u{0}b"),
            (text(b"\xFFx"), "\\xffx"),
        ];
        for (found, expected) in rows {
            assert_eq!(found, expected);
        }
    }
}
