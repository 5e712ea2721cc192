// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bring-up by the driver, from every combination of EN, RDY and CFS, fast and slow.

use std::cell::Cell;
use std::time::Instant;

use nvme_core::admin::{AdminPort, CallError, EventFilter};
use nvme_core::controller::Link;
use nvme_core::register::{Offset, RegisterIo};
use nvme_core::wire::EventType;
use nvme_core::wire::admin::{
    Abort, FeatureSelect, GetFeatures, GetLogPage, Identify, IdentifyStructure, SetFeatures,
};
use nvme_core::wire::feature::FeatureId;
use nvme_core::wire::identify::{ControllerIdentity, OptionalNvmCommands};
use nvme_core::wire::log::LogPageId;
use nvme_core::wire::{CommandId, NamespaceId, QueueId, StatusCode};

use super::{Host, TIMEOUT, on_host, slots, with_device};
use crate::conformance::backend::{AccessRefused, Backend, Device, Registers, Work};
use crate::conformance::not_applicable;

const CC: u32 = 0x14;
const CSTS: u32 = 0x1C;
/// Completion dword 0 of Get Features for supported capabilities: the feature can be changed.
const CHANGEABLE: u32 = 1 << 2;

/// Registers that show a state of the driver's choice until the driver writes CC, and then change RDY late.
struct Veil<'d> {
    registers: &'d Registers,
    /// EN, RDY and CFS to show; the controller's own once CC was written.
    shown: Cell<Option<(u32, u32, u32)>>,
    /// Reads of CSTS that still show the old RDY after a write of CC.
    late: u32,
    left: Cell<u32>,
    old_ready: Cell<u32>,
}

impl RegisterIo for Veil<'_> {
    type Error = AccessRefused;

    fn read32(&self, offset: Offset) -> Result<u32, AccessRefused> {
        let value = self.registers.read32(offset)?;
        let Some((enabled, ready, fatal)) = self.shown.get() else {
            if offset.bytes() == CSTS && self.left.get() > 0 {
                self.left.set(self.left.get() - 1);
                return Ok(value & !1 | self.old_ready.get());
            }
            return Ok(value);
        };
        match offset.bytes() {
            CC => Ok(value & !1 | enabled),
            CSTS => {
                // A controller that is not where EN wants it gets there in the end; a failed one is not enabled.
                if enabled != ready && (enabled == 0 || fatal == 0) {
                    match self.left.get().checked_sub(1) {
                        Some(left) => self.left.set(left),
                        None => self.shown.set(Some((enabled, enabled, fatal))),
                    }
                }
                Ok(value & !3 | ready | fatal << 1)
            }
            _ => Ok(value),
        }
    }

    fn write32(&self, offset: Offset, value: u32) -> Result<(), AccessRefused> {
        if offset.bytes() == CC {
            let ready = match self.shown.take() {
                Some((_, ready, _)) => ready,
                None => self.registers.read32(Offset::new(CSTS))? & 1,
            };
            self.old_ready.set(ready);
            self.left.set(self.late);
        }
        self.registers.write32(offset, value)
    }
}

pub(crate) fn every_combination_of_en_rdy_and_cfs_ends_ready(backend: &dyn Backend) {
    for bits in 0..8_u32 {
        let (enabled, ready, fatal) = (bits & 1, bits >> 1 & 1, bits >> 2);
        for late in [0, 1, 7] {
            with_device(backend, |device| {
                let arena = device.arena(0);
                let veil = Veil {
                    registers: device.registers(0),
                    shown: Cell::new(Some((enabled, ready, fatal))),
                    late,
                    left: Cell::new(late),
                    old_ready: Cell::new(0),
                };
                let link = Link::new();
                let host = Host::new(device, &veil, &arena, &link);
                let mut slots = slots(16);
                let (mut controller, known) = host.up(&mut slots);
                assert!(known.blocks > 0);
                let name = format!("EN {enabled}, RDY {ready}, CFS {fatal}, {late} reads late");
                let csts = device.registers(0).read32(Offset::new(CSTS)).unwrap();
                assert_eq!(csts & 3, 1, "{name}");
                host.identify(&mut controller, Identify::new(IdentifyStructure::CONTROLLER));
                host.disable(controller.disable()).detach();
            });
        }
    }
}

/// Leaves the controller as somebody else has left it.
type Leave = fn(&dyn Device);

fn raw(device: &dyn Device, offset: u32, width: u8, value: u64) {
    let registers = device.registers(0);
    registers.write32(Offset::new(offset), value as u32).expect("a register");
    if width == 8 {
        registers.write32(Offset::new(offset + 4), (value >> 32) as u32).expect("a register");
    }
}

