// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every check of the Controller Data Queue feature, the tail pointer trigger, and the events on the owner's queue.

mod harness;

use harness::lm::DataQueue;
use harness::{GUEST, MANAGER, NSID, Options, Rig, code};
use nvme_controller::{Quirks, SubsystemConfig};
use nvme_core::wire::admin::{AsynchronousEventRequest, FeatureSelect, GetFeatures, SetFeatures};
use nvme_core::wire::feature::{
    ControllerDataQueueFeature, ControllerDataQueueFeatureData, ControllerDataQueueFeatureFields, FeatureId,
};
use nvme_core::wire::nvm::WriteZeroes;
use nvme_core::wire::{
    AsynchronousEvent, CdqEvent, CdqId, Command, CommandId, EventType, Lba, NamespaceId, Status,
};
use zerocopy::FromBytes;

/// A rig with a data queue of `entries` slots whose log runs, all entries so far consumed and published.
fn logging(entries: u32, quirks: Quirks) -> (Rig, DataQueue) {
    let subsystem = SubsystemConfig { quirks, ..Options::default().subsystem };
    let mut rig = Rig::with(Options { subsystem, ..Options::default() });
    rig.enable(MANAGER);
    rig.enable(GUEST);
    rig.create_pair(GUEST, 1, 64);
    let mut queue = rig.data_queue(GUEST, entries);
    assert_eq!(rig.log(&queue, true).status(), Status::SUCCESS);
    assert_eq!(rig.said(&mut queue).len(), 1);
    rig.publish(&queue, None);
    (rig, queue)
}

/// Makes `count` entries.
fn change(rig: &mut Rig, count: u32) {
    for lba in 0..count {
        let command = WriteZeroes::new(NSID, Lba::new(u64::from(lba)), 1);
        assert_eq!(rig.command(GUEST, 1, command.encode()).status(), Status::SUCCESS);
    }
}

fn request(rig: &mut Rig) -> CommandId {
    let id = rig.submit(MANAGER, 0, AsynchronousEventRequest.encode());
    rig.run();
    id
}

fn event(rig: &mut Rig, id: CommandId) -> Option<CdqEvent> {
    let entry = rig.take(MANAGER, 0, id)?;
    assert_eq!(entry.status(), Status::SUCCESS);
    AsynchronousEvent::from_completion(&entry).controller_data_queue()
}

#[test]
fn heads_that_may_be_set() {
    // Queue of 8: entries in slots 1 to 4, so head 1 and tail 5; or wrapped: head 6, tail 2.
    for (name, wrapped, head, kind, status) in [
        ("unchanged", false, 1, 0, 0x00),
        ("first entry consumed", false, 2, 0, 0x00),
        ("last entry left", false, 4, 0, 0x00),
        ("everything consumed", false, 5, 0, 0x00),
        ("past the tail", false, 6, 0, 0x02),
        ("backwards", false, 0, 0, 0x02),
        ("outside the queue", false, 8, 0, 0x02),
        ("far outside", false, u32::MAX, 0, 0x02),
        ("wrapped, before the wrap", true, 7, 0, 0x00),
        ("wrapped, after the wrap", true, 1, 0, 0x00),
        ("wrapped, everything consumed", true, 2, 0, 0x00),
        ("wrapped, past the tail", true, 3, 0, 0x02),
        ("wrapped, backwards", true, 5, 0, 0x02),
    ] {
        let (mut rig, mut queue) = logging(8, Quirks::empty());
        if wrapped {
            change(&mut rig, 5);
            assert_eq!(rig.said(&mut queue).len(), 5);
            rig.publish(&queue, None);
        }
        change(&mut rig, 4);
        let completion = rig.set_head(&queue, head, None);
        assert_eq!(completion.status().code(), code(kind, status), "{name}");
        let expected = if status == 0 { head } else { queue.head };
        let (entry, data) = rig.admin_data(
            MANAGER,
            &ControllerDataQueueFeature::get(queue.id, FeatureSelect::Current),
            &[0xEE; 512],
        );
        assert_eq!(entry.status(), Status::SUCCESS);
        let data = ControllerDataQueueFeatureData::read_from_bytes(&data[..]).unwrap();
        let feature = ControllerDataQueueFeature::from_get(queue.id, &data, entry.dw0());
        assert_eq!((feature.head, feature.tail_trigger), (expected, None), "{name}");
    }
}

