// SPDX-License-Identifier: MIT OR Apache-2.0
//! Life cycle against a device that behaves, and one that does not.
#![allow(unsafe_code, reason = "attaching takes the test's word that the fake device is a device")]

use std::vec::Vec;

use super::*;
use crate::admin::{
    AdminData, AdminOutcome, AdminPort, AdminRequest, AdminSlot, Call, CallError, CallResult, EventFilter,
    SubmitError,
};
use crate::cdq::{CdqMemory, MemoryLimits, Quarantined, QueueLayout};
use crate::dma::checking::Violation;
use crate::dma::{Direction, DmaArena, Pool};
use crate::testing::TestArena;
use crate::testing::device::{Device, Manners, SUCCESS};
use crate::testing::life::{attach_to, disabled, ready, run, slots};
use crate::time::Instant;
use crate::wire::admin::{Identify, IdentifyStructure, KeepAlive};
use crate::wire::register::{ShutdownStatus, Version};
use crate::wire::{
    AsynchronousEvent, CdqEvent, CdqId, Command, CommandId, CompletionQueueEntry, EventType, QueueId, Status,
    StatusCode,
};

fn keep_alive(timeout_ms: u64) -> AdminRequest {
    AdminRequest {
        command: KeepAlive.encode(),
        data: AdminData::None,
        timeout: Duration::from_millis(timeout_ms),
    }
}

fn identify(arena: &TestArena, bytes: usize) -> AdminRequest {
    let region = arena.allocate(Pool::Data, bytes, 4096, Direction::FromDevice).unwrap();
    AdminRequest {
        command: Identify::new(IdentifyStructure::CONTROLLER).encode(),
        data: AdminData::Buffer { region, len: bytes },
        timeout: Duration::from_secs(1),
    }
}

#[test]
fn bring_up_and_down() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let mut slots = slots(8);
    {
        let options = EnableOptions { submission_entries: 17, completion_entries: 33, ..Default::default() };
        let ready = ready(&device, &arena, &link, &options, &mut slots);
        assert_eq!(ready.health(), Health::Live);
        {
            let state = device.state.borrow();
            let cc = state.configuration;
            assert!(cc.enabled() && state.status.ready());
            assert_eq!(
                (cc.page_size(), cc.submission_entry_exponent(), cc.completion_entry_exponent()),
                (4096, 6, 4)
            );
            assert_eq!(
                (state.attributes.submission_entries(), state.attributes.completion_entries()),
                (17, 33)
            );
        }
        assert_eq!(arena.live(Pool::Queues), 3);
        let mut now = Instant::ZERO;
        let mut shutdown = ready.shutdown(Shutdown::Normal, Duration::ZERO, now);
        run(&mut now, |now| shutdown.poll(now)).unwrap();
        assert!(shutdown.is_complete());
        let mut disabling = shutdown.disable();
        run(&mut now, |now| disabling.poll(now)).unwrap();
        let mut disabled = disabling.finish().unwrap();
        assert!(!device.state.borrow().configuration.enabled());
        // Once more, with the slots of before.
        let slots = disabled.retire().unwrap();
        assert_eq!(arena.live_total(), 0);
        let mut enabling = disabled.enable(&EnableOptions::default(), slots).unwrap();
        run(&mut now, |now| enabling.poll(now)).unwrap();
        let mut disabling = enabling.finish().unwrap().disable();
        run(&mut now, |now| disabling.poll(now)).unwrap();
        let disabled = disabling.finish().unwrap();
        assert!(disabled.detach().is_some());
    }
    assert_eq!(arena.live_total(), 0);
    // The link is free again.
    let _ = attach_to(&device, &arena, &link);
}

#[test]
fn one_link_serves_one_controller() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let first = attach_to(&device, &arena, &link);
    // SAFETY: refused before it touches the device.
    let second = unsafe { attach::<_, TestArena>(&device, &arena, &link) };
    assert_eq!(second.err(), Some(AttachError::LinkInUse));
    drop(first);
}

