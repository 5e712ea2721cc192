// SPDX-License-Identifier: MIT OR Apache-2.0
//! Migrations that arrive.

use core::time::Duration;

use super::super::*;
use super::bench::*;
use crate::cdq::QueueLayout;
use crate::fake::{Fault, Rule};
use crate::testing::TestArena;
use crate::wire::lba_migration::{Change, EntrySequence};
use crate::wire::{NamespaceId, StatusCode};

const VENDOR: [u8; 16] = *b"a vendor format!";

fn arenas() -> [TestArena; 2] {
    [TestArena::new(), TestArena::new()]
}

#[test]
fn the_guest_arrives_with_data_and_state() {
    type Row = (&'static str, fn(&mut Bench<'_>));
    let rows: [Row; 15] = [
        ("as it comes", |_| {}),
        ("a log format that is stated", |bench| bench.source.device.log_format = Some(0)),
        ("another log format at the destination", |bench| {
            bench.destination.device.log_format = Some(0xC0);
        }),
        ("queue deleted with the suspension", |bench| bench.options.delete_with_suspend = true),
        ("contiguous queue", |bench| bench.options.queue.layout = QueueLayout::Contiguous),
        ("a guest that does not write", |bench| bench.write_every = 0),
        ("a mover that takes all at once", |bench| bench.mover.room = 10_000),
        ("strict heads", |bench| bench.source.device.strict_head = true),
        ("a busy admin queue", |bench| {
            bench.source.rules = std::vec![
                Rule::new(0x45, 0, Fault::Busy(5)),
                Rule::new(0x09, 0x21, Fault::Busy(20)),
                Rule::new(0x41, 0, Fault::Busy(3)),
            ];
        }),
        ("slow commands", |bench| {
            for (opcode, select) in [(0x45, 0), (0x3D, 0), (0x41, 0), (0x42, 0), (0x09, 0x21), (0x06, 1)] {
                bench.source.rules.push(Rule::new(opcode, select, Fault::Late(6)));
                bench.destination.rules.push(Rule::new(opcode, select, Fault::Late(6)));
            }
        }),
        ("formats where one passage says", |bench| {
            bench.source.device.erratum = true;
            bench.destination.device.erratum = true;
        }),
        ("the notification is refused", |bench| {
            bench.source.rules.push(Rule::new(0x41, 0, Fault::Status(StatusCode::INVALID_FIELD)));
        }),
        ("one head update times out", |bench| {
            bench.source.rules.push(Rule::new(0x09, 0x21, Fault::TimesOut).after(4));
        }),
        ("vendor state in one part", |bench| {
            bench.source.device.vendors = std::vec![VENDOR];
            bench.destination.device.vendors = std::vec![VENDOR];
            bench.source.device.image = image(700);
        }),
        ("allocation known", |bench| {
            bench.source.device.reports = true;
            bench.options.unallocated_reads_zero = true;
            bench.source.device.disks.get_mut(&1).unwrap()[200..900].fill(0);
            for block in (900..1400).step_by(2) {
                bench.source.device.disks.get_mut(&1).unwrap()[block] = 0;
            }
        }),
    ];
    for (name, change) in rows {
        let arenas = arenas();
        let mut bench = Bench::new(&arenas);
        change(&mut bench);
        let ran = bench.run();
        assert!(matches!(ran.outcome, Outcome::Completed { .. }), "{name}: {:?}", ran.outcome);
        bench.assert_migrated(&ran);
        assert!(ran.summary.stop_time.unwrap() > Duration::ZERO, "{name}");
        assert!(ran.summary.rounds >= 2, "{name}: a baseline and a last round");
        assert_eq!(ran.summary.rounds as usize, bench.rounds.len(), "{name}");
        assert_eq!(bench.rounds.iter().map(|round| round.bytes).sum::<u64>(), ran.summary.bytes, "{name}");
        assert_eq!(bench.mover.zeroed > 0, name == "allocation known", "{name}");
        assert!(!ran.quarantined, "{name}");
    }
}

#[test]
fn every_forward_step_is_passed_in_order() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    let ran = bench.run();
    bench.assert_migrated(&ran);
    let forward: std::vec::Vec<MigrationStep> =
        MigrationStep::ALL.iter().copied().filter(|step| step.kind() != StepKind::RollBack).collect();
    assert_eq!(bench.steps, forward);
}

