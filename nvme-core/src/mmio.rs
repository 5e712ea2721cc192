// SPDX-License-Identifier: MIT OR Apache-2.0
//! Properties and doorbells by memory mapping: the adapter for VFIO, firmware and every other host that has BAR0 in its
//! address space. NVMe Base 2.1 §3.1.4, Controller Properties.
#![allow(unsafe_code, reason = "the one place where the core touches device registers")]

use core::fmt;
use core::ptr::{NonNull, addr_of};
use core::sync::atomic::{Ordering, fence};

use volatile_register::{RO, RW, WO};

use crate::register::{Offset, RegisterIo};
use crate::wire::register::DOORBELLS;

/// Why a register could not be accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmioError {
    /// The offset is not a multiple of four.
    Misaligned(Offset),
    /// The register lies outside the mapping.
    OutOfBounds {
        /// The register.
        offset: Offset,
        /// Bytes mapped.
        len: usize,
    },
    /// There is no property at this offset.
    NoProperty(Offset),
    /// The property is read-only.
    ReadOnly(Offset),
    /// A doorbell is write-only.
    WriteOnly(Offset),
    /// What is not mapped was to be reached by a call of the host, which failed.
    Call {
        /// The register.
        offset: Offset,
        /// The host's own number of the error; on Linux the errno.
        code: i32,
    },
}

impl core::error::Error for MmioError {}

impl fmt::Display for MmioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Misaligned(offset) => {
                write!(f, "register offset {:#x} is not a multiple of four", offset.bytes())
            }
            Self::OutOfBounds { offset, len } => {
                write!(
                    f,
                    "register {:#x} lies outside the {len:#x} bytes mapped; map more of BAR0",
                    offset.bytes()
                )
            }
            Self::NoProperty(offset) => write!(f, "there is no property at {:#x}", offset.bytes()),
            Self::ReadOnly(offset) => write!(f, "the property at {:#x} is read-only", offset.bytes()),
            Self::WriteOnly(offset) => write!(f, "the doorbell at {:#x} is write-only", offset.bytes()),
            Self::Call { offset, code } => write!(
                f,
                "register {:#x} is not mapped, and the call that should reach it failed with error {code}; look whether \
                 the function is still there",
                offset.bytes()
            ),
        }
    }
}

/// Reads or writes one register, by what its type allows.
trait Register {
    /// # Safety
    /// `register` points to a mapped register.
    unsafe fn read(register: *const Self, offset: Offset) -> Result<u32, MmioError>;

    /// # Safety
    /// `register` points to a mapped register.
    unsafe fn write(register: *const Self, offset: Offset, value: u32) -> Result<(), MmioError>;
}

impl Register for RO<u32> {
    unsafe fn read(register: *const Self, _offset: Offset) -> Result<u32, MmioError> {
        // SAFETY: the register is mapped (guaranteed by the caller); the reference lives for this one access.
        Ok(unsafe { &*register }.read())
    }

    unsafe fn write(_register: *const Self, offset: Offset, _value: u32) -> Result<(), MmioError> {
        Err(MmioError::ReadOnly(offset))
    }
}

impl Register for RW<u32> {
    unsafe fn read(register: *const Self, _offset: Offset) -> Result<u32, MmioError> {
        // SAFETY: the register is mapped (guaranteed by the caller); the reference lives for this one access.
        Ok(unsafe { &*register }.read())
    }

    unsafe fn write(register: *const Self, _offset: Offset, value: u32) -> Result<(), MmioError> {
        // SAFETY: the register is mapped (guaranteed by the caller) and writing it breaks no memory safety: what the
        // device does with queue addresses is answered for where the controller is attached. The reference lives for
        // this one access.
        unsafe { (*register).write(value) };
        Ok(())
    }
}

impl Register for WO<u32> {
    unsafe fn read(_register: *const Self, offset: Offset) -> Result<u32, MmioError> {
        Err(MmioError::WriteOnly(offset))
    }

    unsafe fn write(register: *const Self, _offset: Offset, value: u32) -> Result<(), MmioError> {
        // SAFETY: as for a register that can be read.
        unsafe { (*register).write(value) };
        Ok(())
    }
}

/// Words between the properties, never accessed.
#[repr(transparent)]
struct Reserved<const WORDS: usize>([u32; WORDS]);

impl<const WORDS: usize> Register for Reserved<WORDS> {
    unsafe fn read(_register: *const Self, offset: Offset) -> Result<u32, MmioError> {
        Err(MmioError::NoProperty(offset))
    }

    unsafe fn write(_register: *const Self, offset: Offset, _value: u32) -> Result<(), MmioError> {
        Err(MmioError::NoProperty(offset))
    }
}

