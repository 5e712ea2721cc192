// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads decisions out of a fuzzer's bytes.

/// What is left of an input. When it is used up every answer is zero.
#[derive(Clone, Copy, Debug)]
pub struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    /// All of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to `len` bytes.
    pub fn bytes(&mut self, len: usize) -> &'b [u8] {
        let (now, later) = self.0.split_at(len.min(self.0.len()));
        self.0 = later;
        now
    }

    /// `N` bytes, zeroes where none are left.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.bytes(N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// Four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number below `bound`, which is 1 to 256, from one byte.
    pub fn below(&mut self, bound: u32) -> u32 {
        u32::from(self.u8()) % bound
    }

    /// One chance in `of`, from one byte; never when nothing is left.
    pub fn rarely(&mut self, of: u32) -> bool {
        !self.is_empty() && self.below(of) == of - 1
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'b [u8] {
        core::mem::take(&mut self.0)
    }
}
