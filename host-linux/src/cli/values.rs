// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers with units on the command line, and the limits they must keep.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use nvme_core::migration::MigrationStep;

use crate::config;

/// Reads a number of bytes: digits and an optional unit, each a power of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" | "B" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err("it is no number of bytes with an optional unit K, M, G or T (KiB to TiB)".into()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "it is no number of bytes that fits 64 bits".into())
}

/// Bytes with the largest unit that divides them.
pub(crate) fn show_bytes(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift) {
        Some((shift, unit)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

fn within<T: PartialOrd>(
    value: T,
    limits: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> Result<T, String> {
    if limits.contains(&value) {
        Ok(value)
    } else {
        Err(format!("it must be from {} to {}", show(limits.start()), show(limits.end())))
    }
}

fn count(text: &str, limits: &RangeInclusive<u64>) -> Result<u64, String> {
    let value = text.parse().map_err(|_| {
        format!("it is no whole number; it must be from {} to {}", limits.start(), limits.end())
    })?;
    within(value, limits, u64::to_string)
}

fn small<T: TryFrom<u64>>(text: &str, limits: &RangeInclusive<u64>) -> Result<T, String>
where
    T::Error: fmt::Display,
{
    T::try_from(count(text, limits)?).map_err(|error| error.to_string())
}

fn duration(text: &str, limits: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "it is no time such as 300ms, 2s or 500us".to_string())?;
    let value = match unit {
        "us" => Duration::from_micros(number),
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        _ => return Err("it needs a unit: us, ms or s".into()),
    };
    within(value, limits, |limit| format!("{limit:?}"))
}

/// Reads a number of seconds, up to a day.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    count(text, &(1..=86_400))
}

/// Reads a whole number, decimal or with 0x hexadecimal.
pub(crate) fn number<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
    let value = match digits.starts_with(|c: char| c.is_digit(radix)) {
        true => u64::from_str_radix(digits, radix).ok(),
        false => None,
    };
    let value = value.ok_or("it is no whole number, decimal or with 0x hexadecimal")?;
    T::try_from(value).map_err(|_| format!("it must be below {:#x}", 1_u128 << (8 * size_of::<T>())))
}

pub(crate) fn size(text: &str) -> Result<u64, String> {
    within(bytes(text)?, &config::SIZE_LIMITS, |limit| show_bytes(*limit))
}

pub(crate) fn block_size(text: &str) -> Result<u32, String> {
    match bytes(text)? {
        512 => Ok(512),
        4096 => Ok(4096),
        _ => Err("it must be 512 or 4096".into()),
    }
}

pub(crate) fn io_size(text: &str) -> Result<u32, String> {
    let value = within(bytes(text)?, &config::IO_SIZE_LIMITS, |limit| show_bytes(*limit))?;
    u32::try_from(value).map_err(|error| error.to_string())
}

pub(crate) fn queue_depth(text: &str) -> Result<u16, String> {
    small(text, &config::QUEUE_DEPTH_LIMITS)
}

pub(crate) fn io_queues(text: &str) -> Result<u16, String> {
    small(text, &config::IO_QUEUES_LIMITS)
}

pub(crate) fn percent(text: &str) -> Result<u8, String> {
    small(text, &(0..=100))
}

pub(crate) fn cdq_entries(text: &str) -> Result<u32, String> {
    small(text, &config::CDQ_ENTRIES_LIMITS)
}

pub(crate) fn head_every(text: &str) -> Result<u32, String> {
    small(text, &(1..=*config::CDQ_ENTRIES_LIMITS.end()))
}

pub(crate) fn max_rounds(text: &str) -> Result<u32, String> {
    small(text, &config::MAX_ROUNDS_LIMITS)
}

pub(crate) fn rate(text: &str) -> Result<u64, String> {
    count(text, &(1..=1_000_000_000))
}

pub(crate) fn stop_time(text: &str) -> Result<Duration, String> {
    duration(text, &config::STOP_TIME_LIMITS)
}

pub(crate) fn run_time(text: &str) -> Result<Duration, String> {
    duration(text, &config::RUN_TIME_LIMITS)
}

pub(crate) fn command_timeout(text: &str) -> Result<Duration, String> {
    duration(text, &config::COMMAND_TIMEOUT_LIMITS)
}

/// The steps after which there is still a way back.
fn reversible() -> impl Iterator<Item = MigrationStep> {
    let steps = MigrationStep::ALL.iter().copied();
    steps.filter(|step| step.is_reversible() && *step != MigrationStep::ResumeDestination)
}