#[test]
fn an_empty_queue_takes_only_its_own_head() {
    let (mut rig, queue) = logging(8, Quirks::empty());
    for (name, head, kind, status) in [
        ("same head", 1, 0, 0x00),
        ("next slot", 2, 0, 0x02),
        ("slot before", 0, 0, 0x02),
        ("outside", 8, 0, 0x02),
    ] {
        assert_eq!(rig.set_head(&queue, head, None).status().code(), code(kind, status), "{name}");
    }
}

#[test]
fn set_and_get_are_refused_with_the_status_of_their_violation() {
    let (mut rig, queue) = logging(8, Quirks::empty());
    let fields = |id: u16, enable, trigger| ControllerDataQueueFeatureFields {
        queue: CdqId::new(id),
        enable_tail_trigger: enable,
        head: queue.head,
        tail_trigger: trigger,
    };
    let id = queue.id.get();
    let save = SetFeatures { save: true, ..fields(id, false, 0).to_set_features() };
    let namespace = SetFeatures { namespace: NamespaceId::new(1), ..fields(id, false, 0).to_set_features() };
    for (name, command, kind, status) in [
        ("unknown queue", fields(9, false, 0).to_set_features(), 1, 0x37),
        ("trigger is the last slot", fields(id, true, 7).to_set_features(), 0, 0x00),
        ("trigger outside", fields(id, true, 8).to_set_features(), 0, 0x02),
        ("trigger outside, not enabled", fields(id, false, u32::MAX).to_set_features(), 0, 0x00),
        ("save", save, 1, 0x0D),
        ("namespace", namespace, 1, 0x0F),
    ] {
        assert_eq!(rig.admin(MANAGER, &command).status().code(), code(kind, status), "{name}");
    }
    let get = |id| ControllerDataQueueFeature::get(CdqId::new(id), FeatureSelect::Current);
    assert_eq!(rig.admin(MANAGER, &get(9)).status().code(), code(1, 0x37), "get of an unknown queue");
    let guest = GetFeatures::new(FeatureId::CONTROLLER_DATA_QUEUE, FeatureSelect::Current);
    assert_eq!(
        rig.admin(GUEST, &guest).status().code(),
        code(0, 0x02),
        "a migratable controller has no such feature"
    );
    assert_eq!(rig.admin(GUEST, &fields(id, false, 0).to_set_features()).status().code(), code(0, 0x02));
    let capabilities =
        GetFeatures::new(FeatureId::CONTROLLER_DATA_QUEUE, FeatureSelect::SupportedCapabilities);
    assert_eq!(rig.admin_ok(MANAGER, &capabilities), 4, "changeable, neither saveable nor of a namespace");
}

#[test]
fn the_trigger_fires_when_its_slot_is_filled_and_only_once() {
    for trigger in 0..8 {
        let (mut rig, mut queue) = logging(8, Quirks::empty());
        let id = request(&mut rig);
        rig.publish(&queue, Some(trigger));
        let (_, data) = rig.admin_data(
            MANAGER,
            &ControllerDataQueueFeature::get(queue.id, FeatureSelect::Current),
            &[0; 512],
        );
        assert_eq!(data[4..8], trigger.to_le_bytes());
        for step in 0..8 {
            let slot = (1 + step) % 8;
            change(&mut rig, 1);
            let fired = event(&mut rig, id);
            let expected = (slot == trigger).then_some(CdqEvent::TailPointer(queue.id));
            assert_eq!(fired, expected, "trigger {trigger}, slot {slot}");
            assert_eq!(rig.said(&mut queue).len(), 1);
            if fired.is_some() {
                break;
            }
            rig.publish(&queue, Some(trigger));
        }
        let again = request(&mut rig);
        let get = ControllerDataQueueFeature::get(queue.id, FeatureSelect::Current);
        let (entry, data) = rig.admin_data(MANAGER, &get, &[0xEE; 512]);
        assert_eq!((entry.dw0() >> 31, &data[4..8]), (0, &[0; 4][..]), "disarmed");
        rig.publish(&queue, None);
        change(&mut rig, 6);
        assert_eq!(event(&mut rig, again), None, "one-shot");
    }
}