#[test]
fn r5_suspend_get_set_resume_in_the_order_of_a_migratable_device() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    let ran = bench.run();
    bench.assert_migrated(&ran);
    let sends = |port: &crate::fake::FakePort<'_>| {
        let kind = |entry: &crate::wire::SubmissionQueueEntry| match (entry.opcode(), entry.dwords()) {
            (0x41, [0, dw11, ..]) if dw11 >> 16 & 0xFF == 0 => Some("notify"),
            (0x41, [0, ..]) => Some("suspend"),
            (0x41, [1, ..]) => Some("resume"),
            (0x41, _) => Some("set"),
            (0x42, _) => Some("get"),
            _ => None,
        };
        port.sent.iter().filter_map(kind).collect::<std::vec::Vec<_>>()
    };
    assert_eq!(sends(&bench.source), ["notify", "suspend", "get", "get", "get"]);
    assert_eq!(sends(&bench.destination), ["suspend", "set", "resume"]);
    let calls =
        [Called::Suspended, Called::Restore, Called::Fence, Called::BeforeResume, Called::DestinationResumed];
    assert_eq!(bench.platform.calls, calls);
}

#[test]
fn r14_zeroes_of_the_baseline_do_not_make_the_rest_look_short() {
    // Any pace meets this limit, so the first that is known ends the rounds.
    let rows = [("all blocks copied", false, 0), ("all blocks zeroed", true, 1)];
    for (name, zeroes, deltas) in rows {
        let arenas = arenas();
        let mut bench = Bench::new(&arenas);
        bench.source.device.reports = zeroes;
        bench.options.unallocated_reads_zero = zeroes;
        bench.options.stop_time_limit = Duration::from_secs(3600);
        bench.source.device.disks.values_mut().for_each(|disk| disk.fill(0));
        let ran = bench.run();
        bench.assert_migrated(&ran);
        assert_eq!(ran.summary.convergence, Some(Convergence::Reached), "{name}");
        assert_eq!(
            ran.summary.rounds,
            1 + deltas + 1,
            "{name}: the baseline, what gives a pace, and the last"
        );
        assert!(bench.rounds[0].dirty_blocks > 0, "{name}: the guest has written meanwhile");
    }
}

#[test]
fn r6_the_estimate_starts_above_zero_and_reaches_zero() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    let ran = bench.run();
    bench.assert_migrated(&ran);
    let total: u64 = BLOCKS.iter().sum();
    let first = bench.progress.first().unwrap();
    assert_eq!((first.total_blocks, first.remaining_blocks), (total, total));
    assert_eq!(bench.progress.last().unwrap().remaining_blocks, 0);
    assert!(bench.progress.iter().all(|progress| progress.remaining_blocks <= 3 * total));
}

#[test]
fn r9_the_log_is_read_to_the_marker_even_if_it_comes_late() {
    // With a long batch limit the marker is read after the completion of the suspend command.
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    bench.options.batch = 1;
    bench.source.rules.push(Rule::new(0x41, 0, Fault::Late(2)).after(1));
    let ran = bench.run();
    bench.assert_migrated(&ran);

    // Posted long after the completion.
    let mut bench = Bench::new(&arenas);
    bench.source.device.no_marker = true;
    bench.late_marker = true;
    let ran = bench.run();
    bench.assert_migrated(&ran);

    let mut bench = Bench::new(&arenas);
    bench.source.device.no_marker = true;
    let ran = bench.run();
    let Outcome::RolledBack { failure, .. } = ran.outcome else { panic!("{:?}", ran.outcome) };
    assert_eq!(failure, Failure::NoSuspendMarker);
    bench.assert_rolled_back(&ran, "no marker");
}

#[test]
fn r11_a_shared_medium_needs_no_copy_and_no_queue() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    bench.options.data = DataPath::Shared;
    bench.options.delete_with_suspend = true;
    bench.source.device.tracks = false;
    let ran = bench.run();
    assert_eq!(ran.outcome, Outcome::Completed { platform: true, clean_up: None });
    assert_eq!(bench.destination.device.received, bench.source.device.image);
    assert_eq!((ran.summary.blocks, bench.source.count(0x45, 0), bench.source.count(0x3D, 0)), (0, 0, 0));
    assert_eq!(bench.progress.last().unwrap().remaining_blocks, 0);

    let mut bench = Bench::new(&arenas);
    bench.options.data = DataPath::Shared;
    bench.cancel_at = Some(MigrationStep::SetState);
    let ran = bench.run();
    bench.assert_rolled_back(&ran, "cancelled");
}

