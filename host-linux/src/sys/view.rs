// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registers that are looked at and never written.

use std::os::fd::AsFd;

use nvme_core::mmio::MmioError;
use nvme_core::register::Offset;
use rustix::mm::ProtFlags;

use super::vfio::Bar;

/// The first bytes of a controller's register space, mapped without the right to write for as long as the value lives.
///
/// A function that goes away meanwhile, or whose registers its driver claims, takes them with it: the next access ends the
/// process with SIGBUS. So it is for a moment only.
#[derive(Debug)]
pub(crate) struct RegisterView(Bar);

impl RegisterView {
    /// Maps the first `len` bytes of a file.
    pub(crate) fn map(file: impl AsFd, len: usize) -> rustix::io::Result<Self> {
        Bar::map_with(file, 0, len, ProtFlags::READ).map(Self)
    }

    /// One volatile 32-bit access.
    pub(crate) fn read32(&self, offset: Offset) -> Result<u32, MmioError> {
        self.0.read32(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    #[test]
    fn what_is_mapped_is_read_as_it_is_at_that_moment() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&[0; 4096]).expect("a page");
        let view = RegisterView::map(&file, 4096).expect("a view");
        assert_eq!(view.read32(Offset::new(0x14)), Ok(0));
        std::os::unix::fs::FileExt::write_all_at(&file, &0x46_0001_u32.to_le_bytes(), 0x14)
            .expect("a register");
        assert_eq!(view.read32(Offset::new(0x14)), Ok(0x46_0001));
        let wrong = [("misaligned", 0x15), ("outside", 4096)];
        for (name, offset) in wrong {
            assert!(view.read32(Offset::new(offset)).is_err(), "{name}");
        }
        let empty = RegisterView::map(&file, 0).expect_err("nothing to map");
        assert_eq!(empty, rustix::io::Errno::INVAL);
        let folder = File::open("/").expect("a folder");
        assert_eq!(RegisterView::map(&folder, 4096).expect_err("no file"), rustix::io::Errno::NODEV);
    }
}
