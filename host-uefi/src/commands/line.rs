// SPDX-License-Identifier: MIT OR Apache-2.0
//! A command line as the firmware keeps it, made into text.

use core::fmt;

/// A command line that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineError {
    /// Longer than this many bytes as text.
    TooLong(usize),
    /// So many bytes are no characters of two bytes each.
    Odd(usize),
    /// Half of a character of four bytes.
    NotText(u16),
}

impl core::error::Error for LineError {}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(most) => {
                write!(f, "the options are longer than {most} bytes: use numbers for controllers")
            }
            Self::Odd(bytes) => write!(f, "options of {bytes} bytes are no text: give them in UCS-2"),
            Self::NotText(unit) => {
                write!(f, "{unit:#06x} in the options is no character: give them in UCS-2")
            }
        }
    }
}

/// Text in a buffer that is lent.
#[derive(Debug)]
pub struct Line<'b> {
    bytes: &'b mut [u8],
    len: usize,
}

impl<'b> Line<'b> {
    /// No text yet.
    #[must_use]
    pub const fn new(bytes: &'b mut [u8]) -> Self {
        Self { bytes, len: 0 }
    }

    /// Adds one character.
    ///
    /// # Errors
    /// [`LineError::TooLong`].
    pub fn push(&mut self, character: char) -> Result<(), LineError> {
        let most = self.bytes.len();
        let end = self.len.saturating_add(character.len_utf8());
        let place = self.bytes.get_mut(self.len..end).ok_or(LineError::TooLong(most))?;
        character.encode_utf8(place);
        self.len = end;
        Ok(())
    }

    /// Adds characters of two bytes up to the first zero, or all of them if there is none.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn push_units(&mut self, units: impl Iterator<Item = u16>) -> Result<(), LineError> {
        for character in char::decode_utf16(units.take_while(|unit| *unit != 0)) {
            self.push(character.map_err(|error| LineError::NotText(error.unpaired_surrogate()))?)?;
        }
        Ok(())
    }

    /// Adds the load options of an image. Some who write boot entries end them with a zero, and some do not.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn push_options(&mut self, options: &[u8]) -> Result<(), LineError> {
        let (units, []) = options.as_chunks::<2>() else { return Err(LineError::Odd(options.len())) };
        self.push_units(units.iter().copied().map(u16::from_le_bytes))
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        // Only whole characters were added.
        self.bytes.get(..self.len).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::String;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn options_are_text_with_or_without_an_end() {
        let units = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
        let odd = [b'l', 0, b'i'].to_vec();
        let half = [b'l', 0, 0x00, 0xD8].to_vec();
        for (name, options, expected) in [
            ("nothing", Vec::new(), Ok("")),
            ("with an end", units("list\0"), Ok("list")),
            ("without", units("list"), Ok("list")),
            ("something behind the end", units("list\0all"), Ok("list")),
            ("letters of two and four bytes", units("\u{e9}\u{1F600}"), Ok("\u{e9}\u{1F600}")),
            ("as long as can be", units("12345678"), Ok("12345678")),
            ("longer", units("123456789"), Err(LineError::TooLong(8))),
            ("a character that does not fit", units("1234567\u{e9}"), Err(LineError::TooLong(8))),
            ("an odd size", odd, Err(LineError::Odd(3))),
            ("half a character", half, Err(LineError::NotText(0xD800))),
        ] {
            let mut bytes = [0; 8];
            let mut line = Line::new(&mut bytes);
            let pushed = line.push_options(&options).map(|()| String::from(line.text()));
            assert_eq!(pushed.as_deref(), expected.as_ref().copied(), "{name}");
        }
    }
}