#[test]
fn r12_deltas_follow_the_baseline() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    bench.write_every = 1;
    let ran = bench.run();
    bench.assert_migrated(&ran);
    let baseline = bench.rounds.first().unwrap();
    assert_eq!((baseline.number, baseline.blocks), (0, BLOCKS.iter().sum()));
    assert!(bench.rounds.iter().skip(1).any(|round| round.blocks > 0));
    assert!(ran.summary.queue.entries > 0 && ran.summary.queue.head_updates > 0);
}

#[test]
fn r13_overflow_is_survived_with_every_small_ring() {
    for entries in [2, 3, 4, 5, 8] {
        for layout in [QueueLayout::Contiguous, QueueLayout::PrpList] {
            for quirks in [Quirks::empty(), Quirks::STOP_BEFORE_RESTART] {
                let arenas = arenas();
                let mut bench = Bench::new(&arenas);
                bench.options.queue.entries = entries;
                bench.options.queue.layout = layout;
                bench.options.quirks = quirks;
                bench.options.delete_with_suspend = entries % 2 == 1;
                bench.write_every = 1;
                bench.writes = 9;
                bench.mover.blocks_per_poll = 400;
                let ran = bench.run();
                bench.assert_migrated(&ran);
                let figures = ran.summary.queue;
                assert!(figures.overflows > 0 && figures.full_events > 0, "{entries} {layout:?} {figures:?}");
                assert!(bench.rounds.iter().any(|round| round.cut_short), "{entries}");
                assert_ne!(ran.summary.convergence, Some(Convergence::Reached), "{entries}");
            }
        }
    }
}

#[test]
fn r13_convergence_from_before_an_overflow_does_not_count() {
    // The guest rests until the rounds have converged, then overflows the ring at once.
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    bench.write_every = 0;
    bench.options.queue.entries = 8;
    bench.burst_at = Some(MigrationStep::SuspendDestination);
    let ran = bench.run();
    bench.assert_migrated(&ran);
    assert!(ran.summary.restarts > 0);
    let again = bench.steps.iter().filter(|step| **step == MigrationStep::DeltaRounds).count();
    assert_eq!(again, 2, "the rounds are made again");
}

#[test]
fn r13_an_overflow_while_the_source_is_suspended_voids_convergence_too() {
    for policy in [ConvergencePolicy::Force, ConvergencePolicy::Cancel] {
        let arenas = arenas();
        let mut bench = Bench::new(&arenas);
        bench.write_every = 0;
        bench.options.queue.entries = 8;
        bench.options.convergence = policy;
        bench.burst_at = Some(MigrationStep::SuspendSource);
        let ran = bench.run();
        assert_eq!(ran.summary.convergence, Some(Convergence::Overflowed), "{policy:?}");
        if policy == ConvergencePolicy::Force {
            bench.assert_migrated(&ran);
        } else {
            bench.assert_rolled_back(&ran, "strict");
            assert!(bench.platform.calls.contains(&Called::Suspended), "the guest stood still meanwhile");
        }
    }
}

