// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of images: what is built parses and validates, what is altered is refused for the right reason.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::wire::{BusAddr, QueueId, StatusCode};

const LIMITS: StateLimits = StateLimits {
    submission_queues: 4,
    completion_queues: 4,
    queue_entries: 1024,
    vectors: 4,
    contiguous_required: true,
    page_bytes: 4096,
};

fn submission(queue: u16) -> SubmissionQueueState {
    SubmissionQueueState {
        queue: QueueId::new(queue),
        base: BusAddr::new(0x10_0000 + u64::from(queue) * 0x1000),
        entries: 64,
        completion_queue: QueueId::new(queue),
        contiguous: true,
        priority: 2,
        head: 5,
        tail: 63,
    }
}

fn completion(queue: u16) -> CompletionQueueState {
    CompletionQueueState {
        queue: QueueId::new(queue),
        base: BusAddr::new(0x20_0000 + u64::from(queue) * 0x1000),
        entries: 1024,
        contiguous: true,
        interrupts_enabled: true,
        vector: queue,
        head: 1023,
        tail: 0,
        next_phase: true,
    }
}

fn two_pairs() -> Vec<u8> {
    let mut buffer = std::vec![0xEE; image_bytes(2, 2, 5)];
    let mut builder = ControllerStateBuilder::new(&mut buffer, true, StateDialect::Specification).unwrap();
    builder.submission_queue(submission(1)).unwrap();
    builder.submission_queue(submission(3)).unwrap();
    builder.completion_queue(completion(1)).unwrap();
    builder.completion_queue(completion(3)).unwrap();
    builder.vendor_area()[..5].copy_from_slice(b"state");
    assert_eq!(builder.finish(5), Ok(48 + 8 + 4 * 24 + 8));
    buffer
}

fn check(bytes: &[u8]) -> Result<(), StateError> {
    ControllerStateImage::parse(bytes, 4096)?.validate(&LIMITS)
}

#[test]
fn built_images_parse_back() {
    let bytes = two_pairs();
    let image = ControllerStateImage::parse(&bytes, 4096).unwrap();
    assert!(image.suspended());
    assert_eq!(image.total_bytes(), bytes.len());
    assert_eq!(image.vendor_data(), b"state\0\0\0");
    let state = image.nvme_state().unwrap().unwrap();
    assert_eq!(state.submission_queues().collect::<Vec<_>>(), [submission(1), submission(3)]);
    let queues: Vec<_> = state.completion_queues(StateDialect::Specification).collect();
    assert_eq!(queues, [completion(1), completion(3)]);
    assert_eq!(image.validate(&LIMITS), Ok(()));
}

