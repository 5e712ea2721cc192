// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controller State: the image that Migration Receive reads and Migration Send sets. NVMe Base 2.1 §5.1.17.1.3,
//! Controller State data structure and NVMe Controller State v0.
//!
//! An image is a 48-byte header, the NVMe state (8-byte header, then 24 bytes per I/O queue) and a vendor part. It comes
//! from another machine: [`ControllerStateImage::parse`] bounds it, [`ControllerStateImage::validate`] checks every
//! field, and only then may it be applied. [`ControllerStateBuilder`] writes one into lent memory.

mod build;
mod error;
mod queues;
mod translate;
mod validate;

pub use build::{ControllerStateBuilder, image_bytes};
pub use error::{QueueKind, StateError};
pub use queues::{CompletionQueueState, StateDialect, SubmissionQueueState};
pub use translate::DialectTranslator;
pub use validate::StateLimits;

use queues::{RawCompletionQueueState, RawSubmissionQueueState};
use zerocopy::byteorder::little_endian::{U16, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Controller suspended, in CSATTR.
const SUSPENDED: u8 = 1;

/// Header of a Controller State data structure: 48 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct ControllerStateHeader {
    ver: U16,
    csattr: u8,
    reserved: [u8; 13],
    nvmecss: U128,
    vss: U128,
}
static_assertions::const_assert_eq!(size_of::<ControllerStateHeader>(), 48);

/// Sizes that a header announces, in bytes, checked against a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSizes {
    /// Bytes of the NVMe state; 0 if there is none.
    pub nvme: usize,
    /// Bytes of the vendor part; 0 if there is none.
    pub vendor: usize,
    /// Bytes of the whole image, header included.
    pub total: usize,
}

impl ControllerStateHeader {
    /// Bytes of the header: what to read first to learn the rest.
    pub const BYTES: usize = 48;

    /// The header at the start of `bytes`.
    ///
    /// # Errors
    /// Fewer than 48 bytes, or a structure version other than 0.
    pub fn parse(bytes: &[u8]) -> Result<Self, StateError> {
        let (header, _) = Self::read_from_prefix(bytes)
            .map_err(|_| StateError::Short { needed: Self::BYTES, found: bytes.len() })?;
        match header.ver.get() {
            0 => Ok(header),
            version => Err(StateError::HeaderVersion(version)),
        }
    }

    /// Whether the controller was suspended when the image was made (CSATTR bit 0).
    #[must_use]
    pub const fn suspended(&self) -> bool {
        self.csattr & SUSPENDED != 0
    }

    /// How long the image is.
    ///
    /// # Errors
    /// The 128-bit sizes say more than `limit` bytes for the whole image.
    pub fn sizes(&self, limit: usize) -> Result<StateSizes, StateError> {
        let too_large =
            StateError::TooLarge { nvme_dwords: self.nvmecss.get(), vendor_dwords: self.vss.get(), limit };
        let bytes = |dwords: u128| dwords.checked_mul(4).and_then(|bytes| usize::try_from(bytes).ok());
        let nvme = bytes(self.nvmecss.get()).ok_or(too_large)?;
        let vendor = bytes(self.vss.get()).ok_or(too_large)?;
        let total = nvme.checked_add(vendor).and_then(|bytes| bytes.checked_add(Self::BYTES));
        match total {
            Some(total) if total <= limit => Ok(StateSizes { nvme, vendor, total }),
            _ => Err(too_large),
        }
    }
}

/// A Controller State image, its parts inside bounds. Nothing else is checked yet.
#[derive(Clone, Copy, Debug)]
pub struct ControllerStateImage<'a> {
    header: ControllerStateHeader,
    nvme: &'a [u8],
    vendor: &'a [u8],
}

impl<'a> ControllerStateImage<'a> {
    /// Finds the parts of an image; bytes behind it are ignored.
    ///
    /// # Errors
    /// Fewer bytes than the image needs, more than `limit`, or an unknown version of the header.
    pub fn parse(bytes: &'a [u8], limit: usize) -> Result<Self, StateError> {
        let header = ControllerStateHeader::parse(bytes)?;
        let sizes = header.sizes(limit)?;
        let short = StateError::Short { needed: sizes.total, found: bytes.len() };
        let (_, body) = bytes.split_at_checked(ControllerStateHeader::BYTES).ok_or(short)?;
        let (nvme, rest) = body.split_at_checked(sizes.nvme).ok_or(short)?;
        let (vendor, _) = rest.split_at_checked(sizes.vendor).ok_or(short)?;
        Ok(Self { header, nvme, vendor })
    }