#[test]
fn r13_a_log_that_breaks_its_rules_is_copied_again_and_comes_to_an_end() {
    type Row = (&'static str, MigrationStep, Hook, Option<u64>);
    let first: Hook = |port, id| {
        let _ = port.post(id, EntrySequence::First, Change::None);
    };
    let all: Hook = |port, id| {
        let change = Change::AllOfNamespace { namespace: NamespaceId::new(1) };
        let _ = port.post(id, EntrySequence::First, change);
    };
    let all_ordinary: Hook = |port, id| {
        let mut bytes = [0; 32];
        (bytes[0], bytes[31]) = (1, 1 << 6);
        let _ = port.post_raw(id, bytes);
    };
    let rows: [Row; 5] = [
        ("a start inside the log, once", MigrationStep::NotifySuspend, first, None),
        ("each time", MigrationStep::NotifySuspend, first, Some(1)),
        ("in every round", MigrationStep::DeltaRounds, first, Some(1)),
        ("with everything changed", MigrationStep::DeltaRounds, all, Some(1)),
        ("everything changed without a marker", MigrationStep::DeltaRounds, all_ordinary, Some(1)),
    ];
    for (name, step, hook, every) in rows {
        for stop_time_limit in [Duration::ZERO, Duration::from_secs(5)] {
            let arenas = [TestArena::new(), TestArena::new()];
            let mut bench = Bench::new(&arenas);
            (bench.hook, bench.hook_every) = (Some((step, hook)), every);
            bench.options.stop_time_limit = stop_time_limit;
            bench.write_every = 0;
            let ran = bench.run();
            assert!(matches!(ran.outcome, Outcome::Completed { .. }), "{name}: {:?}", ran.outcome);
            bench.assert_migrated(&ran);
        }
    }
}

#[test]
fn r9_a_suspension_by_somebody_else_does_not_close_the_log() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    bench.hook = Some((MigrationStep::BaselineCopy, |port, id| {
        assert!(port.post(id, EntrySequence::LastSuspended, Change::None));
        assert!(port.post(id, EntrySequence::First, Change::None));
    }));
    bench.source.device.no_marker = true;
    bench.late_marker = true;
    let ran = bench.run();
    bench.assert_migrated(&ran);
    assert!(!bench.late_marker, "the entry that closes the log was waited for");
}

#[test]
fn r13_a_log_that_somebody_else_stopped_is_started_again() {
    for step in [MigrationStep::BaselineCopy, MigrationStep::DeltaRounds, MigrationStep::SuspendDestination] {
        let arenas = arenas();
        let mut bench = Bench::new(&arenas);
        bench.write_every = 1;
        bench.hook = Some((step, |port, id| {
            assert!(port.post(id, EntrySequence::LastStopped, Change::None));
            port.device.queues.get_mut(&id.get()).unwrap().logging = false;
        }));
        let ran = bench.run();
        bench.assert_migrated(&ran);
        assert!(ran.summary.restarts > 0, "{step}");
    }
}

#[test]
fn r9_a_long_suspension_is_waited_for_and_not_spun_on() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    bench.write_every = 0;
    bench.source.rules.push(Rule::new(0x41, 0, Fault::Late(500)).after(1));
    let ran = bench.run();
    bench.assert_migrated(&ran);
    assert!(bench.restless < 5, "polled at once {} times in a row", bench.restless);
}

#[test]
fn r14_not_converging_is_forced_or_refused_and_said() {
    let unlimited = |bench: &mut Bench<'_>| {
        bench.write_every = 1;
        bench.mover.blocks_per_poll = 4;
        bench.options.stop_time_limit = Duration::ZERO;
        bench.options.max_rounds = 3;
    };
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    unlimited(&mut bench);
    let ran = bench.run();
    bench.assert_migrated(&ran);
    let why = ran.summary.convergence.unwrap();
    assert!(matches!(why, Convergence::RoundsExhausted | Convergence::Stalled), "{why:?}");

    let mut bench = Bench::new(&arenas);
    unlimited(&mut bench);
    bench.options.convergence = ConvergencePolicy::Cancel;
    let ran = bench.run();
    bench.assert_rolled_back(&ran, "strict");
    let Outcome::RolledBack { failure, .. } = ran.outcome else { panic!("{:?}", ran.outcome) };
    assert!(matches!(failure, Failure::NotConverged { dirty_blocks } if dirty_blocks > 0));
    assert!(!bench.platform.calls.contains(&Called::Suspended), "the guest never stood still");
}

#[test]
fn r14_what_the_log_already_says_counts_before_the_rest_is_called_small() {
    // After the baseline the queue is full, and one poll reads one entry of it.
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    bench.write_every = 0;
    bench.options.batch = 1;
    bench.options.queue.entries = 64;
    bench.burst_at = Some(MigrationStep::DeltaRounds);
    bench.options.stop_time_limit = Duration::from_micros(5);
    let ran = bench.run();
    bench.assert_migrated(&ran);
    assert_eq!(ran.summary.convergence, Some(Convergence::Reached));
    let delta = bench.rounds.get(1).expect("a round");
    assert_eq!((delta.blocks, ran.summary.rounds), (40, 3), "{:?}", bench.rounds);
}

