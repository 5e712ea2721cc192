// SPDX-License-Identifier: MIT OR Apache-2.0
//! The codec of controller states: both readings of the phase, with and without a vendor part, and every image cut
//! short or with one byte changed.

use core::hint::black_box;

use nvme_core::wire::controller_state::{
    CompletionQueueState, ControllerStateBuilder, ControllerStateImage, StateDialect, StateError,
    StateLimits, SubmissionQueueState,
};
use nvme_core::wire::{BusAddr, QueueId};

use crate::world::{Check, Failed};

const LIMITS: StateLimits = StateLimits {
    submission_queues: 8,
    completion_queues: 8,
    queue_entries: 65_536,
    vectors: 8,
    contiguous_required: false,
    page_bytes: 4096,
};

fn submission() -> SubmissionQueueState {
    SubmissionQueueState {
        queue: QueueId::new(1),
        base: BusAddr::new(0x7_0000),
        entries: 32,
        completion_queue: QueueId::new(1),
        contiguous: true,
        priority: 2,
        head: 3,
        tail: 9,
    }
}

fn completion() -> CompletionQueueState {
    CompletionQueueState {
        queue: QueueId::new(1),
        base: BusAddr::new(0x9_0000),
        entries: 16,
        contiguous: true,
        head: 2,
        tail: 0,
        interrupts_enabled: true,
        next_phase: true,
        vector: 1,
    }
}

fn encode(buffer: &mut [u8], dialect: StateDialect, vendor: &[u8]) -> Result<usize, StateError> {
    let mut builder = ControllerStateBuilder::new(buffer, true, dialect)?;
    builder.submission_queue(submission())?;
    builder.completion_queue(completion())?;
    for (to, from) in builder.vendor_area().iter_mut().zip(vendor) {
        *to = *from;
    }
    builder.finish(vendor.len())
}

/// Reads an image to its last field. What it says does not matter, only that it is either said or refused.
fn decode(bytes: &[u8], dialect: StateDialect) -> Result<usize, StateError> {
    let image = ControllerStateImage::parse(bytes, 4096)?;
    image.check_indices(1, 1)?;
    image.validate(&LIMITS)?;
    let mut queues = 0_usize;
    if let Some(state) = image.nvme_state()? {
        queues = queues.saturating_add(state.submission_queues().filter(|q| *q == submission()).count());
        queues =
            queues.saturating_add(state.completion_queues(dialect).filter(|q| *q == completion()).count());
    }
    Ok(queues)
}

/// Failures are numbered from 30.
pub fn work() -> Result<(), Failed> {
    for dialect in [StateDialect::Specification, StateDialect::NextPostPhase] {
        for vendor in [&[][..], &[1, 2, 3, 4, 5]] {
            let mut buffer = [0; 256];
            let len = encode(black_box(&mut buffer), dialect, black_box(vendor)).check(30)?;
            let image = black_box(&mut buffer).get_mut(..len).check(31)?;
            (decode(image, dialect).check(32)? == 2).check(33)?;
            for cut in 0..len {
                let cut = image.get(..cut).check(34)?;
                decode(black_box(cut), dialect).is_err().check(35)?;
            }
            for at in 0..len {
                for flip in [1, 0x80, 0xFF] {
                    let change = |image: &mut [u8]| image.get_mut(at).map(|byte| *byte ^= flip);
                    change(image).check(36)?;
                    // Refused or not: an address can be any other one.
                    let _ = black_box(decode(black_box(image), dialect));
                    change(image).check(36)?;
                }
            }
        }
    }
    let mut small = [0; 60];
    encode(black_box(&mut small), StateDialect::Specification, &[]).is_err().check(37)?;
    let mut bare = [0; 128];
    let len = ControllerStateBuilder::without_nvme_state(black_box(&mut bare), true)
        .check(38)?
        .finish(7)
        .check(38)?;
    let bytes = bare.get(..len).check(39)?;
    (decode(black_box(bytes), StateDialect::Specification).check(39)? == 0).check(39)
}