#[test]
fn a_proof_about_another_controller_releases_nothing() {
    let arenas = [TestArena::new(), TestArena::new()];
    let links = [Link::new(), Link::new()];
    let devices = [Device::new(&arenas[0]), Device::new(&arenas[1])];
    let other = crate::testing::life::disabled(&devices[1], &arenas[1], &links[1]);
    let region = arenas[0].allocate(Pool::Data, 512, 4, Direction::FromDevice).unwrap();
    crate::dma::release(&arenas[0], region, &other.quiesced());
    assert_eq!(arenas[0].live(Pool::Data), 1, "leaked");
    let own = crate::testing::life::disabled(&devices[0], &arenas[0], &links[0]);
    for (name, arena, live) in [("the other's arena", &arenas[1], 1), ("its own arena", &arenas[0], 1)] {
        let memory =
            CdqMemory::allocate(&arenas[0], 64, QueueLayout::Contiguous, 4096, MemoryLimits::default());
        Quarantined::new(memory.unwrap()).release(arena, &own.quiesced());
        assert_eq!(arenas[0].live(Pool::ControllerData), live, "{name}");
    }
}

#[test]
fn what_is_found_at_attach() {
    let enabled = |ready| {
        move |device: &Device<'_>| {
            let mut state = device.state.borrow_mut();
            state.configuration = state.configuration.with_enabled(true);
            state.status = state.status.with_ready(ready);
        }
    };
    type Prepare<'p> = &'p dyn Fn(&Device<'_>);
    let rows: [(&str, Prepare<'_>, Result<(), Fault>); 11] = [
        ("disabled", &|_| {}, Ok(())),
        (
            "disabled, shutting down for ever",
            &|d| {
                let mut state = d.state.borrow_mut();
                state.status = state.status.with_shutdown(ShutdownStatus::InProgress);
            },
            Err(Fault::ShutdownNotInTime),
        ),
        ("in use", &enabled(true), Ok(())),
        (
            "on its way to ready",
            &|d| {
                enabled(false)(d);
                d.state.borrow_mut().manners.ready_after = 5;
            },
            Ok(()),
        ),
        (
            "enabled but never ready",
            &|d| {
                enabled(false)(d);
                d.state.borrow_mut().manners.ready_after = u32::MAX;
            },
            Ok(()),
        ),
        (
            "enabled and failed",
            &|d| {
                enabled(false)(d);
                d.state.borrow_mut().manners.fatal = true;
            },
            Ok(()),
        ),
        (
            "shutting down for ever",
            &|d| {
                enabled(true)(d);
                let mut state = d.state.borrow_mut();
                state.status = state.status.with_shutdown(ShutdownStatus::InProgress);
            },
            Err(Fault::ShutdownNotInTime),
        ),
        (
            "shut down",
            &|d| {
                enabled(true)(d);
                let mut state = d.state.borrow_mut();
                state.status = state.status.with_shutdown(ShutdownStatus::Complete);
            },
            Ok(()),
        ),
        (
            "stays ready",
            &|d| {
                enabled(true)(d);
                d.state.borrow_mut().manners.stays_ready = true;
            },
            Err(Fault::NotDisabledInTime),
        ),
        (
            "not ready, and cannot be disabled",
            &|d| {
                enabled(false)(d);
                let mut state = d.state.borrow_mut();
                (state.manners.ready_after, state.manners.stays_enabled) = (u32::MAX, true);
            },
            Err(Fault::NotDisabledInTime),
        ),
        (
            "configuration out of reach",
            &|d| d.state.borrow_mut().broken = Some(register::CC),
            Err(Fault::RegisterAccess(Offset::new(register::CC))),
        ),
    ];
    for (name, prepare, expected) in rows {
        let (arena, link) = (TestArena::new(), Link::new());
        let device = Device::new(&arena);
        prepare(&device);
        let mut machine = attach_to(&device, &arena, &link);
        let mut now = Instant::ZERO;
        assert_eq!(run(&mut now, |now| machine.poll(now)), expected, "{name}");
        assert!(now.since(Instant::ZERO) <= Duration::from_secs(61), "{name}: bounded wait");
        match machine.finish() {
            Ok(disabled) => {
                assert!(expected.is_ok(), "{name}");
                assert!(!device.state.borrow().configuration.enabled(), "{name}");
                let _ = disabled.quiesced();
            }
            Err(_) => assert!(expected.is_err(), "{name}"),
        }
    }
}

#[test]
fn a_device_that_is_gone_is_noticed_before_any_bit_is_looked_at() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    device.state.borrow_mut().removed = true;
    // SAFETY: a fake device without another driver.
    let found = unsafe { attach::<_, TestArena>(&device, &arena, &link) };
    assert_eq!(found.err(), Some(AttachError::Fault(Fault::Removed)));

    device.state.borrow_mut().removed = false;
    let mut slots = slots(8);
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut slots);
    device.on_command(|_, _| None);
    let handle = ready.admin().submit(identify(&arena, 4096), Instant::ZERO).unwrap();
    ready.poll(Instant::ZERO).unwrap();
    device.state.borrow_mut().removed = true;
    let later = Instant::ZERO.after(STATUS_INTERVAL);
    assert_eq!(ready.poll(later), Err(Fault::Removed));
    assert_eq!((ready.health(), link.health()), (Health::Removed, Health::Removed));
    let lost = ready.admin().take(handle).unwrap();
    assert_eq!((lost.outcome, lost.region), (AdminOutcome::Lost, None));
    assert!(ready.admin().take(handle).is_none(), "told once");
    assert!(matches!(ready.admin().submit(keep_alive(1), later), Err((SubmitError::NotReady, _))));
    let mut disabling = ready.disable();
    assert_eq!(disabling.poll(later), Err(Fault::Removed));
    assert_eq!(arena.live_total(), 4, "memory stays away from use while the device may reach it");
    // SAFETY: the fake device does nothing unless it is called.
    let disabled = unsafe { disabling.assume_disabled() };
    disabled.detach();
    assert_eq!(arena.live_total(), 0);
}

