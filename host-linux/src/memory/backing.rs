// SPDX-License-Identifier: MIT OR Apache-2.0
//! What memory an address space is made of, and why it cannot be made.

use std::fmt;
use std::fs;
use std::io;

use super::PAGE;

/// Bytes in a huge page.
pub const HUGE_PAGE: usize = 2 << 20;

/// Where Linux tells how many huge pages there are, and takes how many there should be.
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// Pages that the memory of an [`AddressSpace`](super::AddressSpace) is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backing {
    /// Pages of 4 KiB, taken from the system as they are used.
    #[default]
    Ordinary,
    /// Pages of 2 MiB, which somebody has set aside before; all of them are taken at once. An IOMMU needs fewer entries
    /// for them, and so does the processor.
    Huge,
}

impl Backing {
    /// Bytes in a page.
    #[must_use]
    pub const fn page(self) -> usize {
        match self {
            Self::Ordinary => PAGE,
            Self::Huge => HUGE_PAGE,
        }
    }
}

/// Why an address space is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceError {
    /// Its first bus address is not a multiple of a page.
    Start {
        /// The address.
        address: u64,
        /// Bytes in a page.
        page: usize,
    },
    /// So many bytes are more than an address space can have, or than there is memory for its tables.
    TooLarge(u64),
    /// Too few huge pages are set aside.
    HugePages {
        /// Pages that are needed.
        needed: u64,
        /// Pages that nobody has taken.
        free: u64,
    },
    /// The kernel has no huge pages of 2 MiB.
    NoHugePages,
    /// The operating system refuses: its errno.
    System(i32),
}

impl fmt::Display for SpaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { address, page } => {
                write!(f, "bus address {address:#x} is not a multiple of {page}")
            }
            Self::TooLarge(bytes) => {
                write!(f, "{bytes} bytes are too many for one address space here; use less memory")
            }
            Self::HugePages { needed, free } => write!(
                f,
                "{needed} huge pages of 2 MiB are needed, {free} are free; set more aside (add {} to the number in \
                 {HUGE_PAGES}/nr_hugepages), or use ordinary memory",
                needed.saturating_sub(*free).max(1)
            ),
            Self::NoHugePages => f.write_str(
                "the kernel has no huge pages of 2 MiB; use one that has (CONFIG_HUGETLBFS), or use ordinary memory",
            ),
            Self::System(errno) => write!(f, "{}", io::Error::from_raw_os_error(*errno)),
        }
    }
}

impl std::error::Error for SpaceError {}

impl From<SpaceError> for io::Error {
    fn from(error: SpaceError) -> Self {
        let kind = match error {
            SpaceError::System(errno) => return Self::from_raw_os_error(errno),
            SpaceError::Start { .. } => io::ErrorKind::InvalidInput,
            SpaceError::TooLarge(_) | SpaceError::HugePages { .. } => io::ErrorKind::OutOfMemory,
            SpaceError::NoHugePages => io::ErrorKind::Unsupported,
        };
        Self::new(kind, error)
    }
}

impl From<rustix::io::Errno> for SpaceError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::System(error.raw_os_error())
    }
}

/// Why `bytes` of memory were not had.
pub(super) fn why_not(error: rustix::io::Errno, backing: Backing, bytes: usize) -> SpaceError {
    use rustix::io::Errno;
    match (backing, error) {
        (Backing::Huge, Errno::NOMEM) => {
            let number = |name: &str| {
                let text = fs::read_to_string(format!("{HUGE_PAGES}/{name}")).unwrap_or_default();
                text.trim().parse::<u64>().unwrap_or(0)
            };
            let free = number("free_hugepages").saturating_sub(number("resv_hugepages"));
            SpaceError::HugePages { needed: (bytes / HUGE_PAGE) as u64, free }
        }
        (Backing::Huge, Errno::INVAL | Errno::NODEV | Errno::NOENT | Errno::NOSYS) => SpaceError::NoHugePages,
        _ => error.into(),
    }
}
