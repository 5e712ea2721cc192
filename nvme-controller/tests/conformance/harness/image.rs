// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controller State images, byte by byte after the figures, and as wrong as a test wants them.

use super::sqe::{self, Sqe};
use super::{Completion, World};

/// Bytes of the header of the Controller State data structure.
pub(crate) const HEADER: usize = 48;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubmissionState {
    pub(crate) base: u64,
    /// Zero-based.
    pub(crate) size: u16,
    pub(crate) id: u16,
    pub(crate) completion: u16,
    pub(crate) attributes: u16,
    pub(crate) head: u16,
    pub(crate) tail: u16,
    pub(crate) reserved: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CompletionState {
    pub(crate) base: u64,
    /// Zero-based.
    pub(crate) size: u16,
    pub(crate) id: u16,
    pub(crate) head: u16,
    pub(crate) tail: u16,
    /// Bit 0 contiguous, 1 interrupts, 2 phase of slot 0, 31:16 vector.
    pub(crate) attributes: u32,
    pub(crate) reserved: u32,
}

/// An image. What the header and the counts say can differ from what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) version: u16,
    pub(crate) attributes: u8,
    pub(crate) reserved: [u8; 13],
    pub(crate) nvme_dwords: Option<u128>,
    pub(crate) vendor_dwords: Option<u128>,
    /// Whether an NVMe state is there at all.
    pub(crate) nvme: bool,
    pub(crate) state_version: u16,
    pub(crate) submission_count: Option<u16>,
    pub(crate) completion_count: Option<u16>,
    pub(crate) state_reserved: u16,
    pub(crate) submission: Vec<SubmissionState>,
    pub(crate) completion: Vec<CompletionState>,
    pub(crate) vendor: Vec<u8>,
}

impl Image {
    /// An NVMe state without queues.
    pub(crate) fn empty() -> Self {
        Self {
            version: 0,
            attributes: 0,
            reserved: [0; 13],
            nvme_dwords: None,
            vendor_dwords: None,
            nvme: true,
            state_version: 0,
            submission_count: None,
            completion_count: None,
            state_reserved: 0,
            submission: Vec::new(),
            completion: Vec::new(),
            vendor: Vec::new(),
        }
    }

    /// One queue pair with identifier 1 and sixteen empty slots at these addresses.
    pub(crate) fn one_pair(submission: u64, completion: u64) -> Self {
        let mut image = Self::empty();
        image.submission.push(SubmissionState {
            base: submission,
            size: 15,
            id: 1,
            completion: 1,
            attributes: 1,
            head: 0,
            tail: 0,
            reserved: 0,
        });
        image.completion.push(CompletionState {
            base: completion,
            size: 15,
            id: 1,
            head: 0,
            tail: 0,
            attributes: 3,
            reserved: 0,
        });
        image
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut state = Vec::new();
        if self.nvme {
            state.extend(self.state_version.to_le_bytes());
            state.extend(self.submission_count.unwrap_or(self.submission.len() as u16).to_le_bytes());
            state.extend(self.completion_count.unwrap_or(self.completion.len() as u16).to_le_bytes());
            state.extend(self.state_reserved.to_le_bytes());
        }
        for queue in &self.submission {
            state.extend(queue.base.to_le_bytes());
            for half in [queue.size, queue.id, queue.completion, queue.attributes, queue.head, queue.tail] {
                state.extend(half.to_le_bytes());
            }
            state.extend(queue.reserved.to_le_bytes());
        }
        for queue in &self.completion {
            state.extend(queue.base.to_le_bytes());
            for half in [queue.size, queue.id, queue.head, queue.tail] {
                state.extend(half.to_le_bytes());
            }
            state.extend(queue.attributes.to_le_bytes());
            state.extend(queue.reserved.to_le_bytes());
        }
        let mut bytes = Vec::new();
        bytes.extend(self.version.to_le_bytes());
        bytes.push(self.attributes);
        bytes.extend(self.reserved);
        bytes.extend(self.nvme_dwords.unwrap_or(state.len() as u128 / 4).to_le_bytes());
        bytes.extend(self.vendor_dwords.unwrap_or(self.vendor.len() as u128 / 4).to_le_bytes());
        assert_eq!(bytes.len(), HEADER);
        bytes.extend(state);
        bytes.extend(&self.vendor);
        bytes
    }