#[test]
fn enabling_that_fails() {
    let rows = [
        (
            "never ready",
            Manners { ready_after: u32::MAX, ..Default::default() },
            0,
            Err(Fault::NotReadyInTime),
            2_000,
        ),
        (
            "never ready, own time",
            Manners { ready_after: u32::MAX, ..Default::default() },
            3,
            Err(Fault::NotReadyInTime),
            1_500,
        ),
        ("fatal", Manners { fatal: true, ..Default::default() }, 0, Err(Fault::FatalStatus), 0),
        ("late but in time", Manners { ready_after: 1_000, ..Default::default() }, 0, Ok(()), 1_000),
        ("at once", Manners::default(), 0, Ok(()), 0),
    ];
    for (name, manners, timeouts, expected, waited_ms) in rows {
        let (arena, link) = (TestArena::new(), Link::new());
        let device = Device::new(&arena);
        {
            let mut state = device.state.borrow_mut();
            state.manners = manners;
            state.timeouts = timeouts;
            state.capabilities = state.capabilities.with_ready_with_media_supported(timeouts != 0);
        }
        let mut slots = slots(8);
        let mut machine =
            disabled(&device, &arena, &link).enable(&EnableOptions::default(), &mut slots).unwrap();
        let mut now = Instant::ZERO;
        assert_eq!(run(&mut now, |now| machine.poll(now)), expected, "{name}");
        assert_eq!(now.since(Instant::ZERO), Duration::from_millis(waited_ms), "{name}: time waited");
        let disabling = match machine.finish() {
            Ok(ready) => {
                assert!(expected.is_ok(), "{name}");
                ready.disable()
            }
            Err(machine) => {
                assert_eq!(link.health(), Health::Failed(expected.unwrap_err()), "{name}");
                machine.abort()
            }
        };
        device.state.borrow_mut().manners = Manners::default();
        let mut disabling = disabling;
        run(&mut now, |now| disabling.poll(now)).unwrap();
        assert_eq!(link.health(), Health::Live, "{name}: forgotten");
        disabling.finish().unwrap().detach();
        assert_eq!(arena.live_total(), 0, "{name}");
    }
}

#[test]
fn options_out_of_range() {
    let base = EnableOptions::default();
    let rows = [
        (
            "page below",
            EnableOptions { page_size: Some(2048), ..base },
            EnableError::PageSize { bytes: 2048, min: 4096, max: 16_384 },
        ),
        (
            "page above",
            EnableOptions { page_size: Some(32_768), ..base },
            EnableError::PageSize { bytes: 32_768, min: 4096, max: 16_384 },
        ),
        (
            "page odd",
            EnableOptions { page_size: Some(5000), ..base },
            EnableError::PageSize { bytes: 5000, min: 4096, max: 16_384 },
        ),
        ("one entry", EnableOptions { submission_entries: 1, ..base }, EnableError::Entries(1)),
        ("too many entries", EnableOptions { completion_entries: 4097, ..base }, EnableError::Entries(4097)),
        ("no slot left", EnableOptions { events: 8, ..base }, EnableError::Slots { lent: 8, needed: 9 }),
        ("no data", EnableOptions { max_transfer: 0, ..base }, EnableError::MaxTransfer),
        (
            "command sets",
            EnableOptions { command_sets: Some(CommandSetSelection::ALL_SUPPORTED), ..base },
            EnableError::CommandSets(CommandSetSelection::ALL_SUPPORTED),
        ),
    ];
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let mut memory = slots(8);
    let mut lent: &mut [AdminSlot] = &mut memory;
    let mut state = disabled(&device, &arena, &link);
    for (name, options, expected) in rows {
        let EnableRejected { error, disabled, slots } = state.enable(&options, lent).expect_err(name);
        assert_eq!(error, expected, "{name}");
        assert!(!std::format!("{error}").is_empty());
        (state, lent) = (disabled, slots);
    }
    for allowed in 0..3 {
        arena.fail_after(allowed);
        let EnableRejected { error, disabled, slots } = state.enable(&base, lent).expect_err("no memory");
        assert!(matches!(error, EnableError::Dma(_)), "{allowed} allocations");
        assert_eq!(arena.live_total(), 0, "{allowed} allocations");
        (state, lent) = (disabled, slots);
    }
}

