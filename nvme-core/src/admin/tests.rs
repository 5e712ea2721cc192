// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a host asks a controller once it is ready, against the scripted device.

use core::time::Duration;

use super::*;
use crate::controller::{EnableOptions, Fault, Link};
use crate::dma::Pool;
use crate::testing::TestArena;
use crate::testing::device::{Answer, Device, SUCCESS};
use crate::testing::life::{ready, slots};
use crate::time::{Instant, Step};
use crate::wire::admin::{Identify, IdentifyStructure};
use crate::wire::feature::{AsynchronousEventConfiguration, NumberOfQueues};
use crate::wire::identify::{ControllerIdentity, IdentifyError, NamespaceList, PAGE_BYTES};
use crate::wire::{
    AdminOpcode, BusAddr, Command, ControllerId, NamespaceId, StatusCode, SubmissionQueueEntry,
};

mod calls;

type Outcome = Result<Initialized, InitializeError>;

fn identity() -> ControllerIdentity {
    ControllerIdentity {
        controller: ControllerId::new(7),
        max_transfer_log2: 3,
        event_request_limit: 3,
        optional_events: (AsynchronousEventConfiguration::NAMESPACE_ATTRIBUTE).bits(),
        rtd3_entry: 5_000_000,
        ..ControllerIdentity::default()
    }
}

/// Answers as a controller with this identity and these queues, or with the status for one opcode.
fn controller<'a>(
    arena: &'a TestArena,
    identity: ControllerIdentity,
    queues: u32,
    refused: Option<u8>,
) -> impl FnMut(crate::wire::QueueId, &SubmissionQueueEntry) -> Answer + 'a {
    move |_, entry| {
        if refused == Some(entry.opcode()) {
            return Some((StatusCode::INTERNAL_ERROR.status(), 0, 0));
        }
        match AdminOpcode::new(entry.opcode()) {
            AdminOpcode::IDENTIFY => {
                let mut page = [0; PAGE_BYTES];
                identity.build(&mut page);
                // Power states (NPSS), also impossible ones.
                page[263] = identity.power_state_count;
                arena.device_write(entry.prp1(), &page);
                assert_eq!(entry.prp2(), BusAddr::new(0));
                SUCCESS
            }
            AdminOpcode::SET_FEATURES if entry.dwords()[0] & 0xFF == 7 => {
                Some((crate::wire::Status::SUCCESS, queues, 0))
            }
            AdminOpcode::SET_FEATURES => SUCCESS,
            _ => None,
        }
    }
}

fn initialize(
    options: &InitializeOptions,
    identity: ControllerIdentity,
    queues: u32,
    refused: Option<u8>,
    check: impl FnOnce(&Device<'_>, usize),
) -> Outcome {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    device.on_command(controller(&arena, identity, queues, refused));
    let mut memory = slots(8);
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut memory);
    let (mut machine, mut page, mut now) = (Initialize::new(options), [0; PAGE_BYTES], Instant::ZERO);
    let outcome = loop {
        let step = machine.poll(ready.admin(), &mut page, now);
        ready.poll(now).unwrap();
        match step {
            Step::Done => break machine.finish().unwrap(),
            Step::Wait(until) => now = until,
            Step::Again => {}
        }
        assert!(now < Instant::from_micros(100_000_000), "it ends");
    };
    assert_eq!(arena.live(Pool::Data), 0);
    check(&device, ready.admin().max_transfer());
    outcome
}

#[test]
fn a_controller_is_asked_what_a_host_needs() {
    let asked = NumberOfQueues { submission: 9, completion: 6 };
    let options = InitializeOptions {
        io_queues: Some(asked),
        events: AsynchronousEventConfiguration::CRITICAL_WARNINGS
            | AsynchronousEventConfiguration::NAMESPACE_ATTRIBUTE
            | AsynchronousEventConfiguration::TELEMETRY,
        ..Default::default()
    };
    let granted = NumberOfQueues { submission: 4, completion: 64 };
    let found = initialize(&options, identity(), granted.dword(), None, |device, max_transfer| {
        assert_eq!(max_transfer, 8 * 4096, "MDTS");
        assert_eq!(device.state.borrow().requests.len(), 3);
        let commands = device.take_commands(0);
        let configured = commands.last().unwrap();
        assert_eq!(configured.dwords()[..2], [0x0B, 0x1FF], "only events the controller supports");
    });
    let found = found.unwrap();
    assert_eq!(found.controller, ControllerId::new(7));
    assert_eq!(found.io_queues, Some(NumberOfQueues { submission: 4, completion: 6 }));
    assert_eq!((found.event_requests, found.shutdown_limit), (3, Duration::from_secs(5)));
}

