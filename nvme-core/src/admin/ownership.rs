// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose completion is whose: handles of other controllers and of earlier commands, queues that were swapped, and
//! event requests that leave room for commands.

use core::time::Duration;

use super::*;
use crate::controller::{EnableOptions, Link};
use crate::dma::{Direction, DmaArena, Pool};
use crate::testing::TestArena;
use crate::testing::device::{Device, SUCCESS};
use crate::testing::life::{ready, run, slots};
use crate::time::Instant;
use crate::wire::admin::{Identify, IdentifyStructure};
use crate::wire::{Command, Status, StatusCode};

const NOW: Instant = Instant::ZERO;

fn request(arena: &TestArena) -> AdminRequest {
    let region = arena.allocate(Pool::Data, 4096, 4096, Direction::FromDevice).unwrap();
    AdminRequest {
        command: Identify::new(IdentifyStructure::CONTROLLER).encode(),
        data: AdminData::Buffer { region, len: 4096 },
        timeout: Duration::from_secs(1),
    }
}

fn plain() -> AdminRequest {
    AdminRequest::without_data(&Identify::new(IdentifyStructure::CONTROLLER), Duration::from_secs(1))
}

#[test]
fn swapped_queues_give_no_memory_of_a_live_controller_back() {
    let arenas = [TestArena::new(), TestArena::new()];
    let links = [Link::new(), Link::new()];
    let devices = [Device::new(&arenas[0]), Device::new(&arenas[1])];
    let (mut first, mut second) = (slots(8), slots(8));
    let options = EnableOptions::default();
    let mut one = ready(&devices[0], &arenas[0], &links[0], &options, &mut first);
    let mut two = ready(&devices[1], &arenas[1], &links[1], &options, &mut second);
    // Of the second controller: a command nobody wants any more, one outstanding, one completed and not taken.
    devices[1].on_command(|_, _| None);
    let unwanted = two.admin().submit(request(&arenas[1]), NOW).unwrap();
    let outstanding = two.admin().submit(request(&arenas[1]), NOW).unwrap();
    let completed = two.admin().submit(request(&arenas[1]), NOW).unwrap();
    two.admin().abandon(unwanted);
    devices[1].complete(0, completed.command_id(), Status::SUCCESS, 0, 0);
    two.poll(NOW).unwrap();

    core::mem::swap(one.admin(), two.admin());
    let mut disabling = one.disable();
    run(&mut NOW.clone(), |now| disabling.poll(now)).unwrap();
    let mut disabled = disabling.finish().unwrap();
    assert_eq!(arenas[1].live(Pool::Data), 3, "the second controller still has the buffers");
    assert!(
        disabled.take_unfinished().is_none(),
        "a completion of the second controller is not up for taking"
    );

    // The queue still works for who has it.
    let queue = disabled.admin().unwrap();
    assert!(queue.take(completed).is_some_and(|done| done.region.is_some()));
    assert!(queue.take(outstanding).is_none());
    devices[1].complete(0, outstanding.command_id(), Status::SUCCESS, 0, 0);
    queue.poll(NOW).unwrap();
    assert!(queue.take(outstanding).is_some());
    disabled.retire();
    assert_eq!(arenas[1].live(Pool::Queues), 3, "retired with its slots, but its memory stays");
    assert_eq!(arenas[1].live(Pool::Data), 1 + 2, "regions taken are the caller's");
}