#[test]
fn a_successful_set_discards_a_tail_event_not_yet_reported() {
    let (mut rig, mut queue) = logging(8, Quirks::empty());
    rig.publish(&queue, Some(1));
    change(&mut rig, 1);
    assert_eq!(rig.set_head(&queue, 7, None).status().code(), code(0, 0x02));
    let id = request(&mut rig);
    assert_eq!(event(&mut rig, id), Some(CdqEvent::TailPointer(queue.id)), "a refused set keeps the event");
    rig.publish(&queue, Some(2));
    change(&mut rig, 1);
    assert_eq!(rig.said(&mut queue).len(), 2);
    rig.publish(&queue, None);
    let id = request(&mut rig);
    assert_eq!(event(&mut rig, id), None);
}

#[test]
fn events_wait_for_a_request_and_are_neither_masked_nor_lost() {
    let (mut rig, queue) = logging(4, Quirks::empty());
    rig.publish(&queue, Some(2));
    change(&mut rig, 3);
    let (first, second, third) = (request(&mut rig), request(&mut rig), request(&mut rig));
    assert_eq!(event(&mut rig, first), Some(CdqEvent::TailPointer(queue.id)));
    assert_eq!(event(&mut rig, second), Some(CdqEvent::Full(queue.id)));
    assert_eq!(event(&mut rig, third), None);
    let mut guest_request = None;
    if rig.arrived[GUEST].is_empty() {
        guest_request = Some(rig.submit(GUEST, 0, AsynchronousEventRequest.encode()));
        rig.run();
    }
    assert_eq!(rig.take(GUEST, 0, guest_request.unwrap()), None, "the tracked controller hears nothing");
}

#[test]
fn event_completions_have_the_layout_of_one_shot_events() {
    let (mut rig, queue) = logging(4, Quirks::empty());
    change(&mut rig, 3);
    let id = request(&mut rig);
    let entry = rig.take(MANAGER, 0, id).unwrap();
    assert_eq!((entry.dw0(), entry.dw1()), (0x0000_0104, u32::from(queue.id.get())));
    assert_eq!(AsynchronousEvent::from_completion(&entry).kind, EventType::ONE_SHOT);
}

#[test]
fn quirks_of_known_models() {
    let (mut rig, queue) = logging(8, Quirks::TRIGGER_AFTER_INCREMENT);
    rig.publish(&queue, Some(2));
    change(&mut rig, 1);
    let id = request(&mut rig);
    assert_eq!(event(&mut rig, id), Some(CdqEvent::TailPointer(queue.id)), "fires one entry early");

    let (mut rig, queue) = logging(8, Quirks::CDQ_FEATURE_EIGHT_BYTES);
    let get = ControllerDataQueueFeature::get(queue.id, FeatureSelect::Current);
    let (_, data) = rig.admin_data(MANAGER, &get, &[0xEE; 512]);
    assert_eq!((&data[..4], &data[8..]), (&[1, 0, 0, 0][..], &[0xEE; 504][..]));

    let (mut rig, queue) = logging(4, Quirks::ONE_SHOT_EVENTS_MASKED);
    rig.publish(&queue, Some(2));
    change(&mut rig, 3);
    let (first, second) = (request(&mut rig), request(&mut rig));
    assert_eq!(event(&mut rig, first), Some(CdqEvent::TailPointer(queue.id)));
    assert_eq!(event(&mut rig, second), None, "the full event is masked");

    let (mut rig, queue) = logging(8, Quirks::HEAD_NOT_CHECKED);
    change(&mut rig, 3);
    assert_eq!(rig.set_head(&queue, 0, None).status(), Status::SUCCESS, "backwards");
    assert_eq!(rig.set_head(&queue, 8, None).status().code(), code(0, 0x02));
}
