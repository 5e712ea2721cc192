// SPDX-License-Identifier: MIT OR Apache-2.0
//! Resets and shutdowns by the driver, with I/O in flight: every command ends once, and the controller comes back.

use std::collections::BTreeSet;
use std::time::Duration;

use nvme_core::controller::Shutdown;
use nvme_core::io::Buffer;
use nvme_core::register::Offset;
use nvme_core::time::Step;
use nvme_core::wire::nvm::Write;
use nvme_core::wire::{Command, Lba, Status};

use super::{Host, Known, Pair, io_slots, on_host, pair_options, slots};
use crate::conformance::backend::{Backend, Registers, Work};

const DEPTH: u64 = 16;

/// Sends a write of 4 KiB to each of [`DEPTH`] places, tagged with its place.
fn fill<'d>(host: &Host<'d, Registers>, pair: &mut Pair<'d, '_, Registers>, known: &Known, seed: u64) {
    let blocks = known.small();
    for place in 0..DEPTH {
        let data = known.pattern(blocks, seed + place);
        let region = host.memory(data.len());
        region.write(0, &data).expect("inside the region");
        let write = Write::new(known.namespace, Lba::new(place * u64::from(blocks)), blocks).encode();
        host.put(pair, &write, Some(Buffer::whole(region)), place);
    }
    pair.ring().expect("the controller works");
}

type Progress = fn(&Host<'_, Registers>);

/// How far the controller gets before something happens to it.
const PROGRESS: [(&str, Progress); 4] = [
    ("not begun", |_| {}),
    ("taken", |host| _ = host.device.work(Work::Take)),
    ("partly done", |host| (0..5).for_each(|_| _ = host.device.work(Work::Little))),
    ("done", |host| host.work()),
];

pub(crate) fn a_reset_with_io_in_flight_ends_every_command_once(backend: &dyn Backend) {
    for resets in [1, 2, 3] {
        for (name, progress) in PROGRESS {
            on_host(backend, |host| {
                let mut admin_slots = slots(16);
                let (mut controller, known) = host.up(&mut admin_slots);
                let mut queue_slots = io_slots(DEPTH as usize);
                let options = pair_options(1, 32, 64 << 10);
                let mut pair = host.create(&mut controller, &options, &mut queue_slots);
                let blocks = known.small();
                for place in 0..DEPTH {
                    host.write(&mut pair, &known, place * u64::from(blocks), &known.pattern(blocks, 1));
                }
                fill(host, &mut pair, &known, 100);
                progress(host);
                let mut ended = BTreeSet::new();
                let mut completed = BTreeSet::new();
                // Half of what is there is taken before the reset.
                for _ in 0..DEPTH / 2 {
                    if let Some(done) = pair.poll().expect("the controller works") {
                        assert!(ended.insert(done.tag) && completed.insert(done.tag), "{name}");
                        assert_eq!(done.release(host.arena).0.status(), Status::SUCCESS, "{name}");
                    }
                }
                let mut disabled = host.disable(controller.disable());
                for _ in 1..resets {
                    // Another reset right behind it, which finds the controller disabled already.
                    host.registers.write32(Offset::new(0x14), 0).expect("CC");
                    host.work();
                }
                while disabled.take_unfinished().is_some() {}
                {
                    let proof = disabled.quiesced();
                    while let Some(lost) = pair.drain(&proof) {
                        assert!(ended.insert(lost.tag), "{name}: {} ends twice", lost.tag);
                    }
                    assert_eq!(ended.len() as u64, DEPTH, "{name}: every command ends");
                    assert!(pair.retire(&proof).is_ok(), "{name}: its memory comes back");
                }
                disabled.retire();
                // The controller comes back, and every place holds the old or the new data, wholly.
                let mut admin_slots = slots(16);
                let mut controller = host.enable(disabled, &mut admin_slots);
                let known = host.learn(&mut controller);
                let mut queue_slots = io_slots(4);
                let mut pair = host.create(&mut controller, &options, &mut queue_slots);
                for place in 0..DEPTH {
                    let found = host.read(&mut pair, &known, place * u64::from(blocks), blocks);
                    let new = found == known.pattern(blocks, 100 + place);
                    assert!(new || found == known.pattern(blocks, 1), "{name}: place {place}");
                    assert!(new || !completed.contains(&place), "{name}: place {place} was completed");
                }
                host.delete(&mut controller, pair);
                host.disable(controller.disable()).detach();
            });
        }
    }
}

pub(crate) fn a_reset_by_somebody_else_during_a_reset_is_survived(backend: &dyn Backend) {
    for polls in 0..4 {
        on_host(backend, |host| {
            let mut admin_slots = slots(16);
            let (mut controller, known) = host.up(&mut admin_slots);
            let mut queue_slots = io_slots(DEPTH as usize);
            let mut pair = host.create(&mut controller, &pair_options(1, 32, 64 << 10), &mut queue_slots);
            fill(host, &mut pair, &known, 7);
            let mut disabling = controller.disable();
            for _ in 0..polls {
                if disabling.poll(host.now()).expect("it goes on") == Step::Done {
                    break;
                }
            }
            // EN is cleared under the driver's hands.
            host.registers.write32(Offset::new(0x14), 0).expect("CC");
            host.work();
            let disabled = host.disable(disabling);
            assert!(pair.retire(&disabled.quiesced()).is_ok());
            disabled.detach();
            let mut admin_slots = slots(16);
            let (controller, _) = host.up(&mut admin_slots);
            host.disable(controller.disable()).detach();
        });
    }
}

pub(crate) fn a_shutdown_keeps_what_was_completed(backend: &dyn Backend) {
    for how in [Shutdown::Normal, Shutdown::Abrupt] {
        for (name, progress) in PROGRESS {
            on_host(backend, |host| {
                let mut admin_slots = slots(16);
                let (mut controller, known) = host.up(&mut admin_slots);
                let mut queue_slots = io_slots(DEPTH as usize);
                let options = pair_options(1, 32, 64 << 10);
                let mut pair = host.create(&mut controller, &options, &mut queue_slots);
                let blocks = known.small();
                fill(host, &mut pair, &known, 50);
                progress(host);
                let mut completed = BTreeSet::new();
                while let Some(done) = pair.poll().expect("the controller works") {
                    assert_eq!(done.entry.status(), Status::SUCCESS);
                    completed.insert(done.tag);
                }
                let mut down = controller.shutdown(how, Duration::from_secs(30), host.now());
                host.run("shutdown", |now| down.poll(now));
                assert!(down.is_complete(), "{how:?}, {name}");
                let disabled = host.disable(down.disable());
                assert!(pair.retire(&disabled.quiesced()).is_ok());
                disabled.detach();
                let mut admin_slots = slots(16);
                let (mut controller, known) = host.up(&mut admin_slots);
                let mut queue_slots = io_slots(4);
                let mut pair = host.create(&mut controller, &options, &mut queue_slots);
                for place in &completed {
                    let found = host.read(&mut pair, &known, place * u64::from(blocks), blocks);
                    assert!(found == known.pattern(blocks, 50 + place), "{how:?}, {name}: place {place}");
                }
                host.delete(&mut controller, pair);
                host.disable(controller.disable()).detach();
            });
        }
    }
}