use crate::wire::register::CommandSetSelection;

#[test]
fn commands_with_and_without_data() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let mut slots = slots(4);
    let options = EnableOptions { events: 0, submission_entries: 4, ..Default::default() };
    let mut ready = ready(&device, &arena, &link, &options, &mut slots);
    device.on_command(|_, entry| {
        let mut left = 5 * 4096;
        // A device that writes through the PRPs: first page, then list.
        arena.device_write(entry.prp1(), &[1; 4096]);
        left -= 4096;
        for n in 0..left / 4096 {
            let page = arena.device_read_u64(entry.prp2().plus(n * 8));
            arena.device_write(crate::wire::BusAddr::new(page), &[n as u8 + 2; 4096]);
        }
        SUCCESS
    });
    for round in 0..20 {
        let mut call = Call::new();
        call.start(identify(&arena, 5 * 4096)).unwrap();
        let admin = ready.admin();
        assert!(call.poll(admin, Instant::ZERO).is_none());
        assert_eq!(admin.poll(Instant::ZERO), Ok(1), "round {round}");
        let result = call.poll(admin, Instant::ZERO).unwrap();
        assert!(result.outcome.is_ok());
        let region = result.region.unwrap();
        for n in 0..5 {
            let mut bytes = [0; 4096];
            region.read(n * 4096, &mut bytes).unwrap();
            assert_eq!(bytes, [n as u8 + 1; 4096]);
        }
        crate::dma::release(&arena, region, &crate::testing::TestProof);
        assert_eq!(admin.in_use(), 0);
    }
    // Longer than allowed: the request comes back whole.
    ready.admin().limit_transfer(8192);
    assert_eq!(ready.admin().max_transfer(), 8192);
    let (error, request) = ready.admin().submit(identify(&arena, 12_288), Instant::ZERO).unwrap_err();
    assert_eq!(error, SubmitError::TooLong { bytes: 12_288, limit: 8192 });
    assert!(matches!(request.data, AdminData::Buffer { len: 12_288, .. }));
}

#[test]
fn a_full_queue_gives_the_request_back() {
    for (name, entries, count, room) in [("slots", 32, 3, 3), ("ring", 3, 8, 2)] {
        let (arena, link) = (TestArena::new(), Link::new());
        let device = Device::new(&arena);
        let mut slots = slots(count);
        let options = EnableOptions { events: 0, submission_entries: entries, ..Default::default() };
        let mut ready = ready(&device, &arena, &link, &options, &mut slots);
        device.on_command(|_, _| None);
        let handles: Vec<_> =
            (0..room).map(|_| ready.admin().submit(keep_alive(9), Instant::ZERO).unwrap()).collect();
        let refused = ready.admin().submit(identify(&arena, 4096), Instant::ZERO).unwrap_err();
        assert!(
            matches!(refused, (SubmitError::Busy, AdminRequest { data: AdminData::Buffer { .. }, .. })),
            "{name}"
        );
        device.complete(0, handles[0].command_id(), Status::SUCCESS, 7, 8);
        ready.poll(Instant::ZERO).unwrap();
        let done = ready.admin().take(handles[0]).unwrap();
        assert!(
            matches!(done.outcome, AdminOutcome::Completed(entry) if (entry.dw0(), entry.dw1()) == (7, 8))
        );
        assert!(ready.admin().take(handles[0]).is_none(), "{name}: once");
        ready.admin().submit(refused.1, Instant::ZERO).map_err(|(error, _)| error).expect(name);
    }
}

