// SPDX-License-Identifier: MIT OR Apache-2.0
//! Migrations that do not arrive: cancelled or failed in every step.

use super::super::*;
use super::bench::*;
use crate::admin::{CallError, SubmitError};
use crate::dma::Pool;
use crate::fake::{Fault, Rule, Running};
use crate::testing::TestArena;
use crate::wire::{Status, StatusCode};

pub(super) fn arenas() -> [TestArena; 2] {
    [TestArena::new(), TestArena::new()]
}

const REFUSED: Fault = Fault::Status(StatusCode::OPERATION_DENIED);
/// An error that does not say whether the command took effect; it did not.
const UNCLEAR: Fault = Fault::Status(StatusCode::INTERNAL_ERROR);
/// The same, but it did.
const UNCLEAR_DONE: Fault = Fault::DoneBut(StatusCode::INTERNAL_ERROR.status());
/// A status that neither says success nor an error.
const NO_STATUS: Fault = Fault::DoneBut(Status::SUCCESS.with_do_not_retry());

#[test]
fn r8_cancel_is_answered_in_every_step() {
    for delete_with_suspend in [false, true] {
        for &step in MigrationStep::ALL {
            let arenas = arenas();
            let mut bench = Bench::new(&arenas);
            bench.options.delete_with_suspend = delete_with_suspend;
            bench.cancel_at = Some(step);
            if step.kind() == StepKind::RollBack {
                // A migration that is on its way back already.
                bench.mover.breaks_at = Some(10);
            }
            let ran = bench.run();
            match step.kind() {
                StepKind::Reversible => {
                    assert_eq!(ran.cancelled, Some(Cancellation::Accepted), "{step}");
                    bench.assert_rolled_back(&ran, step.name());
                    assert!(
                        matches!(ran.outcome, Outcome::RolledBack { failure: Failure::Cancelled, .. }),
                        "{step}"
                    );
                }
                StepKind::Final => {
                    assert_eq!(ran.cancelled, Some(Cancellation::TooLate), "{step}");
                    bench.assert_migrated(&ran);
                }
                StepKind::RollBack => {
                    assert_eq!(ran.cancelled, Some(Cancellation::Accepted), "{step}");
                    bench.assert_rolled_back(&ran, step.name());
                }
            }
            assert!(!ran.quarantined, "{step}");
            assert_eq!(bench.live(Pool::Data), 0, "{step}");
            assert!(bench.steps.contains(&step), "{step} was reached");
        }
    }
}