    /// Takes an image apart that agrees with itself.
    #[track_caller]
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let half = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let wide = |at: usize| u128::from_le_bytes(bytes[at..at + 16].try_into().unwrap());
        let nvme = wide(16) as usize * 4;
        let vendor = wide(32) as usize * 4;
        assert_eq!(bytes.len(), HEADER + nvme + vendor, "the header's sizes");
        let mut image = Self {
            version: half(0),
            attributes: bytes[2],
            reserved: bytes[3..16].try_into().unwrap(),
            nvme: nvme > 0,
            vendor: bytes[HEADER + nvme..].to_vec(),
            ..Self::empty()
        };
        if nvme == 0 {
            return image;
        }
        image.state_version = half(48);
        image.state_reserved = half(54);
        let (submission, completion) = (usize::from(half(50)), usize::from(half(52)));
        assert_eq!(nvme, 8 + 24 * (submission + completion), "the counts");
        for at in (0..submission).map(|index| 56 + 24 * index) {
            image.submission.push(SubmissionState {
                base: long(at),
                size: half(at + 8),
                id: half(at + 10),
                completion: half(at + 12),
                attributes: half(at + 14),
                head: half(at + 16),
                tail: half(at + 18),
                reserved: word(at + 20),
            });
        }
        for at in (submission..submission + completion).map(|index| 56 + 24 * index) {
            image.completion.push(CompletionState {
                base: long(at),
                size: half(at + 8),
                id: half(at + 10),
                head: half(at + 12),
                tail: half(at + 14),
                attributes: word(at + 16),
                reserved: word(at + 20),
            });
        }
        image
    }
}

impl World {
    /// A Set Controller State command with `bytes` as data.
    pub(crate) fn state_part(
        &self,
        manager: usize,
        target: u16,
        sequence: u32,
        indices: (u8, u8),
        offset: u64,
        bytes: &[u8],
    ) -> Sqe {
        let prps = if bytes.is_empty() { (0, 0) } else { self.hosts[manager].data(bytes) };
        sqe::set_state(target, sequence, indices, offset, bytes.len() as u32, prps)
    }

    /// Sends a whole image in one command.
    #[track_caller]
    pub(crate) fn set_image(
        &mut self,
        manager: usize,
        target: u16,
        indices: (u8, u8),
        bytes: &[u8],
    ) -> Completion {
        let command = self.state_part(manager, target, sqe::ONLY, indices, 0, bytes);
        self.admin(manager, command)
    }

    /// Reads a whole image: first the header, then everything it announces.
    #[track_caller]
    pub(crate) fn get_image(&mut self, manager: usize, target: u16, indices: (u8, u8)) -> Vec<u8> {
        let header = self.get_state_bytes(manager, target, indices, 0, HEADER as u32);
        let wide = |at: usize| u128::from_le_bytes(header[at..at + 16].try_into().unwrap());
        let len = HEADER as u128 + (wide(16) + wide(32)) * 4;
        self.get_state_bytes(manager, target, indices, 0, u32::try_from(len).unwrap())
    }

    #[track_caller]
    pub(crate) fn get_state_bytes(
        &mut self,
        manager: usize,
        target: u16,
        indices: (u8, u8),
        offset: u64,
        len: u32,
    ) -> Vec<u8> {
        let (address, prps) = self.hosts[manager].buffer(u64::from(len));
        self.admin(manager, sqe::get_state(target, indices, offset, len, prps)).ok();
        self.memory(manager).bytes(address, len as usize)
    }
}