#[test]
fn hostile_completions_are_faults() {
    let entry = |queue, head, id| {
        CompletionQueueEntry::new(QueueId::new(queue), head, CommandId::new(id), Status::SUCCESS)
    };
    let rows = [
        ("command never sent", entry(0, 1, 3), Fault::UnknownCommand(CommandId::new(3))),
        (
            "command of an earlier generation",
            entry(0, 1, 0x1234),
            Fault::UnknownCommand(CommandId::new(0x1234)),
        ),
        ("FFFFh", entry(0, 1, 0xFFFF), Fault::UnknownCommand(CommandId::new(0xFFFF))),
        ("another queue", entry(5, 1, 0), Fault::WrongSubmissionQueue(QueueId::new(5))),
        ("head past the tail", entry(0, 2, 0), Fault::BadSubmissionHead(2)),
        ("head outside", entry(0, 40, 0), Fault::BadSubmissionHead(40)),
    ];
    for (name, entry, fault) in rows {
        let (arena, link) = (TestArena::new(), Link::new());
        let device = Device::new(&arena);
        let mut slots = slots(8);
        let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut slots);
        device.on_command(|_, _| None);
        let handle = ready.admin().submit(identify(&arena, 4096), Instant::ZERO).unwrap();
        assert_eq!(handle.command_id().get(), 0);
        device.post(0, entry);
        assert_eq!(ready.poll(Instant::ZERO), Err(fault), "{name}");
        assert_eq!(ready.health(), Health::Failed(fault), "{name}");
        // Nothing is believed any more.
        device.complete(0, handle.command_id(), Status::SUCCESS, 0, 0);
        assert_eq!(ready.poll(Instant::ZERO), Err(fault), "{name}");
        let mut disabling = ready.disable();
        run(&mut Instant::ZERO.clone(), |now| disabling.poll(now)).unwrap();
        let mut disabled = disabling.finish().unwrap();
        let (found, lost) = disabled.take_unfinished().expect(name);
        assert_eq!(
            (found, lost.outcome, lost.region.is_some()),
            (handle, AdminOutcome::Lost, true),
            "{name}"
        );
        assert!(disabled.take_unfinished().is_none(), "{name}: once");
        crate::dma::release(&arena, lost.region.unwrap(), &disabled.quiesced());
        disabled.detach();
        assert_eq!(arena.live_total(), 0, "{name}");
    }
}

#[test]
fn a_completion_that_comes_twice_is_a_fault() {
    for (name, taken) in [("before it was taken", false), ("after", true)] {
        let (arena, link) = (TestArena::new(), Link::new());
        let device = Device::new(&arena);
        let mut slots = slots(8);
        let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut slots);
        let handle = ready.admin().submit(keep_alive(1), Instant::ZERO).unwrap();
        device.complete(0, handle.command_id(), Status::SUCCESS, 0, 0);
        ready.poll(Instant::ZERO).unwrap();
        if taken {
            assert!(ready.admin().take(handle).is_some());
        }
        device.complete(0, handle.command_id(), Status::SUCCESS, 0, 0);
        assert_eq!(ready.poll(Instant::ZERO), Err(Fault::UnknownCommand(handle.command_id())), "{name}");
    }
}

#[test]
fn time_outs_keep_the_data_until_the_completion() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let mut slots = slots(8);
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut slots);
    device.on_command(|_, _| None);
    let late = ready.admin().submit(identify(&arena, 4096), Instant::ZERO).unwrap();
    let untaken = ready.admin().submit(identify(&arena, 4096), Instant::ZERO).unwrap();
    let given_up = ready.admin().submit(identify(&arena, 4096), Instant::ZERO).unwrap();
    assert!(ready.next_deadline() <= Instant::from_micros(1_000_000));
    ready.admin().abandon(given_up);
    assert!(ready.admin().take(given_up).is_none());
    let second = Instant::from_micros(1_000_000);
    ready.poll(second).unwrap();
    let told = ready.admin().take(late).unwrap();
    assert_eq!((told.outcome, told.region), (AdminOutcome::TimedOut, None));
    assert!(ready.admin().take(late).is_none(), "told once");
    ready.poll(second).unwrap();
    assert!(ready.admin().take(late).is_none(), "told once");
    assert_eq!((arena.live(Pool::Data), ready.admin().in_use()), (3, 3));
    for handle in [late, untaken, given_up] {
        device.complete(0, handle.command_id(), StatusCode::INTERNAL_ERROR.status(), 0, 0);
    }
    ready.poll(second).unwrap();
    assert_eq!(arena.live(Pool::Data), 1, "nobody asks for the late and the abandoned one");
    let done = ready.admin().take(untaken).unwrap();
    assert!(matches!(done.outcome, AdminOutcome::Completed(_)), "better than a time-out nobody heard of");
    crate::dma::release(&arena, done.region.unwrap(), &crate::testing::TestProof);
    assert_eq!((arena.live(Pool::Data), ready.admin().in_use()), (0, 0));
}

