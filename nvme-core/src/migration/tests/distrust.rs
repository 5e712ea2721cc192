// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controllers that say less or more than the truth: what they say decides only where it can be checked.

use super::super::*;
use super::bench::{Bench, Broken, Guest, MANAGER, SOURCE, TestMover, TestPlatform, image};
use super::faults::arenas;
use super::pieces::Talk;
use crate::admin::CallError;
use crate::dirty::DirtySet;
use crate::fake::{Device, FakePort, Fault, Rule, Running};
use crate::testing::TestArena;
use crate::time::{Instant, Step};
use crate::wire::controller_state::StateError;
use crate::wire::lba_migration::{Change, EntrySequence};
use crate::wire::{Lba, NamespaceId, StatusCode};

#[test]
fn r9_an_entry_that_closes_the_log_before_the_suspension_closes_nothing() {
    for step in [MigrationStep::BaselineCopy, MigrationStep::DeltaRounds, MigrationStep::SuspendDestination] {
        let arenas = arenas();
        let mut bench = Bench::new(&arenas);
        bench.hook = Some((step, |source, id| {
            assert!(source.post(id, EntrySequence::LastSuspended, Change::None));
        }));
        // The true one comes late, so that the false one would be taken for it.
        bench.source.device.no_marker = true;
        bench.late_marker = true;
        bench.options.quirks = Quirks::STOP_BEFORE_RESTART;
        let ran = bench.run();
        bench.assert_migrated(&ran);
        assert!(ran.summary.restarts > 0, "{step}: the log was begun anew");
    }
}

#[test]
fn r9_a_log_that_never_opened_is_not_complete() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    bench.source.device.mute_start = true;
    bench.source.device.no_marker = true;
    bench.late_marker = true;
    let ran = bench.run();
    // The guest wrote while nothing was logged.
    bench.assert_migrated(&ran);
    assert_eq!(ran.summary.convergence, Some(Convergence::Overflowed));

    let mut bench = Bench::new(&arenas);
    bench.source.device.mute_start = true;
    bench.source.device.no_marker = true;
    bench.late_marker = true;
    bench.options.convergence = ConvergencePolicy::Cancel;
    let ran = bench.run();
    bench.assert_rolled_back(&ran, "copying everything while the guest stands still was not asked for");
}

#[test]
fn r9_a_suspended_controller_that_goes_on_logging_ends_the_migration() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    bench.options.batch = 1;
    bench.options.timeouts.marker = core::time::Duration::from_millis(1);
    bench.hook = Some((MigrationStep::Drain, |source, id| {
        let change = Change::Range {
            namespace: NamespaceId::new(1),
            start: Lba::new(3),
            blocks: 1,
            deallocated: false,
        };
        let _ = source.post(id, EntrySequence::Ordinary, change);
    }));
    bench.hook_every = Some(1);
    let ran = bench.run();
    bench.assert_rolled_back(&ran, "endless log");
    let Outcome::RolledBack { failure, .. } = ran.outcome else { panic!("{:?}", ran.outcome) };
    assert_eq!(failure, Failure::NoSuspendMarker);
}

#[test]
fn r10_a_reset_of_the_source_manager_after_the_state_was_read_keeps_the_destination_from_running() {
    let steps = [
        MigrationStep::Drain,
        MigrationStep::FinalCopy,
        MigrationStep::Flush,
        MigrationStep::GetState,
        MigrationStep::SetState,
        MigrationStep::ResumeDestination,
    ];
    for step in steps {
        for noticed in [true, false] {
            let arenas = arenas();
            let mut bench = Bench::new(&arenas);
            bench.hook = Some(if noticed {
                (step, |source, _| source.disable())
            } else {
                // Nobody tells the driver: the controller reset itself.
                (step, |source, _| source.device.reset())
            });
            bench.options.timeouts.marker = core::time::Duration::from_millis(5);
            let ran = bench.run();
            let name = std::format!("{step}, {}", if noticed { "noticed" } else { "not noticed" });
            assert!(matches!(ran.outcome, Outcome::RolledBack { .. }), "{name}: {:?}", ran.outcome);
            assert_eq!(bench.source.device.running, Running::Running, "{name}");
            assert_eq!(bench.platform.guest, Guest::AtSource, "{name}");
            assert_eq!(bench.destination.count(0x41, 1), 0, "{name}: the destination was never asked");
        }
    }
}

