// SPDX-License-Identifier: MIT OR Apache-2.0
//! One command at a time: what comes back when it is not sent, not wanted, or asked after too early.

use super::*;
use crate::dma::{Direction, DmaArena};
use crate::fake::{self, FakePort, Rule};
use crate::register::Offset;
use crate::wire::admin::KeepAlive;
use crate::wire::{CommandId, QueueId, Status};

const NOW: Instant = Instant::ZERO;
const SECOND: Duration = Duration::from_secs(1);

fn identify(arena: &TestArena, len: usize) -> AdminRequest {
    let command = Identify::new(IdentifyStructure::CONTROLLER);
    AdminRequest::receiving(&command, arena, len, SECOND).unwrap()
}

#[test]
fn a_call_carries_one_command_at_a_time() {
    let arena = TestArena::new();
    let mut port = FakePort::new(&arena, fake::Device::new(4));
    port.rules.push(Rule { opcode: 0x18, select: None, skip: 0, fault: fake::Fault::Busy(1) });
    let mut call = Call::new();
    assert!(call.is_idle() && call.poll(&mut port, NOW).is_none(), "nothing to do");
    call.start(AdminRequest::without_data(&KeepAlive, SECOND)).unwrap();
    for (name, sent) in [("waiting for room", false), ("sent", true)] {
        let refused = call.start(identify(&arena, 4096)).unwrap_err();
        assert_eq!(refused.command.opcode(), Identify::OPCODE, "{name}: the new one comes back");
        let AdminData::Buffer { region, len } = refused.data else { panic!("{name}: with its buffer") };
        assert_eq!(len, 4096, "{name}");
        crate::dma::give_back(&arena, region);
        assert_eq!(call.is_sent(), sent, "{name}");
        if !sent {
            assert!(call.poll(&mut port, NOW).is_none(), "the port is busy");
            port.rules.push(Rule { opcode: 0x18, select: None, skip: 0, fault: fake::Fault::Late(1) });
            assert!(call.poll(&mut port, NOW).is_none(), "sent, not completed");
        }
    }
    assert_eq!(port.sent.len(), 1);
    assert_eq!(arena.live_total(), 0);
}

#[test]
fn a_call_that_is_given_up_or_not_sent_leaves_no_memory_behind() {
    let busy = Rule { opcode: 0x06, select: None, skip: 0, fault: fake::Fault::Busy(5) };
    let arena = TestArena::new();
    let mut port = FakePort::new(&arena, fake::Device::new(4));
    let mut call = Call::new();
    call.abandon(&mut port);
    call.start(identify(&arena, 4096)).unwrap();
    port.rules.push(busy);
    assert!(call.poll(&mut port, NOW).is_none());
    assert_eq!(arena.live(Pool::Data), 1);
    call.abandon(&mut port);
    assert!(call.is_idle());
    assert_eq!((arena.live(Pool::Data), port.sent.len()), (0, 0), "it waited, and is never sent");

    // Longer than the port transfers.
    call.start(identify(&arena, 3 * 4096)).unwrap();
    let ended = call.poll(&mut port, NOW).unwrap();
    assert!(call.is_idle());
    let error = CallError::NotSubmitted(SubmitError::TooLong { bytes: 12_288, limit: 8192 });
    assert!(error.is_refusal(), "the controller never saw it");
    assert_eq!(ended.region.as_ref().map(|region| region.len()), Some(12_288));
    assert_eq!(ended.finish(&arena).unwrap_err(), error);
    assert_eq!(arena.live(Pool::Data), 0);
}

#[test]
fn what_a_call_shows_of_the_effect() {
    let status = |code: StatusCode| CallError::Status(code.status());
    let rows = [
        ("refused", status(StatusCode::INVALID_FIELD), true),
        ("failed unclearly", status(StatusCode::INTERNAL_ERROR), false),
        ("busy", CallError::NotSubmitted(SubmitError::Busy), true),
        ("not ready", CallError::NotSubmitted(SubmitError::NotReady), true),
        ("timed out", CallError::TimedOut, false),
        ("lost", CallError::Lost, false),
        ("no room for the answer", CallError::ShortBuffer { wanted: 2, held: 1 }, false),
    ];
    for (name, error, refusal) in rows {
        assert_eq!(error.is_refusal(), refusal, "{name}");
    }
    assert!(status(StatusCode::INVALID_CDQ).is_status(StatusCode::INVALID_CDQ));
    assert!(!CallError::TimedOut.is_status(StatusCode::INVALID_CDQ));
}