fn enabled_by_another(device: &dyn Device) {
    let memory = device.memory(0);
    raw(device, 0x24, 4, 0x000F_000F);
    raw(device, 0x28, 8, memory.allocate(4096, 4096));
    raw(device, 0x30, 8, memory.allocate(4096, 4096));
    raw(device, CC, 4, 0x0046_0001);
    // One that works by itself may need more than one turn.
    let begin = Instant::now();
    loop {
        assert!(device.work(Work::Settle));
        if device.registers(0).read32(Offset::new(CSTS)).unwrap() & 1 == 1 {
            return;
        }
        assert!(begin.elapsed() < TIMEOUT, "it does not become ready");
    }
}

pub(crate) fn a_controller_is_taken_over_as_it_was_left(backend: &dyn Backend) {
    let rows: [(&str, Leave); 5] = [
        ("never touched", |_| {}),
        ("enabled by another driver", enabled_by_another),
        ("enabled, with commands outstanding", |device| {
            enabled_by_another(device);
            raw(device, 0x1000, 4, 3);
        }),
        ("enabled and shut down", |device| {
            enabled_by_another(device);
            raw(device, CC, 4, 0x0046_0001 | 1 << 14);
            assert!(device.work(Work::Settle));
        }),
        ("failed to become ready", |device| {
            raw(device, 0x24, 4, 0);
            raw(device, CC, 4, 0x0046_0001);
            assert!(device.work(Work::Settle));
        }),
    ];
    for (name, leave) in rows {
        with_device(backend, |device| {
            leave(device);
            let (arena, link) = (device.arena(0), Link::new());
            let host = Host::new(device, device.registers(0), &arena, &link);
            let mut slots = slots(16);
            let (controller, known) = host.up(&mut slots);
            assert!(known.identity.namespace_count > 0, "{name}");
            host.disable(controller.disable()).detach();
        });
    }
}

pub(crate) fn it_comes_up_again_and_again(backend: &dyn Backend) {
    on_host(backend, |host| {
        let mut slots = slots(16);
        let mut serial = None;
        for round in 0..10 {
            let (controller, known) = host.up(&mut slots);
            let found = known.identity.serial_number;
            assert_eq!(*serial.get_or_insert(found), found, "round {round}");
            host.disable(controller.disable()).detach();
        }
    });
}

pub(crate) fn identify_agrees_with_the_registers(backend: &dyn Backend) {
    on_host(backend, |host| {
        let mut slots = slots(16);
        let (mut controller, known) = host.up(&mut slots);
        let capabilities = controller.capabilities();
        let identity = &known.identity;
        let version = host.registers.read32(Offset::new(0x08)).unwrap();
        assert_eq!(identity.version, version, "VER is VS");
        assert!(identity.submission_entry_sizes.allows(6), "64-byte entries");
        assert!(identity.completion_entry_sizes.allows(4), "16-byte entries");
        assert!(capabilities.max_queue_entries() >= 2);
        assert_eq!(identity.controller, known.initialized.controller);
        // The same again, byte for byte.
        let page = host.identify(&mut controller, Identify::new(IdentifyStructure::CONTROLLER));
        assert_eq!(ControllerIdentity::parse(&page).expect("the same data").controller, identity.controller);
        let inactive = Identify {
            namespace: NamespaceId::new(0xFFFF_FFF0),
            ..Identify::new(IdentifyStructure::NAMESPACE)
        };
        assert!(host.receive(&mut controller, &inactive, 4096).is_err(), "a namespace that cannot be");
        host.disable(controller.disable()).detach();
    });
}

pub(crate) fn logs_are_as_long_as_they_say(backend: &dyn Backend) {
    on_host(backend, |host| {
        let mut slots = slots(16);
        let (mut controller, known) = host.up(&mut slots);
        for (name, page, bytes) in [
            (
                "Error Information",
                LogPageId::ERROR_INFORMATION,
                64 * usize::from(known.identity.error_log_entries),
            ),
            ("SMART / Health", LogPageId::SMART_HEALTH_INFORMATION, 512),
            ("Firmware Slot", LogPageId::FIRMWARE_SLOT_INFORMATION, 512),
        ] {
            let all = GetLogPage { namespace: NamespaceId::ALL, ..GetLogPage::new(page, bytes as u64 / 4) };
            let (_, whole) = host.receive(&mut controller, &all, bytes).expect(name);
            // In two halves it is the same, as far as it stands still.
            let half = bytes / 8 * 4;
            let first = GetLogPage { dwords: half as u64 / 4, ..all };
            let (_, first) = host.receive(&mut controller, &first, half).expect(name);
            assert_eq!(first.len(), half, "{name}");
            if page == LogPageId::FIRMWARE_SLOT_INFORMATION {
                assert_eq!(first, whole[..half], "{name}");
            }
        }
        let unknown = GetLogPage::new(LogPageId::new(0xBF), 16);
        assert!(host.receive(&mut controller, &unknown, 64).is_err(), "a reserved page is refused");
        host.disable(controller.disable()).detach();
    });
}