#[test]
fn head_updates_that_fail_late_end_the_migration_at_the_third() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    // No failure is seen in the poll that sent the update.
    for _ in 0..20 {
        bench.source.rules.push(Rule::new(0x09, 0x21, Fault::LateStatus(3, StatusCode::INTERNAL_ERROR)));
    }
    let ran = bench.run();
    bench.assert_rolled_back(&ran, "heads that fail late");
    let Outcome::RolledBack { failure, .. } = ran.outcome else { panic!("{:?}", ran.outcome) };
    assert!(matches!(failure, Failure::Head(_)), "{failure:?}");
    assert_eq!(bench.source.count(0x09, 0x21), 3);
}

/// What a destination that is to forget has done before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Nothing: the source was cancelled before it was stopped.
    Nothing,
    /// It refused the state.
    RefusedState,
    /// It refused to resume.
    RefusedResume,
}

/// A migration over a shared medium up to the destination's answer to Forget, which is exchanged for `answer`; none at
/// all if there is none. How it ends, whether the source runs, and how often it was resumed.
fn forget(before: Before, answer: Option<Reply>) -> (Outcome<Broken, Broken>, Running, usize) {
    let arenas = arenas();
    let (mut maps, mut rounds, mut room) = ([], [], std::vec![0; 4096]);
    let dirty = DirtySet::new(&mut maps).unwrap();
    let mut options = MigrationOptions::new(SOURCE);
    options.data = DataPath::Shared;
    options.timeouts.answer = core::time::Duration::from_millis(100);
    let mut half: SourceHalf<'_, '_, Broken, Broken> = SourceHalf::new(options, dirty, &mut rounds);
    let mut port = FakePort::new(&arenas[0], Device::new(MANAGER));
    port.device.image = image(0);
    let (mut mover, mut platform) = (TestMover::default(), TestPlatform::idle());
    let mut talk = Talk::new(&arenas[1], &mut room, Quirks::empty());
    let select = if before == Before::RefusedState { 2 } else { 1 };
    talk.port.rules.push(Rule::new(0x41, select, Fault::Status(StatusCode::INVALID_FIELD)));
    let mut now = Instant::ZERO;
    for _ in 0..1000 {
        now = now.after(core::time::Duration::from_millis(1));
        if half.poll(now, &mut port, &mut mover, &mut platform) == Step::Done {
            return (*half.outcome().unwrap(), port.device.running, port.count(0x41, 1));
        }
        if let Some(RequestMessage { sequence, request }) = half.take_request() {
            let forgets = request == Request::Forget;
            let reply = talk.ask(request);
            if let Some(reply) = if forgets { answer.clone() } else { Some(reply) } {
                half.deliver(ReplyMessage { sequence, reply });
            }
            if before == Before::Nothing {
                assert_eq!(half.cancel(), Cancellation::Accepted);
            }
        }
    }
    panic!("no end in {}", half.step());
}

#[test]
fn r10_only_a_destination_that_has_forgotten_or_was_never_asked_lets_the_source_resume() {
    let failed = Reply::Failed(DestinationFailure::Platform);
    let table = [
        ("failed", Some(failed), [true, true]),
        ("resumed", Some(Reply::Resumed { platform: true }), [true, true]),
        ("unknown", Some(Reply::ResumeUnknown(CallError::TimedOut)), [true, true]),
        // A destination that was not asked to resume does not reach the guest's memory.
        ("no answer", None, [false, true]),
        ("done", Some(Reply::Done), [false, false]),
    ];
    for (name, answer, unsure) in table {
        for (before, unsure) in [Before::RefusedState, Before::RefusedResume].into_iter().zip(unsure) {
            let name = std::format!("{name} after {before:?}");
            let (outcome, running, resumes) = forget(before, answer.clone());
            if unsure {
                let asked = before == Before::RefusedResume;
                let Outcome::Indeterminate { resume_asked, .. } = outcome else {
                    panic!("{name}: {outcome:?}")
                };
                assert_eq!((resume_asked, running, resumes), (asked, Running::Suspended, 0), "{name}");
            } else {
                assert!(matches!(outcome, Outcome::RolledBack { .. }), "{name}: {outcome:?}");
                assert_eq!((running, resumes), (Running::Running, 1), "{name}");
            }
        }
        // A source that was never stopped has nothing to be kept from.
        let (outcome, running, resumes) = forget(Before::Nothing, answer);
        assert!(matches!(outcome, Outcome::RolledBack { .. }), "{name}: {outcome:?}");
        assert_eq!((running, resumes), (Running::Running, 0), "{name}");
    }
}