#[test]
fn what_nobody_took_is_lost_once_with_its_data() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let mut slots = slots(8);
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut slots);
    device.on_command(|_, _| None);
    let first = ready.admin().submit(identify(&arena, 4096), Instant::ZERO).unwrap();
    let second = ready.admin().submit(identify(&arena, 4096), Instant::ZERO).unwrap();
    let done = ready.admin().submit(keep_alive(1), Instant::ZERO).unwrap();
    let told = ready.admin().submit(identify(&arena, 4096), Instant::ZERO).unwrap();
    assert_eq!(ready.admin().request_events(9), 4);
    device.complete(0, done.command_id(), Status::SUCCESS, 0, 0);
    ready.poll(Instant::from_micros(5_000_000)).unwrap();
    assert_eq!(ready.admin().take(told).unwrap().outcome, AdminOutcome::TimedOut);
    let life = ready.admin().generation();
    let mut disabling = ready.disable();
    run(&mut Instant::ZERO.clone(), |now| disabling.poll(now)).unwrap();
    let mut disabled = disabling.finish().unwrap();
    // Whoever relies on something of the controller's learns that it is gone.
    assert!(disabled.admin().unwrap().generation().is_another_life(life));
    // By handle, for owners that still hold one.
    let lost = disabled.admin().unwrap().take(first).unwrap();
    assert_eq!(lost.outcome, AdminOutcome::Lost);
    crate::dma::release(&arena, lost.region.unwrap(), &disabled.quiesced());
    let mut left = Vec::new();
    while let Some((handle, completion)) = disabled.take_unfinished() {
        left.push((handle, matches!(completion.outcome, AdminOutcome::Lost)));
        if let Some(region) = completion.region {
            crate::dma::release(&arena, region, &disabled.quiesced());
        }
    }
    left.sort_by_key(|(handle, _)| handle.command_id());
    assert_eq!(left, [(second, true), (done, false)], "event requests vanish, the time-out was told");
    assert_eq!(arena.live(Pool::Data), 0);
    disabled.detach();
    assert_eq!(arena.live_total(), 0);
}

fn tail_event(queue: u16) -> AsynchronousEvent {
    CdqEvent::TailPointer(CdqId::new(queue)).into()
}

#[test]
fn events_wait_for_their_takers_and_hold_nothing_up() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let mut slots = slots(8);
    let options = EnableOptions { events: 3, ..Default::default() };
    let mut ready = ready(&device, &arena, &link, &options, &mut slots);
    assert_eq!(ready.admin().request_events(2), 2, "the controller's limit");
    assert_eq!(ready.admin().request_events(8), 3, "the caller's limit");
    assert_eq!(device.state.borrow().requests.len(), 3);
    let notice = AsynchronousEvent { kind: EventType::NOTICE, information: 0, log_page: 4, parameter: 0 };
    assert!(device.event(tail_event(7)) && device.event(notice) && device.event(tail_event(9)));
    assert!(!device.event(tail_event(7)), "no request is outstanding");
    ready.poll(Instant::ZERO).unwrap();
    assert_eq!(device.state.borrow().requests.len(), 3, "nothing taken, and yet asked for more");
    let admin = ready.admin();
    assert_eq!(admin.take_event(EventFilter::ControllerDataQueue(CdqId::new(9))), Some(tail_event(9)));
    assert!(device.event(tail_event(7)));
    admin.poll(Instant::ZERO).unwrap();
    assert_eq!(admin.take_event(EventFilter::ControllerDataQueue(CdqId::new(9))), None);
    assert_eq!(admin.take_event(EventFilter::Any), Some(tail_event(7)), "the oldest first");
    assert_eq!(admin.take_event(EventFilter::Other), Some(notice));
    assert_eq!(admin.take_event(EventFilter::Any), Some(tail_event(7)));
    assert_eq!(admin.take_event(EventFilter::Any), None);
    // Hundreds in a row.
    for n in 0..500 {
        assert!(device.event(tail_event(n)));
        admin.poll(Instant::ZERO).unwrap();
        assert_eq!(admin.take_event(EventFilter::Any), Some(tail_event(n)));
    }
    // Hundreds that nobody takes do not keep a queue's event from its reader.
    for _ in 0..500 {
        assert!(device.event(notice));
        admin.poll(Instant::ZERO).unwrap();
    }
    assert!(device.event(tail_event(5)));
    admin.poll(Instant::ZERO).unwrap();
    assert_eq!(admin.take_event(EventFilter::ControllerDataQueue(CdqId::new(5))), Some(tail_event(5)));
    assert_eq!((admin.dropped_events(), device.state.borrow().requests.len()), (485, 3));
}