/// Their names, for a sentence.
fn reversible_names() -> String {
    reversible().map(MigrationStep::name).collect::<Vec<_>>().join(", ")
}

/// A step after which there is still a way back.
pub(crate) fn cancel_after(text: &str) -> Result<MigrationStep, String> {
    reversible()
        .find(|step| step.name() == text)
        .ok_or_else(|| format!("it must be one of {}", reversible_names()))
}

/// What the help says of [`cancel_after`].
pub(crate) fn cancel_after_help() -> String {
    format!(
        "Cancel once this step has completed; the guest runs on at the source. One of {}",
        reversible_names()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_with_units_are_read() {
        let table = [
            ("0", Ok(0)),
            ("4096", Ok(4096)),
            ("4096B", Ok(4096)),
            ("64K", Ok(64 << 10)),
            ("256M", Ok(256 << 20)),
            ("256MiB", Ok(256 << 20)),
            ("4GiB", Ok(4 << 30)),
            ("1T", Ok(1 << 40)),
            ("", Err("fits 64 bits")),
            ("M", Err("fits 64 bits")),
            ("-1", Err("no number of bytes")),
            ("1.5G", Err("no number of bytes")),
            ("1MB", Err("no number of bytes")),
            ("99999999999999999999", Err("fits 64 bits")),
            ("99999999T", Err("fits 64 bits")),
        ];
        for (text, expected) in table {
            match (bytes(text), expected) {
                (Ok(value), Ok(wanted)) => assert_eq!(value, wanted, "{text}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (got, wanted) => panic!("{text}: {got:?}, not {wanted:?}"),
            }
        }
    }

    #[test]
    fn limits_are_named() {
        type Parse = fn(&str) -> Result<String, String>;
        fn show<T: fmt::Debug>(result: Result<T, String>) -> Result<String, String> {
            result.map(|value| format!("{value:?}"))
        }
        let table: &[(&str, Parse, &str, Result<&str, &str>)] = &[
            ("size", |t| show(size(t)), "1M", Ok("1048576")),
            ("size", |t| show(size(t)), "1023K", Err("from 1 MiB to 1 TiB")),
            ("size", |t| show(size(t)), "2T", Err("from 1 MiB to 1 TiB")),
            ("block", |t| show(block_size(t)), "4K", Ok("4096")),
            ("block", |t| show(block_size(t)), "1024", Err("512 or 4096")),
            ("depth", |t| show(queue_depth(t)), "0", Err("from 1 to 1023")),
            ("depth", |t| show(queue_depth(t)), "1024", Err("from 1 to 1023")),
            ("queues", |t| show(io_queues(t)), "17", Err("from 1 to 16")),
            ("percent", |t| show(percent(t)), "101", Err("from 0 to 100")),
            ("percent", |t| show(percent(t)), "x", Err("no whole number; it must be from 0 to 100")),
            ("entries", |t| show(cdq_entries(t)), "3", Ok("3")),
            ("entries", |t| show(cdq_entries(t)), "2", Err("from 3 to 1048576")),
            ("entries", |t| show(cdq_entries(t)), "1048577", Err("from 3 to 1048576")),
            ("rounds", |t| show(max_rounds(t)), "0", Err("from 1 to 1000")),
            ("stop time", |t| show(stop_time(t)), "300ms", Ok("300ms")),
            ("stop time", |t| show(stop_time(t)), "2s", Ok("2s")),
            ("stop time", |t| show(stop_time(t)), "300", Err("unit: us, ms or s")),
            ("stop time", |t| show(stop_time(t)), "999us", Err("from 1ms to 3600s")),
            ("stop time", |t| show(stop_time(t)), "ms", Err("no time")),
            ("run time", |t| show(run_time(t)), "0s", Ok("0ns")),
        ];
        for (name, parse, text, expected) in table {
            match (parse(text), expected) {
                (Ok(value), Ok(wanted)) => assert_eq!(value, *wanted, "{name} {text}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{name} {text}: {error}"),
                (got, wanted) => panic!("{name} {text}: {got:?}, not {wanted:?}"),
            }
        }
    }

    #[test]
    fn bytes_are_shown_with_their_unit() {
        for (value, text) in
            [(0, "0 bytes"), (512, "512 bytes"), (1536, "1536 bytes"), (4096, "4 KiB"), (3 << 30, "3 GiB")]
        {
            assert_eq!(show_bytes(value), text);
        }
    }
}
