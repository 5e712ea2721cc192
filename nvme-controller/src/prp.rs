// SPDX-License-Identifier: MIT OR Apache-2.0
//! Walks the PRPs of a command and moves data along them. NVMe Base 2.1 §4.1.1, Physical Region Page Entry and List.

use nvme_core::wire::{BusAddr, DataPointerKind, StatusCode, SubmissionQueueEntry};

use crate::dma::Dma;
use crate::host::HostMemory;

/// List entries read at once.
const BATCH: usize = 16;

/// Where the next page of the data is named.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// PRP2 is the second and last page.
    Page(BusAddr),
    /// An entry of a PRP list.
    List(BusAddr),
}

/// A place in the data of a command; moves forward as data is copied.
///
/// Everything it follows was chosen by the host: each copy is bounded by the length given at the start, however the
/// lists are linked.
#[derive(Clone, Debug)]
pub(crate) struct DataPointer {
    page: u64,
    segment: BusAddr,
    segment_left: u64,
    /// Bytes after the current segment.
    left: u64,
    next: Next,
    batch: [u8; BATCH * 8],
    batch_at: usize,
    batch_len: usize,
}

impl DataPointer {
    /// The data of `entry`, `len` bytes in pages of `1 << page_shift` bytes.
    ///
    /// # Errors
    /// Invalid Field for an SGL, PRP Offset Invalid for a misaligned PRP.
    #[inline]
    pub(crate) fn new(entry: &SubmissionQueueEntry, len: u64, page_shift: u8) -> Result<Self, StatusCode> {
        if entry.data_pointer_kind() != DataPointerKind::Prp {
            return Err(StatusCode::INVALID_FIELD);
        }
        let page = 1_u64 << page_shift;
        let first = entry.prp1();
        let in_first = page.saturating_sub(first.page_offset(page)).min(len);
        let left = len.saturating_sub(in_first);
        let second = entry.prp2();
        let next = if left > page { Next::List(second) } else { Next::Page(second) };
        let misaligned = match next {
            _ if len == 0 => false,
            Next::List(list) => list.page_offset(8) != 0,
            Next::Page(page_two) => left > 0 && page_two.page_offset(page) != 0,
        };
        if misaligned || (len > 0 && first.page_offset(4) != 0) {
            return Err(StatusCode::PRP_OFFSET_INVALID);
        }
        Ok(Self {
            page,
            segment: first,
            segment_left: in_first,
            left,
            next,
            batch: [0; BATCH * 8],
            batch_at: 0,
            batch_len: 0,
        })
    }

    /// Copies the next bytes from the host.
    pub(crate) fn read<M: HostMemory>(
        &mut self,
        dma: &mut Dma<'_, M>,
        bytes: &mut [u8],
    ) -> Result<(), StatusCode> {
        let bit = self.bit_to_flip(dma, false, bytes.len());
        let mut rest = &mut *bytes;
        while !rest.is_empty() {
            let (address, len) = self.take(dma, rest.len())?;
            let (now, later) = rest.split_at_mut_checked(len).ok_or(StatusCode::INTERNAL_ERROR)?;
            dma.read(address, now).map_err(|_| StatusCode::DATA_TRANSFER_ERROR)?;
            rest = later;
        }
        if let Some((byte, mask)) = bit
            && let Some(byte) = bytes.get_mut(byte)
        {
            *byte ^= mask;
        }
        Ok(())
    }

    /// The byte and bit of the next `len` bytes that a fault rule inverts on their way.
    #[inline]
    fn bit_to_flip<M: HostMemory>(
        &self,
        dma: &mut Dma<'_, M>,
        to_host: bool,
        len: usize,
    ) -> Option<(usize, u8)> {
        let all = self.segment_left.saturating_add(self.left);
        dma.flip.as_mut()?.take(to_host, len, all)
    }