#[test]
fn r8_r10_r16_every_failure_before_the_resume_leads_back() {
    type Row = (&'static str, fn(&mut Bench<'_>), bool);
    let rows: [Row; 42] = [
        ("source does not manage", |bench| bench.source.device.manages = false, false),
        ("source does not track", |bench| bench.source.device.tracks = false, false),
        ("r23: a log of a vendor's format", |bench| bench.source.device.log_format = Some(0xC0), false),
        ("destination does not manage", |bench| bench.destination.device.manages = false, false),
        (
            "source controller is the manager",
            |bench| bench.options.controller = crate::wire::ControllerId::new(MANAGER),
            false,
        ),
        (
            "destination controller is the manager",
            |bench| {
                bench.destination_options.controller = crate::wire::ControllerId::new(MANAGER);
            },
            false,
        ),
        ("no common format", |bench| bench.destination.device.versions = std::vec![3], false),
        ("identify refused", |bench| bench.source.rules.push(Rule::new(0x06, 1, REFUSED)), false),
        ("create refused", |bench| bench.source.rules.push(Rule::new(0x45, 0, REFUSED)), false),
        ("create failed unclearly", |bench| bench.source.rules.push(Rule::new(0x45, 0, UNCLEAR)), true),
        (
            "create done without a status",
            |bench| bench.source.rules.push(Rule::new(0x45, 0, NO_STATUS)),
            true,
        ),
        ("create timed out", |bench| bench.source.rules.push(Rule::new(0x45, 0, Fault::TimesOut)), true),
        ("start refused", |bench| bench.source.rules.push(Rule::new(0x3D, 0, REFUSED)), false),
        (
            "start done but timed out",
            |bench| {
                bench.source.rules.push(Rule::new(0x3D, 0, Fault::DoneButTimesOut));
            },
            false,
        ),
        (
            "heads refused",
            |bench| {
                for _ in 0..3 {
                    bench.source.rules.push(Rule::new(0x09, 0x21, REFUSED));
                }
            },
            false,
        ),
        ("a change in an unknown namespace", |bench| bench.stranger = true, false),
        ("mover fails in the baseline", |bench| bench.mover.breaks_at = Some(3), false),
        (
            "destination suspend refused",
            |bench| bench.destination.rules.push(Rule::new(0x41, 0, REFUSED)),
            false,
        ),
        (
            "destination suspend timed out",
            |bench| {
                bench.destination.rules.push(Rule::new(0x41, 0, Fault::TimesOut));
            },
            false,
        ),
        ("suspend refused", |bench| bench.source.rules.push(Rule::new(0x41, 0, REFUSED).after(1)), false),
        (
            "suspend failed unclearly",
            |bench| bench.source.rules.push(Rule::new(0x41, 0, UNCLEAR).after(1)),
            false,
        ),
        (
            "suspend done but failed unclearly",
            |bench| bench.source.rules.push(Rule::new(0x41, 0, UNCLEAR_DONE).after(1)),
            false,
        ),
        (
            "suspend done without a status",
            |bench| bench.source.rules.push(Rule::new(0x41, 0, NO_STATUS).after(1)),
            false,
        ),
        (
            "suspend refused by a controller that is suspended",
            |bench| {
                let suspended = Fault::DoneBut(StatusCode::CONTROLLER_SUSPENDED.status());
                bench.source.rules.push(Rule::new(0x41, 0, suspended).after(1));
            },
            false,
        ),
        (
            "set done but failed unclearly",
            |bench| bench.destination.rules.push(Rule::new(0x41, 2, UNCLEAR_DONE)),
            false,
        ),
        (
            "destination suspend done without a status",
            |bench| bench.destination.rules.push(Rule::new(0x41, 0, NO_STATUS)),
            false,
        ),
        (
            "suspend done but timed out",
            |bench| {
                bench.source.rules.push(Rule::new(0x41, 0, Fault::DoneButTimesOut).after(1));
            },
            false,
        ),
        (
            "suspend never done",
            |bench| {
                bench.source.rules.push(Rule::new(0x41, 0, Fault::TimesOut).after(1));
            },
            false,
        ),
        ("platform fails at the suspension", |bench| bench.platform.breaks = Some(Called::Suspended), false),
        ("get refused", |bench| bench.source.rules.push(Rule::new(0x42, 0, REFUSED)), false),
        (
            "second get timed out",
            |bench| {
                bench.source.rules.push(Rule::new(0x42, 0, Fault::TimesOut).after(1));
            },
            false,
        ),
        ("state too long for the destination", |bench| bench.image_room = 50, false),
        ("platform fails to restore", |bench| bench.platform.breaks = Some(Called::Restore), false),
        ("set refused", |bench| bench.destination.rules.push(Rule::new(0x41, 2, REFUSED)), false),
        ("set timed out", |bench| bench.destination.rules.push(Rule::new(0x41, 2, Fault::TimesOut)), false),
        ("platform fails to fence", |bench| bench.platform.breaks = Some(Called::Fence), false),
        (
            "the last look at the source fails",
            |bench| bench.source.rules.push(Rule::new(0x42, 0, REFUSED).after(2)),
            false,
        ),
        (
            "the suspension ended before the last look at the source",
            |bench| {
                let ends: Hook = |port, _| port.device.running = Running::Running;
                bench.hook = Some((MigrationStep::ResumeDestination, ends));
            },
            false,
        ),
        (
            "platform fails before the resume",
            |bench| bench.platform.breaks = Some(Called::BeforeResume),
            false,
        ),
        ("resume refused", |bench| bench.destination.rules.push(Rule::new(0x41, 1, REFUSED)), false),
        (
            "stop of the log refused",
            |bench| {
                bench.mover.breaks_at = Some(3);
                bench.source.rules.push(Rule::new(0x3D, 0, REFUSED).after(1));
            },
            false,
        ),
        (
            "delete refused",
            |bench| {
                bench.mover.breaks_at = Some(3);
                bench.source.rules.push(Rule::new(0x45, 1, REFUSED));
            },
            true,
        ),
    ];
    for (name, change, quarantined) in rows {
        let arenas = arenas();
        let mut bench = Bench::new(&arenas);
        change(&mut bench);
        let ran = bench.run();
        bench.assert_rolled_back(&ran, name);
        assert_eq!(ran.quarantined, quarantined, "{name}");
    }
}

