// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts of a migration by themselves.

use core::time::Duration;
use std::vec::Vec;

use super::super::*;
use super::bench::{Called, DESTINATION, MANAGER, TestPlatform, image};
use crate::admin::{CallError, SubmitError};
use crate::fake::{Device, FakePort};
use crate::testing::TestArena;
use crate::time::Instant;
use crate::wire::identify::{SecondaryController, SecondaryControllers};
use crate::wire::{ControllerId, TargetIsManager};

#[test]
fn steps_have_unique_names_that_parse() {
    let names: std::collections::BTreeSet<&str> = MigrationStep::ALL.iter().map(|step| step.name()).collect();
    assert_eq!(names.len(), MigrationStep::ALL.len());
    for step in MigrationStep::ALL {
        assert_eq!(step.name().parse(), Ok(*step));
        assert!(step.name().chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{step}");
    }
    assert_eq!("dance".parse::<MigrationStep>(), Err(UnknownStep));
    assert!(std::string::ToString::to_string(&UnknownStep).contains("baseline-copy"));
}

pub(super) struct Talk<'a> {
    half: DestinationHalf<'a>,
    pub(super) port: FakePort<'a>,
    pub(super) platform: TestPlatform,
    sequence: Sequence,
}

impl<'a> Talk<'a> {
    pub(super) fn new(arena: &'a TestArena, room: &'a mut [u8], quirks: Quirks) -> Self {
        let options = DestinationOptions {
            controller: DESTINATION,
            limits: None,
            quirks,
            timeouts: Timeouts::default(),
        };
        Self {
            half: DestinationHalf::new(options, room),
            port: FakePort::new(arena, Device::new(MANAGER)),
            platform: TestPlatform::idle(),
            sequence: 0,
        }
    }

    pub(super) fn ask(&mut self, request: Request) -> Reply {
        self.sequence += 1;
        self.half.deliver(RequestMessage { sequence: self.sequence, request });
        for _ in 0..50 {
            let _ = self.half.poll(Instant::ZERO, &mut self.port, &mut self.platform);
            if let Some(answer) = self.half.take_reply() {
                assert_eq!(answer.sequence, self.sequence);
                return answer.reply;
            }
        }
        panic!("no answer");
    }

    pub(super) fn send_image(&mut self, bytes: &[u8]) -> Reply {
        let begin = Request::BeginState { bytes: bytes.len() as u64, version: 1, vendor: 0 };
        assert_eq!(self.ask(begin), Reply::Done);
        for (at, chunk) in bytes.chunks(PIECE_BYTES).enumerate() {
            assert_eq!(self.ask(Request::State(piece(at * PIECE_BYTES, chunk))), Reply::Done);
        }
        self.ask(Request::SetState)
    }
}

fn piece(offset: usize, bytes: &[u8]) -> Piece {
    let mut piece = Piece { offset: offset as u64, len: bytes.len() as u16, bytes: [0; PIECE_BYTES] };
    piece.bytes[..bytes.len()].copy_from_slice(bytes);
    piece
}

const HELLO: Request = Request::Hello { version: PROTOCOL_VERSION };