#[test]
fn r19_every_altered_field_is_refused_by_name() {
    use QueueKind::{Completion, Submission};
    let one = QueueId::new(1);
    let three = QueueId::new(3);
    // Offsets: state header 48, submission queues 56 and 80, completion queues 104 and 128, vendor part 152.
    let rows: [(&str, usize, &[u8], StateError); 31] = [
        ("header version", 0, &[1], StateError::HeaderVersion(1)),
        ("reserved attribute", 2, &[3], StateError::ReservedHeader),
        ("reserved header byte", 15, &[1], StateError::ReservedHeader),
        ("state version", 48, &[1], StateError::StateVersion(1)),
        ("one submission queue more", 50, &[3], disagree(3, 2)),
        ("one submission queue less", 50, &[1], disagree(1, 2)),
        ("counts swapped between lists stay wrong", 50, &[4, 0, 1, 0], disagree(4, 1)),
        ("huge counts", 50, &[255, 255, 255, 255], disagree(65535, 65535)),
        ("reserved state header", 54, &[1], StateError::ReservedStateHeader),
        ("submission base unaligned", 57, &[2], base(Submission, 0x10_0200)),
        ("submission size 1", 64, &[0, 0], size(Submission, 1, 1)),
        ("submission size above MQES", 64, &[0, 4], size(Submission, 1, 1025)),
        ("submission queue 0", 66, &[0], StateError::QueueIdentifier(Submission, QueueId::ADMIN)),
        (
            "submission queue beyond the last",
            90,
            &[5],
            StateError::QueueIdentifier(Submission, QueueId::new(5)),
        ),
        (
            "submission queue twice",
            90,
            &[1],
            StateError::Order { kind: Submission, previous: one, queue: one },
        ),
        (
            "completion queue missing",
            68,
            &[2],
            StateError::NoCompletionQueue { queue: one, completion_queue: QueueId::new(2) },
        ),
        (
            "admin completion queue",
            92,
            &[0],
            StateError::NoCompletionQueue { queue: three, completion_queue: QueueId::ADMIN },
        ),
        ("submission not contiguous", 70, &[4], StateError::NotContiguous(Submission, one)),
        ("submission reserved attribute", 70, &[9], StateError::ReservedQueue(Submission, one)),
        ("submission reserved bytes", 79, &[1], StateError::ReservedQueue(Submission, one)),
        (
            "submission head",
            72,
            &[64],
            StateError::Head { kind: Submission, queue: one, head: 64, entries: 64 },
        ),
        (
            "submission tail",
            74,
            &[64],
            StateError::Tail { kind: Submission, queue: one, tail: 64, entries: 64 },
        ),
        ("completion size 1", 112, &[0, 0], size(Completion, 1, 1)),
        (
            "completion queues descend",
            114,
            &[4],
            StateError::Order { kind: Completion, previous: QueueId::new(4), queue: three },
        ),
        (
            "completion head",
            116,
            &[0, 4],
            StateError::Head { kind: Completion, queue: one, head: 1024, entries: 1024 },
        ),
        (
            "completion tail",
            118,
            &[0, 4],
            StateError::Tail { kind: Completion, queue: one, tail: 1024, entries: 1024 },
        ),
        ("completion not contiguous", 120, &[2], StateError::NotContiguous(Completion, one)),
        ("completion reserved attribute", 120, &[0x0B], StateError::ReservedQueue(Completion, one)),
        ("completion reserved bytes", 125, &[1], StateError::ReservedQueue(Completion, one)),
        ("vector", 122, &[4], StateError::Vector { queue: one, vector: 4, vectors: 4 }),
        (
            "completion base unaligned",
            128,
            &[8],
            StateError::Base { kind: Completion, queue: three, base: BusAddr::new(0x20_3008) },
        ),
    ];
    for (name, at, bytes, error) in rows {
        let mut image = two_pairs();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        assert_eq!(check(&image), Err(error), "{name}");
        assert!(!std::format!("{error}").is_empty(), "{name}");
    }
}

fn disagree(submission_queues: u16, completion_queues: u16) -> StateError {
    StateError::SizeDisagrees { submission_queues, completion_queues, bytes: 104 }
}

fn size(kind: QueueKind, queue: u16, entries: u32) -> StateError {
    StateError::QueueSize { kind, queue: QueueId::new(queue), entries, limit: 1024 }
}

fn base(kind: QueueKind, base: u64) -> StateError {
    StateError::Base { kind, queue: QueueId::new(1), base: BusAddr::new(base) }
}

#[test]
fn r19_sizes_are_bounded_before_anything_else() {
    let image = two_pairs();
    let with = |at: usize, bytes: &[u8]| {
        let mut image = image.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        image
    };
    let too_large =
        |nvme_dwords, vendor_dwords| StateError::TooLarge { nvme_dwords, vendor_dwords, limit: 4096 };
    let rows = [
        ("no bytes", Vec::new(), StateError::Short { needed: 48, found: 0 }),
        ("header only", image[..48].to_vec(), StateError::Short { needed: 160, found: 48 }),
        ("last byte missing", image[..159].to_vec(), StateError::Short { needed: 160, found: 159 }),
        ("all bits of NVMECSS", with(16, &[255; 16]), too_large(u128::MAX, 2)),
        ("all bits of VSS", with(32, &[255; 16]), too_large(26, u128::MAX)),
        ("sum overflows 64 bits", with(23, &[0x20]), too_large(26 | (0x20 << 56), 2)),
        ("just above the limit", with(32, &[0xDB, 3]), too_large(26, 987)),
        (
            "within the limit but not there",
            with(32, &[0xDA, 3]),
            StateError::Short { needed: 4096, found: 160 },
        ),
        ("state shorter than its header", with(16, &[1]), StateError::Short { needed: 8, found: 4 }),
    ];
    for (name, bytes, error) in rows {
        assert_eq!(check(&bytes), Err(error), "{name}");
    }
}