#[test]
fn a_handle_from_before_a_reset_names_no_later_command() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let (mut first, mut second) = (slots(8), slots(8));
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut first);
    device.on_command(|_, _| None);
    let stale = ready.admin().submit(keep_alive(9), Instant::ZERO).unwrap();
    let mut disabling = ready.disable();
    run(&mut Instant::ZERO.clone(), |now| disabling.poll(now)).unwrap();
    let enabled = disabling.finish().unwrap().enable(&EnableOptions::default(), &mut second);
    let Ok(mut enabling) = enabled else { panic!("enabled") };
    run(&mut Instant::ZERO.clone(), |now| enabling.poll(now)).unwrap();
    let mut ready = enabling.finish().unwrap();
    let fresh = ready.admin().submit(keep_alive(9), Instant::ZERO).unwrap();
    assert_eq!(stale.command_id(), fresh.command_id(), "the same slot again");
    assert_ne!(stale, fresh);
    device.complete(0, fresh.command_id(), Status::SUCCESS, 0, 0);
    ready.poll(Instant::ZERO).unwrap();
    let lost = ready.admin().take(stale).expect("its end is known");
    assert!(matches!(lost.outcome, AdminOutcome::Lost) && lost.region.is_none());
    ready.admin().abandon(stale);
    let done = ready.admin().take(fresh).expect("still there");
    assert!(matches!(done.outcome, AdminOutcome::Completed(_)));
}

#[test]
fn commands_leave_room_for_event_requests() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let mut slots = slots(6);
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut slots);
    device.on_command(|_, _| None);
    let handles: Vec<_> =
        (0..6).map(|_| ready.admin().submit(keep_alive(9), Instant::ZERO).unwrap()).collect();
    // All slots are taken by commands: requests follow as slots become free, and before further commands.
    ready.admin().request_events(4);
    for (n, handle) in handles.iter().enumerate() {
        device.complete(0, handle.command_id(), Status::SUCCESS, 0, 0);
        ready.poll(Instant::ZERO).unwrap();
        assert!(ready.admin().take(*handle).is_some());
        if n < 4 {
            assert!(matches!(
                ready.admin().submit(keep_alive(9), Instant::ZERO),
                Err((SubmitError::Busy, _))
            ));
        }
        ready.poll(Instant::ZERO).unwrap();
        assert_eq!(device.state.borrow().requests.len(), (n + 1).min(4));
    }
    assert!(ready.admin().submit(keep_alive(9), Instant::ZERO).is_ok());
}

#[test]
fn calls_that_fail() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let mut slots = slots(8);
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut slots);
    device.on_command(|_, entry| {
        let refused = StatusCode::INVALID_FIELD.status().with_do_not_retry();
        (entry.opcode() == Identify::OPCODE).then_some((refused, 0, 0))
    });
    let (mut refused, mut late) = (Call::new(), Call::new());
    refused.start(identify(&arena, 4096)).unwrap();
    late.start(keep_alive(5)).unwrap();
    let admin = ready.admin();
    assert!(refused.poll(admin, Instant::ZERO).is_none() && late.poll(admin, Instant::ZERO).is_none());
    admin.poll(Instant::ZERO).unwrap();
    let refused = refused.poll(admin, Instant::ZERO).unwrap();
    let status = StatusCode::INVALID_FIELD.status().with_do_not_retry();
    let short = CallResult {
        outcome: Ok(CompletionQueueEntry::new(QueueId::ADMIN, 0, CommandId::new(0), Status::SUCCESS)),
        region: arena.allocate(Pool::Data, 8, 8, Direction::FromDevice).ok(),
    };
    assert_eq!(
        short.read(&arena, &mut [0; 12]).unwrap_err(),
        CallError::ShortBuffer { wanted: 12, held: 8 },
        "succeeded, so not a refusal"
    );
    assert!(!CallError::ShortBuffer { wanted: 12, held: 8 }.is_refusal());
    let noticed = arena.take_violations();
    assert!(matches!(noticed[..], [Violation::CpuOutOfRange { offset: 0, len: 12, .. }]), "{noticed:?}");
    assert_eq!(refused.outcome, Err(CallError::Status(status)));
    assert!(refused.region.is_some());
    assert!(late.poll(admin, Instant::ZERO).is_none());
    admin.poll(Instant::from_micros(5_000)).unwrap();
    assert_eq!(late.poll(admin, Instant::ZERO).unwrap().outcome, Err(CallError::TimedOut));
}

