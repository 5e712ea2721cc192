// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resets of every controller in every step of a migration: each ends with exactly one side running.

use nvme_controller::fault::{FaultKind, FaultRule};
use nvme_core::admin::{CallError, SubmitError};
use nvme_core::migration::{Failure, MigrationStep, Outcome, StepKind};
use nvme_tests::world::{Ended, Event, Reset, Seeded, Verdict, World, WorldConfig};

const SEEDS: u64 = 4;

fn run(name: &str, seed: u64, config: WorldConfig) -> Ended {
    match World::new(config).run(&mut Seeded::new(seed)) {
        Ok(ended) => ended,
        Err(violation) => panic!("{name}, seed {seed}: {violation}"),
    }
}

/// The world in which `event` happens in `step`; a step of the way back is reached by a cancellation during the rounds.
fn world(step: MigrationStep, event: Event) -> WorldConfig {
    let mut events = vec![(step, event)];
    if step.kind() == StepKind::RollBack {
        events.push((MigrationStep::GetState, Event::Cancel));
    }
    WorldConfig { events, ..WorldConfig::default() }
}

const RESETS: [Reset; 4] = [Reset::ByDriver, Reset::Disabled, Reset::Function, Reset::Subsystem];

/// From here to there a migration cannot do without the source's managing controller.
fn needs_the_source(step: MigrationStep) -> bool {
    (MigrationStep::StartLog..=MigrationStep::ResumeDestination).contains(&step)
}

#[test]
fn r8_a_reset_of_the_source_manager_in_any_step_ends_with_one_side_running() {
    for &step in MigrationStep::ALL {
        for how in RESETS {
            for seed in 0..SEEDS {
                let name = format!("{how:?} in {step}");
                let ended = run(&name, seed, world(step, Event::SourceManager(how)));
                if needs_the_source(step) || step.kind() == StepKind::RollBack {
                    assert_eq!(ended.verdict, Verdict::RolledBackSourceWhole, "{name}, seed {seed}");
                }
                if step.kind() == StepKind::Final {
                    assert_eq!(ended.verdict, Verdict::Verified, "{name}, seed {seed}");
                }
                if how != Reset::Subsystem {
                    // The guest's controllers were not touched, so the guest notices nothing.
                    let guest = ended.guest;
                    assert_eq!((guest.lost, guest.refused, guest.resets), (0, 0, 0), "{name}, seed {seed}");
                }
            }
        }
    }
}

#[test]
fn r8_r10_a_reset_of_the_destination_manager_in_any_step_ends_with_one_side_running() {
    for &step in MigrationStep::ALL {
        for how in RESETS {
            for seed in 0..SEEDS {
                let name = format!("{how:?} in {step}");
                let ended = run(&name, seed, world(step, Event::DestinationManager(how)));
                if step.kind() == StepKind::RollBack {
                    assert_eq!(ended.verdict, Verdict::RolledBackSourceWhole, "{name}, seed {seed}");
                }
                if step.kind() == StepKind::Final {
                    assert_eq!(ended.verdict, Verdict::Verified, "{name}, seed {seed}");
                }
                if step < MigrationStep::SetState {
                    let guest = ended.guest;
                    assert_eq!((guest.lost, guest.refused, guest.resets), (0, 0, 0), "{name}, seed {seed}");
                }
            }
        }
    }
}

/// The destination may reach the guest's memory from the moment before its resume is sent: a reset of its managing
/// controller in that moment lets it answer commands, and what it has answered must not be forgotten.
#[test]
fn r10_a_reset_of_the_destination_manager_before_its_resume_is_sent_loses_no_write() {
    let mut unsent = 0;
    for event_delay in 0..8 {
        for seed in 0..48 {
            let event = Event::DestinationManager(Reset::ByDriver);
            let config = WorldConfig { event_delay, ..world(MigrationStep::ResumeDestination, event) };
            let ended = run(&format!("{event_delay} polls later"), seed, config);
            let unknown = CallError::NotSubmitted(SubmitError::NotReady);
            if let Outcome::Indeterminate { failure, resume_asked: true } = ended.outcome
                && failure == Failure::ResumeUnknown(unknown)
            {
                unsent += 1;
                assert_eq!(ended.verdict, Verdict::Verified, "{event_delay} polls later, seed {seed}");
            }
        }
    }
    assert!(unsent > 0, "the moment was met");
}

/// Between the last look at the source and the switch only the fence keeps a source that is released from running.
#[test]
fn r10_a_reset_in_the_middle_of_the_switch_never_lets_both_sides_run() {
    let resume = MigrationStep::ResumeDestination;
    let mut without_a_fence = 0;
    for event_delay in 0..40 {
        for how in [Reset::Function, Reset::ByDriver] {
            for manager in [Event::SourceManager, Event::DestinationManager] {
                for seed in 0..SEEDS {
                    let config = WorldConfig { event_delay, ..world(resume, manager(how)) };
                    let name = format!("{:?} {event_delay} polls after {resume}", manager(how));
                    let _ = run(&name, seed, config.clone());
                    let open = World::new(WorldConfig { fences: false, ..config });
                    let ended = open.run(&mut Seeded::new(seed));
                    without_a_fence +=
                        u32::from(ended.is_err_and(|found| found.0.contains("both sides run")));
                }
            }
        }
    }
    assert!(without_a_fence > 0, "this test finds what the fence is for");
}

#[test]
fn r8_a_guest_may_reset_its_controller_in_any_step() {
    for &step in MigrationStep::ALL {
        for event in [Event::Guest, Event::SourceFunction, Event::DestinationFunction] {
            for seed in 0..SEEDS {
                let name = format!("{event:?} in {step}");
                let ended = run(&name, seed, world(step, event));
                // Some steps begin and end in one poll.
                if event == Event::Guest && ended.steps.contains(&step) {
                    assert!(ended.guest.resets >= 1, "{name}, seed {seed}");
                    if step < MigrationStep::SuspendSource {
                        // The queue and its log belong to the managing controller and outlive the reset.
                        assert_eq!(
                            ended.verdict,
                            Verdict::Verified,
                            "{name}, seed {seed}: {:?}",
                            ended.outcome
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn r8_a_cancel_in_any_step_under_faults_is_answered() {
    let kinds = [
        FaultKind::Drop,
        FaultKind::Delay,
        FaultKind::WrongCommandId,
        FaultKind::WrongPhase,
        FaultKind::Status,
        FaultKind::Fatal,
        FaultKind::Reset,
        FaultKind::AllOnes,
        FaultKind::CdqFullEarly,
        FaultKind::CdqWrongPhase,
    ];
    for &step in MigrationStep::ALL.iter().filter(|step| step.kind() == StepKind::Reversible) {
        for kind in kinds {
            for seed in 0..SEEDS {
                let mut config = world(step, Event::Cancel);
                let nth = 1 + seed as u32 * 3;
                config.rules[(seed % 2) as usize].push(FaultRule::new(kind.action(seed)).seed(seed).nth(nth));
                let name = format!("cancel in {step}, {kind}");
                let ended = run(&name, seed, config);
                assert_eq!(ended.verdict, Verdict::RolledBackSourceWhole, "{name}, seed {seed}");
            }
        }
    }
}