#[test]
fn a_handle_names_one_command_of_one_controller() {
    let arenas = [TestArena::new(), TestArena::new()];
    let links = [Link::new(), Link::new()];
    let devices = [Device::new(&arenas[0]), Device::new(&arenas[1])];
    let (mut first, mut second) = (slots(1), slots(1));
    let options = EnableOptions { events: 0, ..EnableOptions::default() };
    let mut one = ready(&devices[0], &arenas[0], &links[0], &options, &mut first);
    let mut two = ready(&devices[1], &arenas[1], &links[1], &options, &mut second);
    for device in &devices {
        device.on_command(|_, _| SUCCESS);
    }
    let theirs = two.admin().submit(plain(), NOW).unwrap();
    let ours = one.admin().submit(plain(), NOW).unwrap();
    one.poll(NOW).unwrap();
    two.poll(NOW).unwrap();
    assert_eq!(theirs.command_id(), ours.command_id());
    assert!(one.admin().take(theirs).is_none(), "another controller's");
    one.admin().abandon(theirs);
    assert!(one.admin().take(ours).is_some());

    // One slot, so that identifiers come round again soonest.
    let mut rounds = 0;
    let again = loop {
        let handle = one.admin().submit(plain(), NOW).unwrap();
        one.poll(NOW).unwrap();
        if handle.command_id() == ours.command_id() {
            break handle;
        }
        let _ = one.admin().take(handle).unwrap();
        rounds += 1;
        assert!(rounds < 70_000, "identifiers repeat");
    };
    assert!(one.admin().take(ours).is_none(), "a command of long ago had the same identifier");
    one.admin().abandon(ours);
    assert!(one.admin().take(again).is_some());
}

#[test]
fn event_requests_leave_room_for_a_command() {
    for (entries, limit, kept, at_first) in
        [(2, 4, 0, 0), (3, 4, 4, 1), (4, 4, 4, 2), (5, 3, 3, 3), (32, 4, 4, 4)]
    {
        let (arena, link) = (TestArena::new(), Link::new());
        let device = Device::new(&arena);
        let mut memory = slots(8);
        let options = EnableOptions { submission_entries: entries, ..EnableOptions::default() };
        let mut ready = ready(&device, &arena, &link, &options, &mut memory);
        assert_eq!(ready.admin().request_events(limit), kept, "{entries} entries");
        assert_eq!(device.state.borrow().requests.len(), at_first, "{entries} entries: at first");
        device.on_command(|_, entry| if entry.opcode() == Identify::OPCODE { SUCCESS } else { None });
        for round in 0..8 {
            let handle = ready.admin().submit(plain(), NOW).map_err(|(error, _)| error);
            let handle = handle.unwrap_or_else(|error| panic!("{entries} entries, round {round}: {error:?}"));
            ready.poll(NOW).unwrap();
            assert!(ready.admin().take(handle).is_some(), "{entries} entries, round {round}");
        }
        let requests = device.state.borrow().requests.len();
        assert_eq!(requests, usize::from(kept), "{entries} entries: all of them as commands complete");
    }
}

#[test]
fn refused_event_requests() {
    let rows = [
        ("none refused", StatusCode::INTERNAL_ERROR, 0, 4, 4),
        ("a limit of two", StatusCode::INTERNAL_ERROR, 0, 2, 2),
        ("an error once", StatusCode::INTERNAL_ERROR, 1, 4, 4),
        ("several errors", StatusCode::ABORT_REQUESTED, 6, 4, 4),
        ("errors for ever", StatusCode::INTERNAL_ERROR, u32::MAX, 4, 0),
    ];
    for (name, code, mut refusals, limit, kept) in rows {
        let (arena, link) = (TestArena::new(), Link::new());
        let device = Device::new(&arena);
        device.state.borrow_mut().request_limit = limit;
        device.on_command(move |_, _| {
            let refused = refusals > 0;
            refusals = refusals.saturating_sub(1);
            refused.then_some((code.status(), 0, 0))
        });
        let mut memory = slots(8);
        let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut memory);
        ready.admin().request_events(4);
        for _ in 0..16 {
            ready.poll(NOW).unwrap();
        }
        let found = (ready.admin().event_requests(), ready.admin().in_use());
        assert_eq!(found, (kept, usize::from(kept)), "{name}");
        assert_eq!(device.state.borrow().requests.len(), usize::from(kept), "{name}");
        assert_eq!(ready.admin().take_event(EventFilter::Any), None, "{name}: a refusal is no event");
    }
}