#[test]
fn r17_formats_match_by_value_and_each_side_gets_its_own_index() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    bench.source.device.versions = std::vec![9, 0];
    bench.source.device.vendors = std::vec![[1; 16], VENDOR];
    bench.destination.device.versions = std::vec![7, 8, 0];
    bench.destination.device.vendors = std::vec![VENDOR, [2; 16]];
    bench.source.device.image = image(3);
    let ran = bench.run();
    bench.assert_migrated(&ran);
    let get = bench.source.sent.iter().find(|entry| entry.opcode() == 0x42).unwrap().dwords();
    assert_eq!((get[0] >> 16, get[1]), (2, 2 << 16 | u32::from(SOURCE.get())));
    let set =
        |entry: &&crate::wire::SubmissionQueueEntry| entry.opcode() == 0x41 && entry.dwords()[0] & 0xFF == 2;
    let set = bench.destination.sent.iter().find(set).unwrap().dwords();
    assert_eq!(set[1], 1 << 24 | 3 << 16 | u32::from(DESTINATION.get()));
    assert!(!bench.platform.calls.contains(&Called::Restore), "the vendor format carries the properties");
}

#[test]
fn r18_large_states_travel_in_parts() {
    for (name, transfer, dwords, sets) in [
        ("one part exactly", 4096, (4096 - 56) / 4, 1),
        ("one dword more", 4096, (4096 - 56) / 4 + 1, 2),
        ("three parts", 4096, (12288 - 56) / 4, 3),
        ("many parts", 4096, 16000, 16),
        ("no limit", usize::MAX, 5000, 1),
    ] {
        let arenas = arenas();
        let mut bench = Bench::new(&arenas);
        bench.source.device.vendors = std::vec![VENDOR];
        bench.destination.device.vendors = std::vec![VENDOR];
        bench.source.device.image = image(dwords);
        bench.destination.max_transfer = transfer;
        bench.source.max_transfer = transfer;
        bench.image_room = bench.source.device.image.len();
        let ran = bench.run();
        bench.assert_migrated(&ran);
        assert_eq!(bench.destination.count(0x41, 2), sets, "{name}");
        // The header is read before everything and once more before the resume.
        assert_eq!(bench.source.count(0x42, 0), 2 + bench.source.device.image.len().div_ceil(4096), "{name}");
    }
}

#[test]
fn r20_quirks_are_off_unless_set() {
    let run = |quirks: Quirks| {
        let arenas = arenas();
        let mut bench = Bench::new(&arenas);
        bench.source.device.quiet_get = true;
        bench.options.quirks = quirks;
        bench.run().outcome
    };
    assert!(matches!(run(Quirks::empty()), Outcome::RolledBack { failure: Failure::NotSuspended, .. }));
    assert!(matches!(run(Quirks::SUSPENDED_IN_HEADER), Outcome::Completed { .. }));
    let mut named = Quirks::empty();
    for known in Quirks::TABLE {
        assert_eq!(Quirks::from_kebab(known.name), Some(known.quirk));
        assert!(!named.intersects(known.quirk), "{} twice", known.name);
        assert!(!known.deviation.is_empty() && !known.without.is_empty(), "{}", known.name);
        named |= known.quirk;
    }
    assert_eq!(named, Quirks::all(), "every quirk has a name");
}

#[test]
fn r21_the_state_passes_through_unchanged() {
    // Queue addresses mean something in the guest's domain only: nothing here translates them.
    let golden = include_str!("../../../tests/vectors/controller-state-1q-vf.hex");
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    let mut bytes = parse_hex(golden);
    assert_eq!(bytes.len(), 104);
    bytes[2] |= 1;
    bench.source.device.image = bytes;
    let ran = bench.run();
    bench.assert_migrated(&ran);
}

fn parse_hex(text: &str) -> std::vec::Vec<u8> {
    let lines = text.lines().filter_map(|line| line.split_once(": ")).map(|(_, bytes)| bytes);
    let digits: std::string::String = lines.flat_map(str::chars).filter(char::is_ascii_hexdigit).collect();
    let pair = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len() / 2).map(|n| pair(n * 2)).collect()
}