#[test]
fn status_changes_while_in_use() {
    let rows = [
        (
            "paused",
            ControllerStatus::from_bits(0).with_ready(true).with_processing_paused(true),
            Ok(Health::Paused),
        ),
        ("fatal", ControllerStatus::from_bits(0).with_ready(true).with_fatal(true), Err(Fault::FatalStatus)),
        ("all ones", ControllerStatus::from_bits(u32::MAX), Err(Fault::Removed)),
        ("live", ControllerStatus::from_bits(0).with_ready(true), Ok(Health::Live)),
    ];
    for (name, status, expected) in rows {
        let (arena, link) = (TestArena::new(), Link::new());
        let device = Device::new(&arena);
        let mut slots = slots(8);
        let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut slots);
        device.state.borrow_mut().status = status;
        assert_eq!(ready.check_status(), expected, "{name}");
    }
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let mut slots = slots(8);
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut slots);
    // Somebody else resets it.
    device.state.borrow_mut().configuration = ControllerConfiguration::from_bits(0);
    device.state.borrow_mut().status = ControllerStatus::from_bits(0);
    assert_eq!(ready.check_status(), Err(Fault::ReadyLost));
    assert_eq!(device.read32(Offset::new(register::VS)), Ok(Version::V2_1.bits()));
}

#[test]
fn shutdown_that_hangs() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    device.state.borrow_mut().manners.shutdown_hangs = true;
    let mut slots = slots(8);
    let ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut slots);
    let mut now = Instant::ZERO;
    let mut machine = ready.shutdown(Shutdown::Abrupt, Duration::from_secs(7), now);
    assert_eq!(run(&mut now, |now| machine.poll(now)), Err(Fault::ShutdownNotInTime));
    assert_eq!(now, Instant::from_micros(7_000_000));
    assert_eq!(
        device.state.borrow().configuration.shutdown(),
        crate::wire::register::ShutdownNotification::Abrupt
    );
}

#[test]
fn a_doorbell_that_cannot_be_written_fails_the_controller() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    let mut slots = slots(8);
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut slots);
    device.state.borrow_mut().broken = Some(0x1000);
    let handle = ready.admin().submit(identify(&arena, 4096), Instant::ZERO).unwrap();
    let fault = Fault::RegisterAccess(Offset::new(0x1000));
    assert_eq!(ready.health(), Health::Failed(fault));
    let lost = ready.admin().take(handle).unwrap();
    assert_eq!((lost.outcome, lost.region), (AdminOutcome::Lost, None), "the device may have seen it");
    assert_eq!(ready.poll(Instant::ZERO), Err(fault));
}

#[test]
fn faults_survive_being_recorded() {
    let faults = [
        Fault::UnknownCommand(CommandId::new(0xBEEF)),
        Fault::WrongSubmissionQueue(QueueId::new(77)),
        Fault::BadSubmissionHead(0xFFFF),
        Fault::FatalStatus,
        Fault::Removed,
        Fault::RegisterAccess(Offset::new(0xFFFF_FFFC)),
        Fault::NotReadyInTime,
        Fault::NotDisabledInTime,
        Fault::ShutdownNotInTime,
        Fault::ReadyLost,
        Fault::Reset,
    ];
    for fault in faults {
        let link = Link::new();
        let epoch = link.epoch();
        assert_eq!(link.check(epoch), Ok(()));
        assert_eq!(link.fail(epoch, fault), fault);
        assert_eq!(link.fail(epoch, Fault::FatalStatus), fault, "the first one stays");
        assert_eq!((link.fault(), link.check(epoch)), (Some(fault), Err(fault)));
        assert!(!std::format!("{fault}").is_empty());
        link.disabled();
        assert_eq!(link.check(epoch), Err(Fault::Reset));
        assert_eq!(link.check(link.epoch()), Ok(()));
        assert_eq!(
            link.fail(epoch, fault),
            Fault::Reset,
            "a queue of before cannot fail the controller of now"
        );
        assert_eq!(link.health(), Health::Live);
    }
}