#[test]
fn r10_a_resume_without_an_answer_resumes_nobody() {
    for (name, fault, error) in [
        ("timed out", Fault::TimesOut, CallError::TimedOut),
        ("done but timed out", Fault::DoneButTimesOut, CallError::TimedOut),
        ("lost", Fault::Lost, CallError::Lost),
        ("lost before it was sent", Fault::NotReady, CallError::NotSubmitted(SubmitError::NotReady)),
        ("failed unclearly", UNCLEAR, CallError::Status(StatusCode::INTERNAL_ERROR.status())),
        ("done but failed unclearly", UNCLEAR_DONE, CallError::Status(StatusCode::INTERNAL_ERROR.status())),
        ("done without a status", NO_STATUS, CallError::Status(Status::SUCCESS.with_do_not_retry())),
        (
            "it runs already",
            Fault::Status(StatusCode::CONTROLLER_NOT_SUSPENDED),
            CallError::Status(StatusCode::CONTROLLER_NOT_SUSPENDED.status()),
        ),
    ] {
        let arenas = arenas();
        let mut bench = Bench::new(&arenas);
        bench.destination.rules.push(Rule::new(0x41, 1, fault));
        let ran = bench.run();
        let failure = Failure::ResumeUnknown(error);
        assert_eq!(ran.outcome, Outcome::Indeterminate { failure, resume_asked: true }, "{name}");
        assert_eq!(bench.source.device.running, Running::Suspended, "{name}: the source is not resumed");
        assert_eq!(bench.source.count(0x41, 1), 0, "{name}");
        assert!(bench.source.device.queues.is_empty(), "{name}");
    }
}

#[test]
fn r10_a_destination_that_cannot_be_kept_from_running_keeps_the_source_suspended() {
    // Only a destination that was sent its resume has had access to the guest's memory.
    let before = Some(Called::BeforeResume);
    for (name, rule, breaks, asked) in [
        ("set state refused", Some((2, REFUSED)), None, false),
        ("resume refused", Some((1, REFUSED)), None, true),
        ("resume not sent", None, before, false),
        ("its manager fails before the resume is sent", Some((2, Fault::LastDone)), None, false),
    ] {
        let arenas = arenas();
        let mut bench = Bench::new(&arenas);
        bench.destination.rules.extend(rule.map(|(select, fault)| Rule::new(0x41, select, fault)));
        (bench.platform.breaks, bench.platform.breaks_too) = (Some(Called::Forgotten), breaks);
        let ran = bench.run();
        let Outcome::Indeterminate { failure, resume_asked } = ran.outcome else {
            panic!("{name}: {:?}", ran.outcome)
        };
        assert_eq!(failure, Failure::Destination(DestinationFailure::Platform), "{name}");
        assert_eq!(resume_asked, asked, "{name}");
        assert_eq!(bench.source.device.running, Running::Suspended, "{name}");
    }
}