/// Defines the block, asserts every offset, and finds a register by its offset.
macro_rules! register_block {
    ($($offset:literal $name:ident: $type:ty,)+) => {
        /// The properties as they lie in memory. No reference to the block is ever formed: the device changes it.
        #[repr(C)]
        struct RegisterBlock {
            $($name: $type,)+
        }

        $(static_assertions::const_assert_eq!(core::mem::offset_of!(RegisterBlock, $name), $offset);)+

        impl MmioBar {
            fn read_property(&self, offset: Offset) -> Result<u32, MmioError> {
                let block = self.base.as_ptr().cast::<RegisterBlock>().cast_const();
                // SAFETY: `check` has shown that the four bytes at the offset are mapped; only the address of one field
                // is formed, whose offset is asserted to be this one.
                unsafe {
                    match offset.bytes() {
                        $($offset => Register::read(addr_of!((*block).$name), offset),)+
                        _ => Err(MmioError::NoProperty(offset)),
                    }
                }
            }

            fn write_property(&self, offset: Offset, value: u32) -> Result<(), MmioError> {
                let block = self.base.as_ptr().cast::<RegisterBlock>().cast_const();
                // SAFETY: as for reading: mapped, as `check` has shown, and one field only.
                unsafe {
                    match offset.bytes() {
                        $($offset => Register::write(addr_of!((*block).$name), offset, value),)+
                        _ => Err(MmioError::NoProperty(offset)),
                    }
                }
            }
        }
    };
}

register_block! {
    0x00 cap_low: RO<u32>,
    0x04 cap_high: RO<u32>,
    0x08 vs: RO<u32>,
    0x0C intms: RW<u32>,
    0x10 intmc: RW<u32>,
    0x14 cc: RW<u32>,
    0x18 reserved: Reserved<1>,
    0x1C csts: RW<u32>,
    0x20 nssr: RW<u32>,
    0x24 aqa: RW<u32>,
    0x28 asq_low: RW<u32>,
    0x2C asq_high: RW<u32>,
    0x30 acq_low: RW<u32>,
    0x34 acq_high: RW<u32>,
    0x38 cmbloc: RO<u32>,
    0x3C cmbsz: RO<u32>,
    0x40 bpinfo: RO<u32>,
    0x44 bprsel: RW<u32>,
    0x48 bpmbl_low: RW<u32>,
    0x4C bpmbl_high: RW<u32>,
    0x50 cmbmsc_low: RW<u32>,
    0x54 cmbmsc_high: RW<u32>,
    0x58 cmbsts: RO<u32>,
    0x5C cmbebs: RO<u32>,
    0x60 cmbswtp: RO<u32>,
    0x64 nssd: RW<u32>,
    0x68 crto: RO<u32>,
    0x6C reserved_to_pmrcap: Reserved<869>,
    0xE00 pmrcap: RO<u32>,
    0xE04 pmrctl: RW<u32>,
    0xE08 pmrsts: RO<u32>,
    0xE0C pmrebs: RO<u32>,
    0xE10 pmrswtp: RO<u32>,
    // Two registers of their own: an eight-byte access at E14h would not be aligned.
    0xE14 pmrmscl: RW<u32>,
    0xE18 pmrmscu: RW<u32>,
}
static_assertions::const_assert_eq!(size_of::<RegisterBlock>(), 0xE1C);
static_assertions::const_assert_eq!(align_of::<RegisterBlock>(), 4);

/// BAR0 of a controller, mapped.
///
/// Every access is one volatile 32-bit access; 64-bit properties are two, low half first. An offset that is misaligned,
/// outside the mapping or no register of that kind is an error, and nothing is accessed.
#[derive(Debug)]
pub struct MmioBar {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the device, not to a thread (guaranteed by the caller of `new`).
unsafe impl Send for MmioBar {}
// SAFETY: all accesses are single volatile accesses to registers, which the device takes in any order of threads.
unsafe impl Sync for MmioBar {}

impl MmioBar {
    /// The adapter for `len` bytes mapped at `base`.
    ///
    /// # Safety
    /// `base` is aligned to four bytes, and until the adapter is dropped `len` bytes from it on are mapped to the register
    /// space of one NVMe controller, uncached, with accesses in program order, and no reference covers them.
    #[must_use]
    pub const unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len }
    }

    /// Bytes mapped.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn check(&self, offset: Offset) -> Result<(), MmioError> {
        if !offset.bytes().is_multiple_of(4) {
            return Err(MmioError::Misaligned(offset));
        }
        match (offset.bytes() as usize).checked_add(4) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(MmioError::OutOfBounds { offset, len: self.len }),
        }
    }
}

impl RegisterIo for MmioBar {
    type Error = MmioError;

    fn read32(&self, offset: Offset) -> Result<u32, MmioError> {
        self.check(offset)?;
        if offset.bytes() >= DOORBELLS {
            return Err(MmioError::WriteOnly(offset));
        }
        let value = self.read_property(offset);
        // What the register told of is read after it.
        fence(Ordering::Acquire);
        value
    }