#[test]
fn r9_an_entry_that_closes_the_log_before_the_port_has_taken_the_suspend_closes_nothing() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    bench.source.rules.push(Rule::new(0x41, 0, Fault::Busy(4)).after(1));
    bench.hook = Some((MigrationStep::SuspendSource, |source, id| {
        assert_eq!(source.count(0x41, 0), 1, "only the announcement has been sent");
        assert!(source.post(id, EntrySequence::LastSuspended, Change::None));
    }));
    // The true one comes late, so that the false one would be taken for it.
    bench.source.device.no_marker = true;
    bench.late_marker = true;
    let ran = bench.run();
    bench.assert_migrated(&ran);
    assert_eq!(ran.summary.convergence, Some(Convergence::Overflowed), "everything was copied again");
}

#[test]
fn r19_an_image_without_the_state_that_was_agreed_on_is_refused() {
    let arena = TestArena::new();
    let mut room = std::vec![0; 4096];
    let mut talk = Talk::new(&arena, &mut room, Quirks::empty());
    assert!(matches!(talk.ask(Request::Hello { version: PROTOCOL_VERSION }), Reply::Formats(_)));
    assert_eq!(talk.ask(Request::Suspend), Reply::Done);
    let mut bytes = image(0);
    bytes.truncate(48);
    bytes[16..32].fill(0);
    let reply = talk.send_image(&bytes);
    assert_eq!(reply, Reply::Failed(DestinationFailure::State(StateError::IndexWithoutState)));
    assert_eq!(talk.port.count(0x41, 2), 0, "nothing of it reaches the controller");
}

/// Evidence about another controller.
struct Foreign;
impl crate::dma::proof::Sealed for Foreign {
    fn evidence(&self) -> crate::dma::Evidence {
        crate::dma::Evidence::Disabled
    }

    fn covers(&self, _arena: usize) -> bool {
        false
    }
}
impl crate::dma::LetGo for Foreign {}

#[test]
fn r8_only_the_reset_of_its_own_manager_frees_a_stuck_source() {
    let arenas = arenas();
    let (mut maps, mut rounds) = ([], []);
    let dirty = DirtySet::new(&mut maps).unwrap();
    let mut options = MigrationOptions::new(SOURCE);
    options.data = DataPath::Shared;
    let mut half: SourceHalf<'_, '_, Broken, Broken> = SourceHalf::new(options, dirty, &mut rounds);
    let mut port = FakePort::new(&arenas[0], Device::new(MANAGER));
    port.rules.push(Rule::new(0x42, 0, Fault::Status(StatusCode::INVALID_FIELD)));
    for _ in 0..3 {
        port.rules.push(Rule::new(0x41, 1, Fault::Status(StatusCode::INTERNAL_ERROR)));
    }
    let mut room = std::vec![0; 4096];
    let mut talk = Talk::new(&arenas[1], &mut room, Quirks::empty());
    let (mut mover, mut platform) = (TestMover::default(), TestPlatform::idle());
    let mut now = Instant::ZERO;
    while half.poll(now, &mut port, &mut mover, &mut platform) != Step::Done {
        now = now.after(core::time::Duration::from_millis(1));
        assert!(now < Instant::from_micros(1_000_000), "no end in {}", half.step());
        if let Some(RequestMessage { sequence, request }) = half.take_request() {
            half.deliver(ReplyMessage { sequence, reply: talk.ask(request) });
        }
    }
    assert!(matches!(half.outcome(), Some(Outcome::SourceStuck { .. })), "{:?}", half.outcome());
    assert_eq!(half.manager_was_reset(&arenas[0], &mut platform, &Foreign), Ok(false));
    assert_eq!(half.manager_was_reset(&arenas[1], &mut platform, &crate::testing::TestProof), Ok(false));
    assert!(matches!(half.outcome(), Some(Outcome::SourceStuck { .. })), "nothing was believed");
    assert_eq!(platform.guest, Guest::Held);
    assert_eq!(half.manager_was_reset(&arenas[0], &mut platform, &crate::testing::TestProof), Ok(true));
    assert!(matches!(half.outcome(), Some(Outcome::RolledBack { platform: true, .. })));
    assert_eq!(platform.guest, Guest::AtSource);
}