#[test]
fn parts_must_agree_with_the_indices_of_the_command() {
    let bytes = two_pairs();
    let both = ControllerStateImage::parse(&bytes, 4096).unwrap();
    assert_eq!(both.check_indices(1, 1), Ok(()));
    assert_eq!(both.check_indices(0, 1), Err(StateError::StateWithoutIndex));
    assert_eq!(both.check_indices(1, 0), Err(StateError::VendorWithoutIndex));
    let mut buffer = [0; 48];
    let builder = ControllerStateBuilder::without_nvme_state(&mut buffer, false).unwrap();
    assert_eq!(builder.finish(0), Ok(48));
    let none = ControllerStateImage::parse(&buffer, 48).unwrap();
    assert!(none.nvme_state().unwrap().is_none());
    assert!(!none.suspended());
    assert_eq!(none.check_indices(0, 1), Ok(()));
    assert_eq!(none.validate(&LIMITS), Ok(()));
}

#[test]
fn building_refuses_what_could_not_be_read() {
    let mut buffer = [0; 56 + 48];
    let mut builder = ControllerStateBuilder::new(&mut buffer, true, StateDialect::Specification).unwrap();
    builder.submission_queue(submission(2)).unwrap();
    let order =
        StateError::Order { kind: QueueKind::Submission, previous: QueueId::new(2), queue: QueueId::new(2) };
    assert_eq!(builder.submission_queue(submission(2)), Err(order));
    let none = SubmissionQueueState { entries: 0, ..submission(3) };
    let size = StateError::QueueSize {
        kind: QueueKind::Submission,
        queue: QueueId::new(3),
        entries: 0,
        limit: 65_536,
    };
    assert_eq!(builder.submission_queue(none), Err(size));
    builder.completion_queue(completion(1)).unwrap();
    assert_eq!(
        builder.submission_queue(submission(3)),
        Err(StateError::SubmissionAfterCompletion(QueueId::new(3)))
    );
    assert_eq!(builder.completion_queue(completion(2)), Err(StateError::Short { needed: 128, found: 104 }));
    assert!(builder.vendor_area().is_empty());
    assert_eq!(builder.finish(1), Err(StateError::Short { needed: 108, found: 104 }));
    let mut builder = ControllerStateBuilder::without_nvme_state(&mut buffer, true).unwrap();
    assert_eq!(builder.submission_queue(submission(1)), Err(StateError::StateWithoutIndex));
    let start = |bytes| {
        let mut buffer = std::vec![0; bytes];
        [
            ControllerStateBuilder::new(&mut buffer, true, StateDialect::Specification).err(),
            ControllerStateBuilder::without_nvme_state(&mut buffer, true).err(),
        ]
    };
    let short = |needed, found| Some(StateError::Short { needed, found });
    assert_eq!(start(47), [short(56, 47), short(48, 47)], "no room for a header");
    assert_eq!(start(55), [short(56, 55), None], "no room for the second header");
    assert_eq!(start(56), [None, None]);
    let mut builder = ControllerStateBuilder::new(&mut buffer, true, StateDialect::Specification).unwrap();
    for (kind, added) in [
        (QueueKind::Submission, builder.submission_queue(submission(0))),
        (QueueKind::Completion, builder.completion_queue(completion(0))),
    ] {
        assert_eq!(
            added,
            Err(StateError::QueueIdentifier(kind, QueueId::ADMIN)),
            "the admin queue is no part"
        );
    }
}