pub(crate) fn features_go_there_and_back(backend: &dyn Backend) {
    on_host(backend, |host| {
        let mut slots = slots(16);
        let (mut controller, known) = host.up(&mut slots);
        let mut get = |feature, select| {
            let command = GetFeatures::new(feature, select);
            host.order(&mut controller, &command).map(|entry| entry.dw0())
        };
        let granted = known.initialized.io_queues.expect("queues were asked for");
        assert_eq!(
            get(FeatureId::NUMBER_OF_QUEUES, FeatureSelect::Current)
                .map(|dword| dword & 0xFFFF >= u32::from(granted.submission) - 1),
            Ok(true)
        );
        let says = known.identity.nvm_commands.contains(OptionalNvmCommands::SAVE_SELECT);
        let mut changed = 0;
        for feature in [FeatureId::ARBITRATION, FeatureId::ASYNCHRONOUS_EVENT_CONFIGURATION] {
            let before = host.order(&mut controller, &GetFeatures::new(feature, FeatureSelect::Current));
            let before = before.expect("a mandatory feature").dw0();
            let what = GetFeatures::new(feature, FeatureSelect::SupportedCapabilities);
            if says && host.order(&mut controller, &what).expect("what it supports").dw0() & CHANGEABLE == 0 {
                let refused = host.order(&mut controller, &SetFeatures::new(feature, before));
                let Err(CallError::Status(status)) = refused else {
                    panic!("{feature:?} is changed: {refused:?}")
                };
                assert_eq!(status.code(), StatusCode::FEATURE_NOT_CHANGEABLE, "{feature:?}");
                continue;
            }
            changed += 1;
            for value in [before & !7, before & !7 | 1, before] {
                host.order(&mut controller, &SetFeatures::new(feature, value)).expect("a mandatory feature");
                let found = host.order(&mut controller, &GetFeatures::new(feature, FeatureSelect::Current));
                assert_eq!(found.expect("a mandatory feature").dw0(), value, "{feature:?}");
            }
        }
        if changed == 0 {
            not_applicable("the controller says that none of these features is changeable".to_owned());
        }
        let unknown = GetFeatures::new(FeatureId::new(0x7E), FeatureSelect::Current);
        assert!(host.order(&mut controller, &unknown).is_err(), "a reserved feature is refused");
        host.disable(controller.disable()).detach();
    });
}

pub(crate) fn events_are_asked_for_within_the_limit_and_told(backend: &dyn Backend) {
    on_host(backend, |host| {
        let mut slots = slots(16);
        let (mut controller, known) = host.up(&mut slots);
        let requests = known.initialized.event_requests;
        assert!((1..=known.identity.event_request_limit).contains(&requests), "{requests} requests");
        assert_eq!(controller.admin().take_event(EventFilter::Any), None);
        for round in 0..3 {
            // A doorbell of a queue that was never created.
            let stride = controller.capabilities().doorbell_stride();
            let doorbell = Offset::sq_tail(QueueId::new(4), stride).expect("inside the register space");
            host.registers.write32(doorbell, 1).expect("a doorbell");
            let begin = Instant::now();
            let event = loop {
                host.work();
                controller.poll(host.now()).expect("the controller works");
                if let Some(event) = controller.admin().take_event(EventFilter::Any) {
                    break event;
                }
                assert!(begin.elapsed() < TIMEOUT, "no event");
            };
            assert_eq!((event.kind, event.information), (EventType::ERROR, 0), "round {round}");
            // Reading the page allows the next event of its kind.
            let page = GetLogPage::new(LogPageId::ERROR_INFORMATION, 16);
            host.receive(&mut controller, &page, 64).expect("the error log");
        }
        host.disable(controller.disable()).detach();
    });
}

pub(crate) fn an_abort_of_nothing_is_answered(backend: &dyn Backend) {
    on_host(backend, |host| {
        let mut slots = slots(16);
        let (mut controller, _) = host.up(&mut slots);
        for (queue, command) in [(0, 0x7777), (9, 1), (0xFFFF, 0)] {
            let abort = Abort { queue: QueueId::new(queue), command: CommandId::new(command) };
            match host.order(&mut controller, &abort) {
                Ok(entry) => assert!(!Abort::was_aborted(entry.dw0()), "queue {queue}"),
                Err(CallError::Status(status)) if queue != 0 && backend.may_refuse_abort_of_no_queue() => {
                    assert_eq!(status.code(), StatusCode::INVALID_FIELD, "queue {queue}");
                }
                Err(error) => panic!("best effort never fails: {error:?}"),
            }
        }
        host.disable(controller.disable()).detach();
    });
}
