// SPDX-License-Identifier: MIT OR Apache-2.0
//! From one dialect of S0PT into the other.

use super::ControllerStateHeader;
use super::queues::{RawCompletionQueueState, RawSubmissionQueueState, SLOT_ZERO_PHASE};

/// Bytes of the header of the NVMe state.
const STATE_HEADER: u64 = 8;
const SUBMISSION: u64 = size_of::<RawSubmissionQueueState>() as u64;
const COMPLETION: u64 = size_of::<RawCompletionQueueState>() as u64;

/// Translates S0PT of an image from one [`StateDialect`](super::StateDialect) into the other while the image passes in
/// pieces, which may end anywhere. Both directions are the same: the bit is inverted where the tail is 0.
///
/// An image whose header or NVMe state has an unknown version passes as it is, and so does everything that is not an I/O
/// completion queue. Nothing is checked here; whoever takes the image checks it. The work is bounded by the length of the
/// pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DialectTranslator {
    /// Bytes that have passed.
    passed: u64,
    /// Either version is not 0.
    unknown: bool,
    /// Size of the NVMe state in dwords.
    dwords: u128,
    submission_queues: u16,
    completion_queues: u16,
    /// Tail of the completion queue that is passing.
    tail: u16,
}

/// `number` with its byte `at` added, the least significant first.
fn with_byte(number: u16, at: u64, byte: u8) -> u16 {
    number | (u16::from(byte) << if at == 0 { 0 } else { 8 })
}

impl DialectTranslator {
    /// A translator that has seen nothing of the image yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Translates the next bytes of the image.
    pub fn translate(&mut self, piece: &mut [u8]) {
        for byte in &mut *piece {
            // What follows the NVMe state is none of its business.
            let Some(place) = self.passed.checked_sub(ControllerStateHeader::BYTES as u64) else {
                self.header(self.passed, *byte);
                self.passed = self.passed.saturating_add(1);
                continue;
            };
            if self.unknown || u128::from(place) >= self.dwords.saturating_mul(4) {
                return;
            }
            *byte = self.state(place, *byte);
            self.passed = self.passed.saturating_add(1);
        }
    }

    /// Looks at a byte of the image's header.
    fn header(&mut self, place: u64, byte: u8) {
        match place {
            0..=1 => self.unknown |= byte != 0,
            16..=31 => {
                // Shifts by 0 to 120 bits.
                let shift = place.saturating_sub(16).saturating_mul(8) as u32;
                self.dwords |= u128::from(byte).checked_shl(shift).unwrap_or_default();
            }
            _ => {}
        }
    }

    /// A byte of the NVMe state, as it is in the other dialect.
    fn state(&mut self, place: u64, byte: u8) -> u8 {
        match place {
            0..=1 => self.unknown |= byte != 0,
            2..=3 => {
                self.submission_queues = with_byte(self.submission_queues, place.saturating_sub(2), byte);
            }
            4..=5 => {
                self.completion_queues = with_byte(self.completion_queues, place.saturating_sub(4), byte);
            }
            _ => {}
        }
        let first = STATE_HEADER.saturating_add(u64::from(self.submission_queues).saturating_mul(SUBMISSION));
        let Some(place) = place.checked_sub(first) else { return byte };
        if place >= u64::from(self.completion_queues).saturating_mul(COMPLETION) {
            return byte;
        }
        match place % COMPLETION {
            14 => self.tail = u16::from(byte),
            15 => self.tail = with_byte(self.tail, 1, byte),
            // The attributes follow the tail, and hold S0PT in their first byte.
            16 if self.tail == 0 => return byte ^ SLOT_ZERO_PHASE as u8,
            _ => {}
        }
        byte
    }
}
