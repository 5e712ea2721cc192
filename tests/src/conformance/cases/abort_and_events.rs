// SPDX-License-Identifier: MIT OR Apache-2.0
//! Abort and Asynchronous Event Request. NVMe Base 2.1 §5.1.1 and §5.1.2.

use crate::conformance::backend::Backend;
use crate::conformance::world::sqe;
use crate::conformance::world::status::*;
use crate::conformance::world::*;

/// Dword 0 of an Error event: information in bits 15:8, log page 1.
const INVALID_REGISTER: (u32, u32) = (0x0001_0000, 0);
const INVALID_VALUE: (u32, u32) = (0x0001_0100, 0);

fn wrong_register(world: &mut World) {
    world.write32(GUEST, 0x1000 + 8 * 5, 1);
}

fn read_error_page(world: &mut World, retain: bool) {
    let prps = world.hosts[GUEST].buffer(64).1;
    let bits = if retain { 1 << 15 } else { 0 };
    world.admin(GUEST, sqe::get_log(1, 0, 64, prps).or(10, bits)).ok();
}

pub(crate) fn abort_of_what_cannot_be_aborted_succeeds_and_says_so(backend: &dyn Backend) {
    type Action = fn(&mut World) -> sqe::Sqe;
    let rows: [(&str, Action); 6] = [
        ("command that was never sent", |_| sqe::abort(0, 0x7777)),
        ("queue that does not exist", |_| sqe::abort(9, 1)),
        ("queue FFFFh", |_| sqe::abort(0xFFFF, 1)),
        ("command that was completed", |w| {
            let done = w.admin(GUEST, sqe::get_features(0x01, 0)).ok();
            sqe::abort(0, done.command)
        }),
        ("command of an I/O queue that was completed", |w| {
            let done = w.exec(GUEST, 1, sqe::flush(NSID)).ok();
            sqe::abort(1, done.command)
        }),
        ("event request of another controller", |w| {
            let request = w.leave(OTHER_GUEST, 0, sqe::event_request());
            sqe::abort(0, request)
        }),
    ];
    for (name, action) in rows {
        let mut world = World::new(backend);
        world.create_pair(GUEST, 1, 16);
        let abort = action(&mut world);
        let done = world.admin(GUEST, abort).ok();
        assert_eq!(done.dword0, 1, "{name}: not aborted");
        assert!(world.hosts[GUEST].done.is_empty(), "{name}");
    }
}

pub(crate) fn abort_itself_is_not_aborted(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.send_as(GUEST, 0, sqe::abort(0, 0x4242), 0x4242);
    world.ring(GUEST, 0);
    world.run();
    let done = world.hosts[GUEST].take(0, 0x4242).expect("completes once").ok();
    assert_eq!(done.dword0, 1);
    assert!(world.hosts[GUEST].done.is_empty());
}

pub(crate) fn an_event_request_is_aborted_before_the_abort_completes(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let first = world.leave(GUEST, 0, sqe::event_request());
    let second = world.leave(GUEST, 0, sqe::event_request());
    let abort = world.submit(GUEST, 0, sqe::abort(0, first));
    world.run();
    let order: Vec<_> = world.hosts[GUEST].done.iter().map(|done| done.command).collect();
    assert_eq!(order, [first, abort]);
    assert_eq!(world.hosts[GUEST].take(0, first).unwrap().code, ABORT_REQUESTED);
    assert_eq!(world.hosts[GUEST].take(0, abort).unwrap().ok().dword0, 0);
    wrong_register(&mut world);
    assert_eq!(world.event(GUEST, second), Some(INVALID_REGISTER), "the other request is still there");
}

pub(crate) fn event_requests_up_to_the_limit(backend: &dyn Backend) {
    for limit in [1, 4] {
        let mut world = World::with(backend, |setup| setup.event_requests = limit);
        let identity = world.identify(GUEST, 0x01, 0, 0);
        assert_eq!(usize::from(identity[259]) + 1, limit, "AERL");
        for _ in 0..limit {
            world.leave(GUEST, 0, sqe::event_request());
        }
        assert_eq!(world.admin(GUEST, sqe::event_request()).code, EVENT_REQUEST_LIMIT);
        wrong_register(&mut world);
        world.run();
        world.leave(GUEST, 0, sqe::event_request());
    }
}

pub(crate) fn event_requests_hold_no_completion_slot(backend: &dyn Backend) {
    let mut world = World::with(backend, |setup| {
        setup.admin_entries = 4;
        setup.event_requests = 3;
    });
    for _ in 0..3 {
        world.leave(GUEST, 0, sqe::event_request());
        // Tells the host that the request was fetched.
        world.admin(GUEST, sqe::get_features(0x01, 0)).ok();
    }
    for _ in 0..10 {
        world.admin(GUEST, sqe::get_features(0x01, 0)).ok();
    }
}

pub(crate) fn an_event_waits_for_a_request_and_is_reported_once(backend: &dyn Backend) {
    let mut world = World::new(backend);
    wrong_register(&mut world);
    world.run();
    let request = world.submit(GUEST, 0, sqe::event_request());
    assert_eq!(world.event(GUEST, request), Some(INVALID_REGISTER));
    let request = world.leave(GUEST, 0, sqe::event_request());
    assert_eq!(world.event(GUEST, request), None);
}

pub(crate) fn a_reported_type_is_masked_until_its_page_is_read(backend: &dyn Backend) {
    let mut world = World::new(backend);
    world.create_pair(GUEST, 1, 16);
    let first = world.leave(GUEST, 0, sqe::event_request());
    let second = world.leave(GUEST, 0, sqe::event_request());
    wrong_register(&mut world);
    assert_eq!(world.event(GUEST, first), Some(INVALID_REGISTER));
    wrong_register(&mut world);
    assert_eq!(world.event(GUEST, second), None, "masked");
    read_error_page(&mut world, true);
    wrong_register(&mut world);
    assert_eq!(world.event(GUEST, second), None, "RAE=1 does not unmask");
    read_error_page(&mut world, false);
    world.write32(GUEST, 0x1008, 99);
    assert_eq!(world.event(GUEST, second), Some(INVALID_VALUE));
}

pub(crate) fn requests_are_used_in_their_order_and_need_distinct_identifiers(backend: &dyn Backend) {
    let mut world = World::new(backend);
    let first = world.leave(GUEST, 0, sqe::event_request());
    let second = world.leave(GUEST, 0, sqe::event_request());
    world.send_as(GUEST, 0, sqe::get_features(0x01, 0), first);
    world.ring(GUEST, 0);
    world.run();
    let conflict = world.hosts[GUEST].take(0, first).expect("completes");
    assert_eq!(conflict.code, COMMAND_ID_CONFLICT, "the request's identifier is in use");
    wrong_register(&mut world);
    assert_eq!(world.event(GUEST, first), Some(INVALID_REGISTER));
    assert_eq!(world.event(GUEST, second), None);
}