#[test]
fn no_limit_no_queues() {
    let identity = ControllerIdentity { max_transfer_log2: 0, ..identity() };
    let found = initialize(&InitializeOptions::default(), identity, 0, None, |_, max_transfer| {
        assert_eq!(max_transfer, 2 << 20, "what the list pages allow");
    });
    assert_eq!(found.unwrap().io_queues, None);
}

#[test]
fn what_goes_wrong_is_named() {
    let options = InitializeOptions {
        io_queues: Some(NumberOfQueues { submission: 1, completion: 1 }),
        ..Default::default()
    };
    let refused = CallError::Status(StatusCode::INTERNAL_ERROR.status());
    let call = |command| Err(InitializeError::Call { command, error: refused });
    let found = initialize(&options, identity(), 0, Some(AdminOpcode::IDENTIFY.get()), |_, _| {});
    assert_eq!(found, call("Identify Controller"));
    let found = initialize(&options, identity(), 0, Some(AdminOpcode::SET_FEATURES.get()), |_, _| {});
    assert_eq!(found, call("Number of Queues"));
    let none = InitializeOptions::default();
    let found = initialize(&none, identity(), 0, Some(AdminOpcode::SET_FEATURES.get()), |_, _| {});
    assert_eq!(found, call("Asynchronous Event Configuration"));
    let found = initialize(&options, identity(), 0xFFFF, None, |_, _| {});
    assert!(matches!(found, Err(InitializeError::Queues(field)) if field.field == "NSQR"));
    let states = ControllerIdentity { power_state_count: 200, ..identity() };
    let found = initialize(&options, states, 0, None, |_, _| {});
    assert!(matches!(found, Err(InitializeError::Identity(IdentifyError::Field(_)))), "{found:?}");
    assert!(!std::format!("{}", found.unwrap_err()).is_empty());
}

#[test]
fn inquiries_one_after_the_other() {
    let (arena, link) = (TestArena::new(), Link::new());
    let device = Device::new(&arena);
    device.on_command(|_, entry| {
        let asked = Identify::decode(entry).ok()?;
        let mut page = [0; PAGE_BYTES];
        NamespaceList::build(&mut page, asked.namespace, (1..=1500).map(NamespaceId::new));
        arena.device_write(entry.prp1(), &page);
        SUCCESS
    });
    let mut memory = slots(8);
    let mut ready = ready(&device, &arena, &link, &EnableOptions::default(), &mut memory);
    let (mut page, mut after, mut seen) = ([0; PAGE_BYTES], NamespaceId::NONE, 0);
    loop {
        let asked = Identify { namespace: after, ..Identify::new(IdentifyStructure::ACTIVE_NAMESPACE_LIST) };
        let mut inquiry = Inquiry::new(asked, Duration::from_secs(1));
        assert!(inquiry.poll(ready.admin(), &mut page, Instant::ZERO).is_none());
        ready.poll(Instant::ZERO).unwrap();
        assert_eq!(inquiry.poll(ready.admin(), &mut page, Instant::ZERO), Some(Ok(())));
        let list = NamespaceList::parse(&page, after).unwrap();
        seen += list.iter().len();
        after = list.iter().last().unwrap();
        if !list.is_full() {
            break;
        }
    }
    assert_eq!((seen, after), (1500, NamespaceId::new(1500)));
    // Without memory, and given up.
    arena.fail_after(0);
    let mut inquiry = Inquiry::new(Identify::new(IdentifyStructure::CONTROLLER), Duration::from_secs(1));
    let refused = inquiry.poll(ready.admin(), &mut page, Instant::ZERO);
    assert!(matches!(refused, Some(Err(CallError::NotSubmitted(SubmitError::DataPointer(_))))));
    arena.fail_after(1);
    assert!(inquiry.poll(ready.admin(), &mut page, Instant::ZERO).is_none());
    inquiry.abandon(ready.admin());
    ready.poll(Instant::ZERO).unwrap();
    assert_eq!((arena.live(Pool::Data), ready.admin().in_use()), (0, 0));
    assert_eq!(ready.check_status().err(), None::<Fault>);
}