#[test]
fn success_with_more_or_a_retry_delay_is_success_everywhere() {
    for (name, status) in
        [("more", Status::SUCCESS.with_more()), ("retry delay", Status::SUCCESS.with_retry_delay(3))]
    {
        let commands = [
            (0x06, 0, 1),
            (0x45, 0, 0),
            (0x3D, 0, 0),
            (0x09, 0x21, 0),
            (0x41, 0, 0),
            (0x41, 0, 1),
            (0x42, 0, 0),
            (0x45, 1, 0),
        ];
        for (opcode, select, skip) in commands {
            let arenas = arenas();
            let mut bench = Bench::new(&arenas);
            bench.source.rules.push(Rule::new(opcode, select, Fault::DoneBut(status)).after(skip));
            let ran = bench.run();
            assert!(!ran.quarantined, "{name} on {opcode:02x}h/{select}");
            bench.assert_migrated(&ran);
        }
        for select in 0..3 {
            let arenas = arenas();
            let mut bench = Bench::new(&arenas);
            bench.destination.rules.push(Rule::new(0x41, select, Fault::DoneBut(status)));
            let ran = bench.run();
            bench.assert_migrated(&ran);
        }
    }
}

#[test]
fn after_the_resume_the_destination_is_authoritative() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    bench.source.rules.push(Rule::new(0x45, 1, REFUSED));
    let ran = bench.run();
    let Outcome::Completed { platform: true, clean_up: Some(failed) } = ran.outcome else {
        panic!("{:?}", ran.outcome)
    };
    assert_eq!(failed.command, MigrationCommand::DeleteQueue);
    assert!(ran.quarantined);

    let mut bench = Bench::new(&arenas);
    bench.platform.breaks = Some(Called::DestinationResumed);
    let ran = bench.run();
    assert_eq!(ran.outcome, Outcome::Completed { platform: false, clean_up: None });
    assert_eq!(bench.source.device.running, Running::Suspended);
}

#[test]
fn r8_a_source_that_cannot_be_resumed_is_said_to_be_stuck() {
    let arenas = arenas();
    let mut bench = Bench::new(&arenas);
    bench.source.rules.push(Rule::new(0x42, 0, REFUSED));
    for _ in 0..3 {
        bench.source.rules.push(Rule::new(0x41, 1, REFUSED));
    }
    let ran = bench.run();
    let Outcome::SourceStuck { failure, resume } = ran.outcome else { panic!("{:?}", ran.outcome) };
    assert!(matches!(failure, Failure::Command(CommandFailed { command: MigrationCommand::GetState, .. })));
    assert_eq!(resume, CallError::Status(StatusCode::OPERATION_DENIED.status()));

    // Two failures in a row are overcome.
    let mut bench = Bench::new(&arenas);
    bench.source.rules.push(Rule::new(0x42, 0, REFUSED));
    bench.source.rules.push(Rule::new(0x41, 1, REFUSED));
    bench.source.rules.push(Rule::new(0x41, 1, Fault::DoneButTimesOut));
    let ran = bench.run();
    bench.assert_rolled_back(&ran, "resumed at the third attempt");
}

#[test]
fn r8_a_reset_of_the_managing_controller_at_any_command_leaves_the_source_running() {
    let commands =
        [(0x06, 1, 0), (0x06, 0x20, 0), (0x45, 0, 0), (0x3D, 0, 0), (0x41, 0, 0), (0x41, 0, 1), (0x42, 0, 0)];
    for (opcode, select, skip) in commands {
        let arenas = arenas();
        let mut bench = Bench::new(&arenas);
        bench.write_every = 0;
        bench.source.rules.push(Rule::new(opcode, select, Fault::Lost).after(skip));
        let ran = bench.run();
        let name = std::format!("{opcode:02x}h/{select}");
        assert_eq!(bench.source.device.running, Running::Running, "{name}: a reset ends the suspension");
        assert!(
            matches!(ran.outcome, Outcome::RolledBack { .. } | Outcome::SourceStuck { .. }),
            "{name}: {:?}",
            ran.outcome
        );
        let queue_existed = (opcode, select) != (0x06, 1) && (opcode, select) != (0x06, 0x20);
        assert_eq!(ran.quarantined, queue_existed, "{name}: without proof the memory stays");
    }
}