fn refused(reply: Reply) -> DestinationFailure {
    match reply {
        Reply::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn r19_what_the_other_machine_sends_is_checked() {
    let good = image(0);
    let broken = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let rows: [(&str, Vec<u8>); 5] = [
        ("no image", std::vec![0; 4]),
        ("unknown structure version", broken(|bytes| bytes[0] = 1)),
        ("more NVMe state than there is", broken(|bytes| bytes[16] = 200)),
        ("a size beyond all memory", broken(|bytes| bytes[16..32].fill(0xFF))),
        (
            "vendor part without a format",
            broken(|bytes| {
                bytes[32] = 1;
                bytes.extend([0; 4]);
            }),
        ),
    ];
    for (name, bytes) in rows {
        let arena = TestArena::new();
        let mut room = std::vec![0; 4096];
        let mut talk = Talk::new(&arena, &mut room, Quirks::empty());
        assert!(matches!(talk.ask(HELLO), Reply::Formats(_)));
        assert_eq!(talk.ask(Request::Suspend), Reply::Done);
        let failure = refused(talk.send_image(&bytes));
        assert!(matches!(failure, DestinationFailure::State(_)), "{name}: {failure:?}");
        assert_eq!(talk.port.count(0x41, 2), 0, "{name}: nothing of it reaches the controller");
        assert_eq!(refused(talk.ask(Request::Resume)), DestinationFailure::OutOfTurn, "{name}");
    }
}

#[test]
fn r10_the_destination_resumes_only_suspended_and_with_state() {
    let arena = TestArena::new();
    let mut room = std::vec![0; 4096];
    let mut talk = Talk::new(&arena, &mut room, Quirks::empty());
    let out_of_turn = DestinationFailure::OutOfTurn;
    assert_eq!(refused(talk.ask(Request::Suspend)), out_of_turn, "not greeted");
    assert_eq!(refused(talk.ask(Request::Hello { version: 99 })), DestinationFailure::ProtocolVersion(99));
    assert!(matches!(talk.ask(HELLO), Reply::Formats(_)));
    assert_eq!(refused(talk.ask(Request::Resume)), out_of_turn, "no state");
    assert_eq!(refused(talk.send_image(&image(0))), out_of_turn, "not suspended");
    assert_eq!(talk.ask(Request::Suspend), Reply::Done);
    let long = Request::BeginState { bytes: 5000, version: 1, vendor: 0 };
    assert_eq!(refused(talk.ask(long)), DestinationFailure::StateTooLong { bytes: 5000, limit: 4096 });
    let begin = Request::BeginState { bytes: 56, version: 1, vendor: 0 };
    assert_eq!(talk.ask(begin), Reply::Done);
    for (name, offset, bytes) in [("gap", 4, 4), ("empty", 0, 0), ("too long", 0, 60)] {
        let failure = refused(talk.ask(Request::State(piece(offset, &std::vec![0; bytes]))));
        assert_eq!(failure, DestinationFailure::Piece { offset: offset as u64, expected: 0 }, "{name}");
    }
    assert_eq!(refused(talk.ask(Request::SetState)), out_of_turn, "incomplete");
    assert_eq!(talk.send_image(&image(0)), Reply::Done);
    assert_eq!(talk.ask(Request::Resume), Reply::Resumed { platform: true });
    assert!(talk.half.is_resumed());
    let again = talk.ask(Request::Resume);
    assert_eq!(again, Reply::Resumed { platform: true }, "a request that came twice gets the same answer");
    assert_eq!(talk.port.count(0x41, 1), 1, "and sends no second command");
    assert_eq!(refused(talk.ask(Request::Forget)), out_of_turn, "nobody takes a running guest away");
}

#[test]
fn a_model_that_takes_state_in_one_command_is_not_given_parts() {
    let arena = TestArena::new();
    let mut room = std::vec![0; 4096];
    let mut talk = Talk::new(&arena, &mut room, Quirks::SET_STATE_IN_ONE);
    talk.port.max_transfer = 4096;
    assert!(matches!(talk.ask(HELLO), Reply::Formats(_)));
    assert_eq!(talk.ask(Request::Suspend), Reply::Done);
    talk.port.max_transfer = 52;
    let failure = refused(talk.send_image(&image(0)));
    assert_eq!(failure, DestinationFailure::NotInOne { bytes: 56, limit: 52 });
}

#[test]
fn r15_host_memory_tracking_is_a_log_of_its_own() {
    let arena = TestArena::new();
    let mut port = FakePort::new(&arena, Device::new(MANAGER));
    let mut discovery = Discovery::new(Quirks::empty(), Duration::from_secs(1));
    let found = (0..9).find_map(|_| discovery.poll(&mut port, Instant::ZERO)).unwrap().unwrap();
    let manager = found.manager;
    assert!(manager.tracks_user_data() && !manager.tracks_host_memory());
    let tracked = manager.track(DESTINATION).unwrap();
    let request = manager.receive_tracked_memory(&arena, tracked, 64).unwrap();
    assert_eq!((request.command.opcode(), request.command.dwords()), (0x3E, [0, 2, 15, 0, 0, 0]));
    let start = manager.track_memory(&arena, tracked, &[0; 20]).unwrap();
    assert_eq!((start.command.opcode(), start.command.dwords()), (0x3D, [0x1_0001, 2, 0, 0, 0, 0]));
    assert_eq!(manager.stop_tracking_memory(tracked).command.dwords(), [1, 2, 0, 0, 0, 0]);
}

#[test]
fn r2_r3_a_virtual_function_is_resolved_by_the_list_of_its_primary() {
    let arena = TestArena::new();
    let mut port = FakePort::new(&arena, Device::new(MANAGER));
    let mut discovery = Discovery::new(Quirks::empty(), Duration::from_secs(1));
    let manager = (0..9).find_map(|_| discovery.poll(&mut port, Instant::ZERO)).unwrap().unwrap().manager;
    let secondary = |controller: u16, virtual_function: u16| SecondaryController {
        controller: ControllerId::new(controller),
        primary: ControllerId::new(MANAGER),
        online: true,
        virtual_function,
        queues: 2,
        interrupts: 1,
    };
    let mut page = [0; 4096];
    let controllers = [secondary(MANAGER, 1), secondary(12, 0), secondary(21, 3)];
    assert_eq!(SecondaryControllers::build(&mut page, ControllerId::new(0), controllers), 3);
    let list = SecondaryControllers::parse(&page, ControllerId::new(0)).unwrap();
    let rows = [
        ("a virtual function", 3, Some(ControllerId::new(21))),
        ("one that is not there", 2, None),
        ("zero is no virtual function", 0, None),
        ("the manager itself", 1, Some(ControllerId::new(MANAGER))),
    ];
    for (name, number, expected) in rows {
        assert_eq!(virtual_function(&list, number), expected, "{name}");
    }
    assert!(manager.track(ControllerId::new(21)).is_ok());
    assert_eq!(manager.track(ControllerId::new(MANAGER)), Err(TargetIsManager(ControllerId::new(MANAGER))));
    let request = manager.secondary_controllers(&arena, ControllerId::new(5)).unwrap();
    assert_eq!(request.command.dwords()[0], 5 << 16 | 0x15);
}

#[test]
fn r10_a_destination_that_could_not_forget_is_asked_again_and_resumes_no_more() {
    let arena = TestArena::new();
    let mut room = std::vec![0; 4096];
    let mut talk = Talk::new(&arena, &mut room, Quirks::empty());
    assert!(matches!(talk.ask(HELLO), Reply::Formats(_)));
    assert_eq!(talk.ask(Request::Suspend), Reply::Done);
    assert_eq!(talk.send_image(&image(0)), Reply::Done);
    talk.platform.breaks = Some(Called::Forgotten);
    for attempt in 1..=2 {
        assert_eq!(refused(talk.ask(Request::Forget)), DestinationFailure::Platform, "attempt {attempt}");
        assert_eq!(refused(talk.ask(Request::Resume)), DestinationFailure::OutOfTurn, "attempt {attempt}");
    }
    talk.platform.breaks = None;
    assert_eq!(talk.ask(Request::Forget), Reply::Done);
    assert_eq!(talk.ask(Request::Forget), Reply::Done, "done already");
    let forgotten = talk.platform.calls.iter().filter(|call| **call == Called::Forgotten).count();
    assert_eq!((forgotten, talk.port.count(0x41, 1)), (3, 0), "asked until it was done, never resumed");
}

#[test]
fn r10_a_destination_whose_manager_has_failed_gets_no_access_to_the_guest() {
    let arena = TestArena::new();
    let mut room = std::vec![0; 4096];
    let mut talk = Talk::new(&arena, &mut room, Quirks::empty());
    assert!(matches!(talk.ask(HELLO), Reply::Formats(_)));
    assert_eq!(talk.ask(Request::Suspend), Reply::Done);
    assert_eq!(talk.send_image(&image(0)), Reply::Done);
    talk.port.dead = true;
    let error = CallError::NotSubmitted(SubmitError::NotReady);
    let failed = CommandFailed { command: MigrationCommand::Resume, error };
    assert_eq!(refused(talk.ask(Request::Resume)), DestinationFailure::Command(failed));
    assert!(!talk.platform.calls.contains(&Called::BeforeResume), "{:?}", talk.platform.calls);
}