    /// Copies the next bytes to the host.
    pub(crate) fn write<M: HostMemory>(
        &mut self,
        dma: &mut Dma<'_, M>,
        bytes: &[u8],
    ) -> Result<(), StatusCode> {
        let mut bit = self.bit_to_flip(dma, true, bytes.len());
        let mut rest = bytes;
        while !rest.is_empty() {
            let (address, len) = self.take(dma, rest.len())?;
            let (now, later) = rest.split_at_checked(len).ok_or(StatusCode::INTERNAL_ERROR)?;
            dma.write(address, now).map_err(|_| StatusCode::DATA_TRANSFER_ERROR)?;
            if let Some((at, mask)) = bit {
                if let Some(byte) = now.get(at) {
                    let address = address.plus(at as u64);
                    dma.write(address, &[byte ^ mask]).map_err(|_| StatusCode::DATA_TRANSFER_ERROR)?;
                }
                bit = at.checked_sub(len).map(|at| (at, mask));
            }
            rest = later;
        }
        Ok(())
    }

    /// The next run of addresses, at most `limit` bytes and at least one.
    fn take<M: HostMemory>(
        &mut self,
        dma: &Dma<'_, M>,
        limit: usize,
    ) -> Result<(BusAddr, usize), StatusCode> {
        if self.segment_left == 0 {
            self.refill(dma)?;
        }
        let len = self.segment_left.min(limit as u64);
        let address = self.segment;
        self.segment = address.plus(len);
        self.segment_left = self.segment_left.saturating_sub(len);
        match usize::try_from(len) {
            Ok(len) if len > 0 => Ok((address, len)),
            _ => Err(StatusCode::INTERNAL_ERROR),
        }
    }

    fn refill<M: HostMemory>(&mut self, dma: &Dma<'_, M>) -> Result<(), StatusCode> {
        let page = match self.next {
            Next::Page(page) => page,
            Next::List(mut at) => {
                let last_slot = self.page.saturating_sub(8);
                if self.left > self.page && at.page_offset(self.page) == last_slot {
                    // The last slot of a full list page names the next list page.
                    at = self.entry(dma, at)?;
                    self.batch_len = 0;
                    if at.page_offset(self.page) != 0 {
                        return Err(StatusCode::PRP_OFFSET_INVALID);
                    }
                }
                self.next = Next::List(at.plus(8));
                self.entry(dma, at)?
            }
        };
        if page.page_offset(self.page) != 0 {
            return Err(StatusCode::PRP_OFFSET_INVALID);
        }
        self.segment = page;
        self.segment_left = self.left.min(self.page);
        self.left = self.left.saturating_sub(self.segment_left);
        Ok(())
    }

    /// The list entry at `at`; entries are read in batches that stay inside one list page.
    fn entry<M: HostMemory>(&mut self, dma: &Dma<'_, M>, at: BusAddr) -> Result<BusAddr, StatusCode> {
        if self.batch_at >= self.batch_len {
            let to_end = self.page.saturating_sub(at.page_offset(self.page));
            let further = self.left.saturating_sub(1).checked_div(self.page).unwrap_or_default();
            let needed = further.saturating_add(1).saturating_mul(8);
            let len = to_end.min(needed).min(self.batch.len() as u64).max(8);
            let len = usize::try_from(len).map_err(|_| StatusCode::INTERNAL_ERROR)?;
            let batch = self.batch.get_mut(..len).ok_or(StatusCode::INTERNAL_ERROR)?;
            dma.read(at, batch).map_err(|_| StatusCode::DATA_TRANSFER_ERROR)?;
            self.batch_len = len;
            self.batch_at = 0;
        }
        let bytes = self
            .batch
            .get(self.batch_at..)
            .and_then(|rest| rest.first_chunk::<8>())
            .ok_or(StatusCode::INTERNAL_ERROR)?;
        let entry = BusAddr::new(u64::from_le_bytes(*bytes));
        self.batch_at = self.batch_at.saturating_add(8);
        Ok(entry)
    }
}
