// SPDX-License-Identifier: MIT OR Apache-2.0
//! How controller properties are reached, whatever carries them.
//!
//! Properties are reached by memory mapping (VFIO, firmware), by messages (vfio-user) or by calls
//! (`EFI_PCI_IO_PROTOCOL`), so access can fail and is a trait. NVMe Base 2.1 §3.1.4, Controller Properties.

/// Byte offset of a property or doorbell from the start of the controller's register space (BAR0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u32);

impl Offset {
    /// The offset of `bytes` from the start of the register space.
    #[must_use]
    pub const fn new(bytes: u32) -> Self {
        Self(bytes)
    }

    /// Bytes from the start of the register space.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// The offset four bytes on: the upper half of a 64-bit property.
    #[must_use]
    pub const fn upper_half(self) -> Self {
        Self(self.0.wrapping_add(4))
    }
}

/// Access to one controller's properties and doorbells.
///
/// The trait is object safe. An implementation must deliver writes in the order in which they were made and must
/// not let a later read overtake an earlier write. Each call is one access of the stated width and must return in
/// bounded time.
pub trait RegisterIo {
    /// Why an access failed, for example a closed connection or an offset outside the mapping.
    type Error: Copy + core::fmt::Debug;

    /// Reads the 32-bit property at `offset`, which is a multiple of four.
    ///
    /// # Errors
    /// Any failure of the transport; the value is then unknown.
    fn read32(&self, offset: Offset) -> Result<u32, Self::Error>;

    /// Writes the 32-bit property or doorbell at `offset`, which is a multiple of four.
    ///
    /// # Errors
    /// Any failure of the transport; whether the write took effect is then unknown.
    fn write32(&self, offset: Offset, value: u32) -> Result<(), Self::Error>;

    /// Reads a 64-bit property as two 32-bit accesses, low half first.
    ///
    /// # Errors
    /// As [`read32`](Self::read32).
    fn read64(&self, offset: Offset) -> Result<u64, Self::Error> {
        let low = self.read32(offset)?;
        let high = self.read32(offset.upper_half())?;
        Ok(u64::from(low) | (u64::from(high) << 32))
    }

    /// Writes a 64-bit property as two 32-bit accesses, low half first.
    ///
    /// # Errors
    /// As [`write32`](Self::write32).
    fn write64(&self, offset: Offset, value: u64) -> Result<(), Self::Error> {
        #[allow(clippy::cast_possible_truncation, reason = "each half is exactly 32 bits")]
        let (low, high) = (value as u32, (value >> 32) as u32);
        self.write32(offset, low)?;
        self.write32(offset.upper_half(), high)
    }
}

impl<T: RegisterIo + ?Sized> RegisterIo for &T {
    type Error = T::Error;

    fn read32(&self, offset: Offset) -> Result<u32, Self::Error> {
        (**self).read32(offset)
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), Self::Error> {
        (**self).write32(offset, value)
    }

    fn read64(&self, offset: Offset) -> Result<u64, Self::Error> {
        (**self).read64(offset)
    }

    fn write64(&self, offset: Offset, value: u64) -> Result<(), Self::Error> {
        (**self).write64(offset, value)
    }
}
