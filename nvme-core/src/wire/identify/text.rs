// SPDX-License-Identifier: MIT OR Apache-2.0
//! Text in fixed fields: space-padded ASCII and the NUL-terminated subsystem name.

use core::fmt;

/// ASCII padded with spaces to `N` bytes. What a device writes need not be ASCII.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<const N: usize>([u8; N]);

impl<const N: usize> Text<N> {
    /// Only spaces.
    pub const BLANK: Self = Self([b' '; N]);

    /// Pads `text`; `None` if it is longer than `N` or holds anything but printable ASCII.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let mut field = Self::BLANK;
        let to = field.0.get_mut(..text.len())?;
        to.copy_from_slice(text.as_bytes());
        text.bytes().all(is_printable).then_some(field)
    }

    /// Takes the field as it stands in a structure.
    #[must_use]
    pub const fn from_field(field: [u8; N]) -> Self {
        Self(field)
    }

    /// The field as it stands in a structure.
    #[must_use]
    pub const fn field(&self) -> &[u8; N] {
        &self.0
    }

    /// The bytes without padding: trailing spaces and NULs, and leading spaces.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let end =
            self.0.iter().rposition(|b| !matches!(b, b' ' | 0)).map_or(0, |last| last.saturating_add(1));
        self.0.get(..end).unwrap_or_default().trim_ascii_start()
    }

    /// The text without padding; `None` if it holds anything but printable ASCII.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        let bytes = self.as_bytes();
        if bytes.iter().copied().all(is_printable) { core::str::from_utf8(bytes).ok() } else { None }
    }
}

/// Bytes that are not printable ASCII are shown as `?`.
impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display(self.as_bytes(), f)
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// NVM Subsystem NVMe Qualified Name (SUBNQN): UTF-8, NUL-terminated, at most 255 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubsystemName([u8; 256]);

impl SubsystemName {
    /// No name.
    pub const EMPTY: Self = Self([0; 256]);

    /// Terminates `name`; `None` if it is longer than 255 bytes or holds a NUL.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let mut field = Self::EMPTY;
        if name.len() > 255 || name.bytes().any(|b| b == 0) {
            return None;
        }
        field.0.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(field)
    }

    /// Takes the field as it stands in the structure.
    #[must_use]
    pub const fn from_field(field: [u8; 256]) -> Self {
        Self(field)
    }

    /// The field as it stands in the structure.
    #[must_use]
    pub const fn field(&self) -> &[u8; 256] {
        &self.0
    }

    /// The bytes before the first NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.split(|b| *b == 0).next().unwrap_or_default()
    }

    /// The name; `None` if it is not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        core::str::from_utf8(self.as_bytes()).ok()
    }
}

impl fmt::Display for SubsystemName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display(self.as_bytes(), f)
    }
}

impl fmt::Debug for SubsystemName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

const fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

fn display(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use fmt::Write;
    for byte in bytes {
        f.write_char(if is_printable(*byte) { char::from(*byte) } else { '?' })?;
    }
    Ok(())
}