    /// Whether the controller was suspended when the image was made.
    #[must_use]
    pub const fn suspended(&self) -> bool {
        self.header.suspended()
    }

    /// Bytes of the image.
    #[must_use]
    pub const fn total_bytes(&self) -> usize {
        ControllerStateHeader::BYTES.saturating_add(self.nvme.len()).saturating_add(self.vendor.len())
    }

    /// The NVMe state; `None` if the image has none.
    ///
    /// # Errors
    /// A version other than 0, or counts that do not agree with the size the header gives.
    pub fn nvme_state(&self) -> Result<Option<NvmeControllerState<'a>>, StateError> {
        if self.nvme.is_empty() { Ok(None) } else { NvmeControllerState::parse(self.nvme).map(Some) }
    }

    /// The vendor part, a whole number of dwords; empty if there is none.
    #[must_use]
    pub const fn vendor_data(&self) -> &'a [u8] {
        self.vendor
    }

    /// Checks the parts present against the indices of the command that sets the image.
    ///
    /// # Errors
    /// An NVMe state without a version index, or a vendor part without a vendor index.
    pub const fn check_indices(&self, version_index: u8, vendor_index: u8) -> Result<(), StateError> {
        if version_index == 0 && !self.nvme.is_empty() {
            Err(StateError::StateWithoutIndex)
        } else if vendor_index == 0 && !self.vendor.is_empty() {
            Err(StateError::VendorWithoutIndex)
        } else {
            Ok(())
        }
    }
}

/// Header of NVMe Controller State v0: 8 bytes.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
struct NvmeStateHeader {
    ver: U16,
    niosq: U16,
    niocq: U16,
    reserved: U16,
}
static_assertions::const_assert_eq!(size_of::<NvmeStateHeader>(), 8);

/// NVMe Controller State v0: the I/O queues of a controller, borrowed from an image.
#[derive(Clone, Copy, Debug)]
pub struct NvmeControllerState<'a> {
    header: NvmeStateHeader,
    submission: &'a [RawSubmissionQueueState],
    completion: &'a [RawCompletionQueueState],
}

impl<'a> NvmeControllerState<'a> {
    /// Finds the queues; the counts must account for every byte.
    ///
    /// # Errors
    /// Too few bytes, a version other than 0, or counts that do not agree with the number of bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, StateError> {
        let (header, rest) = NvmeStateHeader::read_from_prefix(bytes)
            .map_err(|_| StateError::Short { needed: 8, found: bytes.len() })?;
        if header.ver.get() != 0 {
            return Err(StateError::StateVersion(header.ver.get()));
        }
        let disagree = StateError::SizeDisagrees {
            submission_queues: header.niosq.get(),
            completion_queues: header.niocq.get(),
            bytes: bytes.len(),
        };
        let (submission, rest) =
            <[RawSubmissionQueueState]>::ref_from_prefix_with_elems(rest, usize::from(header.niosq.get()))
                .map_err(|_| disagree)?;
        let completion =
            <[RawCompletionQueueState]>::ref_from_bytes_with_elems(rest, usize::from(header.niocq.get()))
                .map_err(|_| disagree)?;
        Ok(Self { header, submission, completion })
    }

    /// The I/O submission queues in order of the image. Reserved bits are dropped.
    pub fn submission_queues(&self) -> impl ExactSizeIterator<Item = SubmissionQueueState> + 'a {
        self.submission.iter().map(SubmissionQueueState::from_raw)
    }

    /// The I/O completion queues in order of the image, S0PT read as `dialect` says. Reserved bits are dropped.
    pub fn completion_queues(
        &self,
        dialect: StateDialect,
    ) -> impl ExactSizeIterator<Item = CompletionQueueState> + 'a {
        self.completion.iter().map(move |raw| CompletionQueueState::from_raw(raw, dialect))
    }
}

#[cfg(test)]
mod tests;
