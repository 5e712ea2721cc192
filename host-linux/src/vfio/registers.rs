// SPDX-License-Identifier: MIT OR Apache-2.0
//! The register space of a function: mapped as far as it can be, and the rest by system calls.

use std::os::fd::AsFd;
use std::sync::atomic::{Ordering, fence};

use nvme_core::mmio::MmioError;
use nvme_core::register::Offset;
use rustix::io::{Errno, pread, pwrite};

use super::error::Error;
use super::info::Region;
use crate::endpoint::DOORBELLS;
use crate::sys::vfio::Bar;

/// Least register space of a controller: properties, and the doorbells of the admin queue.
const LEAST: u64 = DOORBELLS as u64 + 8;

/// Registers of one function.
#[derive(Debug)]
pub(super) struct Registers {
    /// From the first register on.
    bar: Option<Bar>,
    region: Region,
}

impl Registers {
    /// The registers in `region` of a function, mapped unless that is not wanted.
    pub(super) fn new(device: impl AsFd, region: &Region, map: bool) -> Result<Self, Error> {
        if region.size < LEAST {
            return Err(Error::Device("its register space ends before the doorbells", region.size));
        }
        // Linux leaves out the pages of the table of MSI-X, unless they may be mapped, too.
        let area = region.areas.iter().find(|(start, len)| map && *start == 0 && *len > 0);
        let bar = area.map(|(_, len)| Bar::map(device, region.offset, *len as usize)).transpose();
        let bar = bar.map_err(|error| Error::io("mapping the registers", &error))?;
        Ok(Self { bar, region: region.clone() })
    }

    /// Bytes mapped, from the first register on.
    pub(super) fn mapped(&self) -> usize {
        self.bar.as_ref().map_or(0, Bar::len)
    }

    #[inline]
    pub(super) fn read32(&self, device: impl AsFd, offset: Offset) -> Result<u32, MmioError> {
        match self.bar.as_ref().map(|bar| bar.read32(offset)) {
            None | Some(Err(MmioError::OutOfBounds { .. })) => self.read_by_call(device, offset),
            Some(result) => result,
        }
    }

    #[inline]
    pub(super) fn write32(&self, device: impl AsFd, offset: Offset, value: u32) -> Result<(), MmioError> {
        match self.bar.as_ref().map(|bar| bar.write32(offset, value)) {
            None | Some(Err(MmioError::OutOfBounds { .. })) => self.write_by_call(device, offset, value),
            Some(result) => result,
        }
    }

    /// Where a register is in the function's descriptor.
    fn place(&self, offset: Offset) -> Result<u64, MmioError> {
        let bytes = u64::from(offset.bytes());
        if !bytes.is_multiple_of(4) {
            return Err(MmioError::Misaligned(offset));
        }
        let place = self.region.offset.checked_add(bytes).filter(|_| bytes + 4 <= self.region.size);
        place.ok_or(MmioError::OutOfBounds { offset, len: self.region.size as usize })
    }

    #[cold]
    fn read_by_call(&self, device: impl AsFd, offset: Offset) -> Result<u32, MmioError> {
        let place = self.place(offset)?;
        if offset.bytes() >= DOORBELLS {
            return Err(MmioError::WriteOnly(offset));
        }
        let mut bytes = [0; 4];
        whole(pread(device, &mut bytes, place), offset)?;
        // What the register told of is read after it.
        fence(Ordering::Acquire);
        Ok(u32::from_le_bytes(bytes))
    }

    #[cold]
    fn write_by_call(&self, device: impl AsFd, offset: Offset, value: u32) -> Result<(), MmioError> {
        let place = self.place(offset)?;
        // What the register tells of is written before it.
        fence(Ordering::Release);
        whole(pwrite(device, &value.to_le_bytes(), place), offset)
    }
}

/// Whether a register was moved as a whole.
fn whole(result: Result<usize, Errno>, offset: Offset) -> Result<(), MmioError> {
    match result {
        Ok(4) => Ok(()),
        Ok(_) => Err(MmioError::Call { offset, code: Errno::IO.raw_os_error() }),
        Err(error) => Err(MmioError::Call { offset, code: error.raw_os_error() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    const START: u64 = 0x1000;
    const SIZE: u64 = 0x3000;

    /// A file that stands for a function: each word of its register space holds its offset.
    fn function() -> File {
        let file = tempfile::tempfile().expect("a file");
        let words: Vec<u8> = (0..SIZE as u32).step_by(4).flat_map(u32::to_le_bytes).collect();
        file.write_all_at(&words, START).expect("write");
        file
    }

    fn word(file: &File, offset: u32) -> u32 {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, START + u64::from(offset)).expect("read");
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn registers_are_reached_whatever_is_mapped() {
        type Row = (&'static str, &'static [(u64, u64)], bool, usize);
        let rows: [Row; 6] = [
            ("all", &[(0, SIZE)], true, SIZE as usize),
            ("not wanted", &[(0, SIZE)], false, 0),
            ("nothing", &[], true, 0),
            ("properties", &[(0, 0x1000)], true, 0x1000),
            ("all but a page between", &[(0, 0x1000), (0x2000, 0x1000)], true, 0x1000),
            ("all but the first page", &[(0x1000, 0x2000)], true, 0),
        ];
        for (name, areas, map, mapped) in rows {
            let file = function();
            let region = Region { size: SIZE, offset: START, areas: areas.to_vec() };
            let registers = Registers::new(&file, &region, map).expect(name);
            assert_eq!(registers.mapped(), mapped, "{name}");
            let (cc, tail, last) = (Offset::new(0x14), Offset::new(0x1000), Offset::new(SIZE as u32 - 4));
            assert_eq!(registers.read32(&file, cc), Ok(0x14), "{name}");
            for (offset, value) in [(cc, 0x46_0001), (tail, 7), (last, 0xFFFF_FFFE)] {
                assert_eq!(registers.write32(&file, offset, value), Ok(()), "{name}");
                assert_eq!(word(&file, offset.bytes()), value, "{name}");
            }
            assert_eq!(registers.read32(&file, cc), Ok(0x46_0001), "{name}");
            assert_eq!(registers.read32(&file, tail), Err(MmioError::WriteOnly(tail)), "{name}");
            let crooked = Offset::new(0x1002);
            assert_eq!(registers.write32(&file, crooked, 0), Err(MmioError::Misaligned(crooked)), "{name}");
            let outside = Offset::new(SIZE as u32);
            let expected = MmioError::OutOfBounds { offset: outside, len: SIZE as usize };
            assert_eq!(registers.write32(&file, outside, 0), Err(expected), "{name}");
            assert_eq!(registers.read32(&file, outside), Err(expected), "{name}");
        }
    }

    #[test]
    fn calls_that_fail_are_told() {
        let region = Region { size: SIZE, offset: START, areas: Vec::new() };
        let (version, tail) = (Offset::new(8), Offset::new(0x1000));
        let empty = tempfile::tempfile().expect("a file");
        let registers = Registers::new(&empty, &region, true).expect("registers");
        let code = Errno::IO.raw_os_error();
        assert_eq!(registers.read32(&empty, version), Err(MmioError::Call { offset: version, code }));
        let file = File::open("/dev/null").expect("a file that cannot be written");
        let code = Errno::BADF.raw_os_error();
        assert_eq!(registers.write32(&file, tail, 1), Err(MmioError::Call { offset: tail, code }));
        let short = Region { size: LEAST - 1, ..region };
        let error = Registers::new(&file, &short, true).expect_err("no doorbells");
        assert_eq!(error, Error::Device("its register space ends before the doorbells", LEAST - 1));
    }
}