#[test]
fn slot_zero_phase_is_inverted_only_at_slot_zero() {
    use StateDialect::{NextPostPhase, Specification};
    let rows = [
        ("fresh queue", Specification, false, 0, true),
        ("first lap", Specification, true, 5, true),
        ("start of the second lap", Specification, true, 0, false),
        ("second lap", Specification, false, 5, false),
        ("fresh queue, next-post dialect", NextPostPhase, true, 0, true),
        ("first lap, next-post dialect", NextPostPhase, true, 5, true),
        ("start of the second lap, next-post dialect", NextPostPhase, false, 0, false),
        ("second lap, next-post dialect", NextPostPhase, false, 5, false),
    ];
    for (name, dialect, s0pt, tail, next) in rows {
        assert_eq!(dialect.phase_for_next_post(s0pt, tail), next, "{name}");
        assert_eq!(dialect.slot_zero_phase(next, tail), s0pt, "{name}");
    }
}

#[test]
fn refusals_carry_a_status() {
    let many = StateError::TooManyQueues { kind: QueueKind::Submission, count: 2, limit: 1 };
    assert_eq!(many.status(), StatusCode::NOT_ENOUGH_RESOURCES);
    assert_eq!(StateError::ReservedHeader.status(), StatusCode::INVALID_FIELD);
    let limits = StateLimits { submission_queues: 1, ..LIMITS };
    assert_eq!(ControllerStateImage::parse(&two_pairs(), 4096).unwrap().validate(&limits), Err(many));
}

/// `bytes` translated in pieces of at most `most` bytes.
fn translated(bytes: &[u8], most: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut translator = DialectTranslator::new();
    bytes.chunks_mut(most).for_each(|piece| translator.translate(piece));
    bytes
}

#[test]
fn only_the_phase_of_queues_with_tail_zero_is_translated() {
    // Where the attributes of both completion queues are: behind two headers and two submission queues.
    let [first, second] = [0, 1].map(|queue| 48 + 8 + 2 * 24 + 24 * queue + 16);
    let altered = |change: fn(&mut Vec<u8>)| {
        let mut bytes = two_pairs();
        change(&mut bytes);
        bytes
    };
    let rows: [(&str, Vec<u8>, &[usize]); 8] = [
        ("both tails 0", two_pairs(), &[first, second]),
        ("tail 1 of the first", altered(|bytes| bytes[118] = 1), &[second]),
        ("tail 256 of the second", altered(|bytes| bytes[143] = 1), &[first]),
        ("one completion queue only", altered(|bytes| bytes[52] = 1), &[first]),
        ("more queues than the NVMe state has room for", altered(|bytes| bytes[52] = 200), &[first, second]),
        ("unknown header", altered(|bytes| bytes[1] = 1), &[]),
        ("unknown NVMe state", altered(|bytes| bytes[48] = 1), &[]),
        ("no NVMe state, all vendor's", altered(|bytes| bytes[16..32].fill(0)), &[]),
    ];
    for (name, bytes, expected) in rows {
        for most in 1..=bytes.len() {
            let after = translated(&bytes, most);
            let changed: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != after[*at]).collect();
            assert_eq!(changed, expected, "{name}, in pieces of {most}");
            assert!(
                changed.iter().all(|at| bytes[*at] ^ after[*at] == 1 << 2),
                "{name}, in pieces of {most}"
            );
        }
    }
    let endless = altered(|bytes| bytes[16..32].fill(0xFF));
    assert_eq!(translated(&endless, 7)[48..], translated(&two_pairs(), 7)[48..], "as far as there are bytes");
}