#[test]
fn an_initialization_has_no_result_before_its_end_and_does_nothing_after_it() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    device.on_command(controller(&arena, identity(), 0, None));
    let mut memory = slots(8);
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut memory);
    let mut machine = Initialize::new(&InitializeOptions::default()).finish().expect_err("nothing was asked");
    let (mut page, mut now) = ([0; PAGE_BYTES], NOW);
    loop {
        let step = machine.poll(ready.admin(), &mut page, now);
        ready.poll(now).unwrap();
        match step {
            Step::Done => break,
            Step::Wait(until) => now = until,
            Step::Again => {}
        }
        machine = machine.finish().expect_err("still asking");
    }
    let _ = device.take_commands(0);
    assert_eq!(machine.poll(ready.admin(), &mut page, now), Step::Done);
    ready.poll(now).unwrap();
    assert_eq!(device.take_commands(0).len(), 0, "nothing is sent any more");
    assert_eq!(machine.finish().unwrap().unwrap().controller, ControllerId::new(7));
}

#[test]
fn lives_are_of_different_controllers() {
    let (one, other) = (Life::default(), Life::default());
    assert!(one.generation().is_of_same_controller(one.generation()));
    assert!(!one.generation().is_of_same_controller(other.generation()));
    let before = other.generation();
    let mut other = other;
    other.renew();
    assert!(other.generation().is_another_life(before) && other.generation().is_of_same_controller(before));
}

#[test]
fn a_completion_doorbell_that_cannot_be_written_fails_the_controller() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let mut memory = slots(8);
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut memory);
    device.on_command(|_, _| SUCCESS);
    let handle = ready.admin().submit(AdminRequest::without_data(&KeepAlive, SECOND), NOW).unwrap();
    device.state.borrow_mut().broken = Some(0x1004);
    let fault = Fault::RegisterAccess(Offset::new(0x1004));
    assert_eq!(ready.poll(NOW), Err(fault));
    let completion = ready.admin().take(handle).unwrap();
    assert!(
        matches!(completion.outcome, AdminOutcome::Completed(entry) if entry.status() == Status::SUCCESS),
        "what it had completed before counts"
    );
    let (error, _) = ready.admin().submit(AdminRequest::without_data(&KeepAlive, SECOND), NOW).unwrap_err();
    assert_eq!(error, SubmitError::NotReady);
}

#[test]
fn data_of_a_completed_command_that_nobody_wants_goes_back() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let mut memory = slots(8);
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut memory);
    device.on_command(|_, _| None);
    for (name, before) in [("completed before", true), ("completed after", false)] {
        let handle = ready.admin().submit(identify(&arena, 4096), NOW).unwrap();
        let complete = |id: CommandId| device.complete(QueueId::ADMIN.get(), id, Status::SUCCESS, 0, 0);
        if before {
            complete(handle.command_id());
            ready.poll(NOW).unwrap();
        }
        assert_eq!(arena.live(Pool::Data), 1, "{name}");
        ready.admin().abandon(handle);
        assert_eq!(arena.live(Pool::Data), usize::from(!before), "{name}: only the controller keeps it");
        if !before {
            complete(handle.command_id());
            ready.poll(NOW).unwrap();
        }
        assert_eq!((arena.live(Pool::Data), ready.admin().in_use()), (0, 0), "{name}");
        assert!(ready.admin().take(handle).is_none(), "{name}: nobody asks for it");
    }
    // Data that the device reads are published before it is told of them.
    let region = arena.allocate(Pool::Data, 4096, 4096, Direction::ToDevice).unwrap();
    region.write(0, &[0x5A; 16]).unwrap();
    let address = region.bus();
    let mut request = identify(&arena, 4096);
    if let AdminData::Buffer { region: fresh, .. } =
        core::mem::replace(&mut request.data, AdminData::Buffer { region, len: 16 })
    {
        crate::dma::give_back(&arena, fresh);
    }
    let handle = ready.admin().submit(request, NOW).unwrap();
    let mut seen = [0; 16];
    arena.device_read(address, &mut seen);
    assert_eq!(seen, [0x5A; 16]);
    device.complete(0, handle.command_id(), Status::SUCCESS, 0, 0);
    ready.poll(NOW).unwrap();
    crate::dma::give_back(&arena, ready.admin().take(handle).unwrap().region.unwrap());
}
