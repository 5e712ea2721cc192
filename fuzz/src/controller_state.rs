// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images of a controller's state: the standard codec, and a controller that takes them.

use nvme_core::wire::controller_state::{
    ControllerStateBuilder, ControllerStateHeader, ControllerStateImage, StateDialect, StateLimits,
};

use crate::Input;
use crate::rig::{GUEST, MANAGER, with_rig};

/// Largest image looked at.
const LIMIT: usize = 8192;

/// Reads, checks, rebuilds and sets an image.
///
/// # Panics
/// A property does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.u8();
    let image_bytes = input.rest();
    image(image_bytes);
    if choice & 1 != 0 {
        set_and_get(choice, image_bytes);
    }
}

/// The codec alone.
pub(crate) fn image(bytes: &[u8]) {
    match ControllerStateHeader::parse(bytes).and_then(|header| header.sizes(LIMIT)) {
        Ok(sizes) => assert!(sizes.total <= LIMIT, "{sizes:?}"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let image = match ControllerStateImage::parse(bytes, LIMIT) {
        Ok(image) => image,
        Err(error) => {
            assert!(!error.status().status().is_success());
            return;
        }
    };
    assert!(image.total_bytes() <= bytes.len());
    let limits = StateLimits {
        submission_queues: 8,
        completion_queues: 8,
        queue_entries: 1024,
        vectors: 16,
        contiguous_required: false,
        page_bytes: 4096,
    };
    let valid = image.validate(&limits);
    for dialect in [StateDialect::Specification, StateDialect::NextPostPhase] {
        let rebuilt = match rebuild(&image, dialect) {
            Ok(rebuilt) => rebuilt,
            Err(error) => {
                assert!(valid.is_err(), "valid, but not to be built: {error}");
                continue;
            }
        };
        let again = ControllerStateImage::parse(&rebuilt, LIMIT).expect("just built");
        assert_eq!(again.suspended(), image.suspended());
        assert_eq!(again.vendor_data(), image.vendor_data());
        let queues = |image: &ControllerStateImage<'_>| {
            image.nvme_state().ok().flatten().map(|state| {
                let submission: Vec<_> = state.submission_queues().collect();
                (submission, state.completion_queues(dialect).collect::<Vec<_>>())
            })
        };
        assert_eq!(queues(&again), queues(&image));
        if valid.is_ok() {
            assert_eq!(again.validate(&limits), Ok(()));
            // Nothing of a valid image is lost.
            assert_eq!(rebuilt, bytes[..image.total_bytes()], "{dialect:?}");
        }
    }
}

fn rebuild(
    image: &ControllerStateImage<'_>,
    dialect: StateDialect,
) -> Result<Vec<u8>, nvme_core::wire::controller_state::StateError> {
    let mut buffer = vec![0; LIMIT + 64];
    let vendor = image.vendor_data();
    let mut builder = match image.nvme_state()? {
        Some(state) => {
            let mut builder = ControllerStateBuilder::new(&mut buffer, image.suspended(), dialect)?;
            for queue in state.submission_queues() {
                builder.submission_queue(queue)?;
            }
            for queue in state.completion_queues(dialect) {
                builder.completion_queue(queue)?;
            }
            builder
        }
        None => ControllerStateBuilder::without_nvme_state(&mut buffer, image.suspended())?,
    };
    builder.vendor_area()[..vendor.len()].copy_from_slice(vendor);
    let len = builder.finish(vendor.len())?;
    buffer.truncate(len);
    Ok(buffer)
}

/// A controller takes the image in parts, refuses it or gives it back equal.
fn set_and_get(choice: u8, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(4096) & !3];
    with_rig(|rig| {
        rig.bring_up(MANAGER);
        rig.bring_up(GUEST);
        assert!(rig.suspend(GUEST), "a guest without commands is suspended at once");
        let before =
            rig.get_state(MANAGER, GUEST, choice & 2 != 0).expect("a suspended controller has a state");
        let own = choice & 4 != 0;
        let image = if own { before.as_slice() } else { bytes };
        if image.is_empty() {
            return;
        }
        let parts = 1 + usize::from(choice >> 5);
        match rig.set_state((MANAGER, GUEST), image, parts, choice & 2 != 0, choice & 8 != 0) {
            Ok(()) => {
                let taken = rig.get_state(MANAGER, GUEST, choice & 2 != 0).expect("it is still suspended");
                let parsed = ControllerStateImage::parse(image, 1 << 16).expect("it was taken");
                let given = ControllerStateImage::parse(&taken, 1 << 16).expect("its own image");
                // Without a vendor part it keeps its own, which the answer has if it is asked for.
                let extra = if parsed.vendor_data().is_empty() { given.vendor_data().len() } else { 0 };
                assert_eq!(taken.len(), parsed.total_bytes() + extra, "taken and given back");
                let states = [&taken[..], image].map(|bytes| {
                    let image = ControllerStateImage::parse(bytes, 1 << 16).expect("an image");
                    let state = image.nvme_state().expect("a state").expect("present");
                    let submission: Vec<_> = state.submission_queues().collect();
                    (submission, state.completion_queues(StateDialect::Specification).collect::<Vec<_>>())
                });
                assert_eq!(states[0], states[1]);
            }
            Err(_) => {
                assert!(!own || choice & 8 != 0, "its own state was refused");
                let after =
                    rig.get_state(MANAGER, GUEST, choice & 2 != 0).expect("a refused image changes nothing");
                assert_eq!(after, before, "a refused image changes nothing");
            }
        }
    });
}