proptest! {
    #[test]
    fn a_translated_image_says_the_same_in_the_other_dialect(
        queues in proptest::collection::vec((any::<u16>(), any::<bool>()), 0..9), cuts: [u8; 4], submissions in 0_u16..5,
        vendor in 0_usize..9, next_post: bool,
    ) {
        let (from, to) = match next_post {
            true => (StateDialect::NextPostPhase, StateDialect::Specification),
            false => (StateDialect::Specification, StateDialect::NextPostPhase),
        };
        let mut bytes = std::vec![0xEE; image_bytes(submissions, queues.len() as u16, vendor)];
        let mut builder = ControllerStateBuilder::new(&mut bytes, true, from).unwrap();
        (1..=submissions).for_each(|queue| builder.submission_queue(submission(queue)).unwrap());
        for (queue, (tail, next_phase)) in (1..).zip(&queues) {
            // Every other tail is 0.
            let tail = if tail % 2 == 0 { 0 } else { *tail };
            let state = CompletionQueueState { tail, next_phase: *next_phase, ..completion(queue) };
            builder.completion_queue(state).unwrap();
        }
        builder.finish(vendor).unwrap();
        let read = |bytes: &[u8], dialect| -> (Vec<_>, Vec<_>, Vec<u8>) {
            let image = ControllerStateImage::parse(bytes, bytes.len()).unwrap();
            let state = image.nvme_state().unwrap().unwrap();
            let queues = state.completion_queues(dialect).collect();
            (state.submission_queues().collect(), queues, image.vendor_data().to_vec())
        };
        let (mut after, mut translator) = (bytes.clone(), DialectTranslator::new());
        let mut rest = after.as_mut_slice();
        for cut in cuts {
            let (piece, left) = rest.split_at_mut(usize::from(cut).min(rest.len()));
            translator.translate(piece);
            rest = left;
        }
        translator.translate(rest);
        prop_assert_eq!(read(&after, to), read(&bytes, from));
        prop_assert_eq!(translated(&after, 5), bytes, "and back");
    }

    #[test]
    fn any_bytes_are_translated_and_back(bytes in proptest::collection::vec(any::<u8>(), 0..400), most in 1_usize..50) {
        let after = translated(&bytes, most);
        prop_assert_eq!(translated(&after, 400), bytes);
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = check(&bytes).is_ok();
        if let Ok(state) = NvmeControllerState::parse(&bytes) {
            let queues = state.submission_queues().len() + state.completion_queues(StateDialect::Specification).len();
            prop_assert_eq!(8 + 24 * queues, bytes.len());
        }
    }

    #[test]
    fn one_altered_byte_never_panics(at in 0_usize..160, value: u8) {
        let mut bytes = two_pairs();
        bytes[at] = value;
        if let Ok(image) = ControllerStateImage::parse(&bytes, 4096) {
            prop_assert!(image.total_bytes() <= bytes.len());
            let _ = image.validate(&LIMITS).is_ok();
        }
    }

    #[test]
    fn queues_round_trip(
        entries in 1_u32..=65_536, head: u16, tail: u16, contiguous: bool, interrupts_enabled: bool, vector: u16,
        next_phase: bool, priority in 0_u8..4, base: u64, next_post: bool,
    ) {
        let dialect = if next_post { StateDialect::NextPostPhase } else { StateDialect::Specification };
        let cq = CompletionQueueState {
            queue: QueueId::new(7), base: BusAddr::new(base), entries, contiguous, interrupts_enabled, vector, head,
            tail, next_phase,
        };
        let sq = SubmissionQueueState {
            queue: QueueId::new(9), base: BusAddr::new(base), entries, completion_queue: QueueId::new(7), contiguous,
            priority, head, tail,
        };
        let mut buffer = [0; 104];
        let mut builder = ControllerStateBuilder::new(&mut buffer, false, dialect).unwrap();
        builder.submission_queue(sq).unwrap();
        builder.completion_queue(cq).unwrap();
        prop_assert_eq!(builder.finish(0), Ok(104));
        let state = ControllerStateImage::parse(&buffer, 104).unwrap().nvme_state().unwrap().unwrap();
        prop_assert_eq!(state.submission_queues().next(), Some(sq));
        prop_assert_eq!(state.completion_queues(dialect).next(), Some(cq));
    }
}