    #[inline]
    fn write32(&self, offset: Offset, value: u32) -> Result<(), MmioError> {
        self.check(offset)?;
        // What the register tells of is written before it.
        fence(Ordering::Release);
        if offset.bytes() < DOORBELLS {
            return self.write_property(offset, value);
        }
        // SAFETY: the four bytes are mapped (checked above) and hold a doorbell or nothing.
        unsafe {
            let doorbell = self.base.as_ptr().add(offset.bytes() as usize).cast::<WO<u32>>();
            Register::write(doorbell.cast_const(), offset, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::wire::register::{Access, PROPERTIES};

    const LEN: usize = 0x2000;

    /// Memory that stands for a register space: each word holds its own offset.
    fn space() -> Vec<u32> {
        (0..LEN as u32 / 4).map(|n| n * 4).collect()
    }

    fn bar(space: &mut [u32]) -> MmioBar {
        let len = size_of_val(space);
        // SAFETY: the memory stays until the end of the test and is only read again after the last access.
        unsafe { MmioBar::new(NonNull::new(space.as_mut_ptr().cast()).unwrap(), len) }
    }

    #[test]
    fn every_property_is_where_the_map_says() {
        let mut memory = space();
        let bar = bar(&mut memory);
        for property in PROPERTIES {
            for half in (0..property.size).step_by(4) {
                let offset = Offset::new(property.offset + half);
                assert_eq!(bar.read32(offset), Ok(offset.bytes()), "{}", property.name);
                let expected = match property.access {
                    Access::ReadOnly => Err(MmioError::ReadOnly(offset)),
                    _ => Ok(()),
                };
                assert_eq!(bar.write32(offset, !offset.bytes()), expected, "{}", property.name);
            }
        }
        let words = (0..0x400_u32).map(|n| n * 4);
        for offset in words.filter(|offset| crate::wire::register::Property::at(*offset).is_none()) {
            let offset = Offset::new(offset);
            assert_eq!(bar.read32(offset), Err(MmioError::NoProperty(offset)));
            assert_eq!(bar.write32(offset, 0), Err(MmioError::NoProperty(offset)));
        }
        for property in PROPERTIES {
            for half in (0..property.size).step_by(4) {
                let offset = property.offset + half;
                let expected = if property.access == Access::ReadOnly { offset } else { !offset };
                assert_eq!(memory[offset as usize / 4], expected, "{}", property.name);
            }
        }
    }

    #[test]
    fn halves_of_64_bits_and_pmrmsc() {
        let mut memory = space();
        let bar = bar(&mut memory);
        assert_eq!(bar.read64(Offset::new(0)), Ok(0x0000_0004_0000_0000));
        bar.write64(Offset::new(0x28), 0x1122_3344_5566_7788).unwrap();
        bar.write64(Offset::new(0xE14), 0xAABB_CCDD_EEFF_0011).unwrap();
        assert_eq!(memory[0x28 / 4..0x30 / 4], [0x5566_7788, 0x1122_3344]);
        assert_eq!(memory[0xE14 / 4..0xE1C / 4], [0xEEFF_0011, 0xAABB_CCDD]);
    }

    #[test]
    fn doorbells_are_written_only() {
        let mut memory = space();
        let bar = bar(&mut memory);
        for offset in (DOORBELLS..LEN as u32).step_by(4).map(Offset::new) {
            assert_eq!(bar.write32(offset, 7), Ok(()));
            assert_eq!(bar.read32(offset), Err(MmioError::WriteOnly(offset)));
        }
        assert!(memory[DOORBELLS as usize / 4..].iter().all(|word| *word == 7));
    }

    #[test]
    fn accesses_outside_or_askew() {
        let mut memory = space();
        let bar = bar(&mut memory);
        assert_eq!((bar.len(), bar.is_empty()), (LEN, false));
        for (name, offset, expected) in [
            ("odd", 0x15, MmioError::Misaligned(Offset::new(0x15))),
            ("half", 0x16, MmioError::Misaligned(Offset::new(0x16))),
            ("at the end", LEN as u32, MmioError::OutOfBounds { offset: Offset::new(LEN as u32), len: LEN }),
            ("far", 0xFFFF_FFFC, MmioError::OutOfBounds { offset: Offset::new(0xFFFF_FFFC), len: LEN }),
        ] {
            let offset = Offset::new(offset);
            assert_eq!(bar.read32(offset), Err(expected), "{name}");
            assert_eq!(bar.write32(offset, 0), Err(expected), "{name}");
            assert!(!std::format!("{expected}").is_empty());
        }
        assert_eq!(memory, space(), "nothing was accessed");
        // A short mapping ends where it ends.
        let mut short = [0_u32; 5];
        let bar = self::bar(&mut short);
        let cc = Offset::new(0x14);
        assert_eq!(bar.write32(cc, 1), Err(MmioError::OutOfBounds { offset: cc, len: 20 }));
    }
}
