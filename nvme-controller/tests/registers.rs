// SPDX-License-Identifier: MIT OR Apache-2.0
//! Properties: access rules, the enable and shutdown state machine, interrupts and keep alive.

mod harness;

use harness::{GUEST, MANAGER, NSID, Options, Rig, code, id_of};
use nvme_controller::{ConfigError, MisalignedAccess, SubsystemConfig};
use nvme_core::register::Offset;
use nvme_core::wire::admin::{FeatureSelect, GetFeatures, KeepAlive, SetFeatures};
use nvme_core::wire::feature::FeatureId;
use nvme_core::wire::nvm::WriteZeroes;
use nvme_core::wire::register::Capabilities;
use nvme_core::wire::{Command, Lba, Status};

#[test]
fn capabilities_say_what_was_configured() {
    let mut rig = Rig::new();
    let low = rig.read32(GUEST, 0);
    let high = rig.read32(GUEST, 4);
    let whole = rig.subsystem.read64(rig.ports[GUEST], Offset::new(0)).unwrap();
    assert_eq!(whole, u64::from(low) | (u64::from(high) << 32));
    let capabilities = Capabilities::from_bits(whole);
    assert_eq!(capabilities.max_queue_entries(), 1024);
    assert_eq!(capabilities.doorbell_stride(), 4);
    assert_eq!((capabilities.min_page_size(), capabilities.max_page_size()), (4096, 65_536));
    assert_eq!(rig.read32(GUEST, 8), 0x0002_0100);
    assert_ne!(rig.read32(GUEST, 0x68) & 0xFFFF, 0, "CRTO");
    rig.write32(GUEST, 0, 0);
    assert_eq!(rig.read32(GUEST, 0), low, "read-only");
}

#[test]
fn access_rules() {
    let mut rig = Rig::new();
    let port = rig.ports[GUEST];
    for (offset, width) in [(1, 4), (2, 4), (0x1002, 4), (4, 8), (0x2C, 8)] {
        let offset = Offset::new(offset);
        let expected = MisalignedAccess { offset, width };
        if width == 4 {
            assert_eq!(rig.subsystem.read32(port, offset), Err(expected));
            assert_eq!(rig.subsystem.write32(port, offset, 1), Err(expected));
        } else {
            assert_eq!(rig.subsystem.read64(port, offset), Err(expected));
            assert_eq!(rig.subsystem.write64(port, offset, 1), Err(expected));
        }
    }
    for offset in [0x18, 0x38, 0x3C, 0xE14, 0xFFC, 0x1000, 0x1004, 0xFFFF_FFF0] {
        assert_eq!(rig.read32(GUEST, offset), 0, "offset {offset:#x}");
        rig.write32(GUEST, offset, 1);
    }
    rig.write32(GUEST, 0x0C, 0b0110);
    rig.write32(GUEST, 0x10, 0b0010);
    assert_eq!((rig.read32(GUEST, 0x0C), rig.read32(GUEST, 0x10)), (0b0100, 0b0100), "set and clear");
    rig.write64(GUEST, 0x28, 0x1_2345_6FFF);
    assert_eq!(
        (rig.read32(GUEST, 0x28), rig.read32(GUEST, 0x2C)),
        (0x2345_6000, 1),
        "reserved bits read as zero"
    );
    rig.enable(GUEST);
    let before = rig.read32(GUEST, 0x28);
    rig.write32(GUEST, 0x28, 0x5000);
    rig.write32(GUEST, 0x24, 0);
    assert_eq!(rig.read32(GUEST, 0x28), before, "fixed while enabled");
    assert_eq!(rig.read32(GUEST, 0x24), 0x000F_000F);
    rig.write32(GUEST, 0x14, 0x0046_0081);
    assert_eq!(rig.read32(GUEST, 0x14), 0x0046_0001, "so is CC.MPS");
}

#[test]
fn a_configuration_that_cannot_be_is_fatal_until_a_reset() {
    let small = SubsystemConfig { max_page_shift: 12, ..Options::default().subsystem };
    for (name, queues, submission, completion, configuration) in [
        ("page size too large", 0x000F_000F, 0x10_0000, 0x20_0000, 0x0046_0081),
        ("command set unknown", 0x000F_000F, 0x10_0000, 0x20_0000, 0x0046_0011),
        ("arbitration unknown", 0x000F_000F, 0x10_0000, 0x20_0000, 0x0046_0801),
        ("admin submission queue of one entry", 0x000F_0000, 0x10_0000, 0x20_0000, 0x0046_0001),
        ("admin completion queue of one entry", 0x0000_000F, 0x10_0000, 0x20_0000, 0x0046_0001),
    ] {
        let mut rig = Rig::with(Options { subsystem: small, ..Options::default() });
        rig.write32(GUEST, 0x24, queues);
        rig.write64(GUEST, 0x28, submission);
        rig.write64(GUEST, 0x30, completion);
        rig.write32(GUEST, 0x14, configuration);
        assert_eq!(rig.read32(GUEST, 0x1C), 2, "{name}: fatal and not ready");
        rig.run();
        rig.write32(GUEST, 0x14, 0);
        assert_eq!(rig.read32(GUEST, 0x1C), 0, "{name}: gone after a reset");
        rig.enable(GUEST);
    }
    let mut rig = Rig::new();
    rig.write32(GUEST, 0x24, 0x000F_000F);
    rig.write64(GUEST, 0x28, 0x10_1000);
    rig.write64(GUEST, 0x30, 0x20_0000);
    rig.write32(GUEST, 0x14, 0x0046_0081);
    assert_eq!(rig.read32(GUEST, 0x1C), 2, "a queue base that is not aligned to the page size in use");
}

#[test]
fn memory_that_vanishes_under_a_queue_is_fatal() {
    for name in ["submission", "completion"] {
        let mut rig = Rig::new();
        rig.enable(GUEST);
        let pair = rig.pairs[GUEST][&0].clone();
        rig.place(GUEST, 0, KeepAlive.encode());
        let base = if name == "submission" { pair.submission } else { pair.completion };
        rig.memories[GUEST].unmap(base, 4096);
        rig.ring(GUEST, 0);
        rig.run();
        assert_eq!(rig.read32(GUEST, 0x1C), 3, "{name} queue");
        rig.write32(GUEST, 0x14, 0);
        rig.enable(GUEST);
        assert_eq!(rig.admin(GUEST, &KeepAlive).status().code(), code(0, 0x01), "works again");
    }
}

#[test]
fn shutdown_finishes_what_was_fetched_and_flushes() {
    for (name, notification, flushed) in [("normal", 1_u32, 1), ("abrupt", 2, 0)] {
        let mut rig = Rig::new();
        rig.enable(GUEST);
        rig.create_pair(GUEST, 1, 16);
        let fetched = rig.submit(GUEST, 1, WriteZeroes::new(NSID, Lba::new(0), 1).encode());
        rig.subsystem.fetch(8);
        rig.write32(GUEST, 0x14, 0x0046_0001 | (notification << 14));
        assert_eq!(rig.read32(GUEST, 0x1C) >> 2 & 3, 1, "{name}: in progress");
        let late = rig.submit(GUEST, 1, WriteZeroes::new(NSID, Lba::new(1), 1).encode());
        rig.run();
        assert_eq!(rig.read32(GUEST, 0x1C) >> 2 & 3, 2, "{name}: complete");
        assert_eq!(rig.flushes[0].get(), flushed, "{name}");
        assert!(rig.take(GUEST, 1, fetched).is_some());
        assert_eq!(rig.take(GUEST, 1, late), None, "{name}: nothing is fetched any more");
        rig.write32(GUEST, 0x14, 0x0046_0000 | (notification << 14));
        rig.write32(GUEST, 0x14, 0);
        assert_eq!(rig.read32(GUEST, 0x1C), 0);
        rig.enable(GUEST);
        rig.create_pair(GUEST, 1, 16);
    }
}

#[test]
fn interrupts_once_for_each_batch_and_only_while_enabled_and_unmasked() {
    let mut rig = Rig::new();
    rig.enable(GUEST);
    rig.create_pair_with(GUEST, 1, 16, Some(3));
    rig.create_pair_with(GUEST, 2, 16, None);
    let lines = rig.lines.0.clone();
    let seen = move || std::mem::take(&mut *lines.borrow_mut());
    seen();
    let zero = |lba| WriteZeroes::new(NSID, Lba::new(lba), 1).encode();
    for lba in 0..4 {
        rig.place(GUEST, 1, zero(lba));
        rig.place(GUEST, 2, zero(lba));
    }
    rig.ring(GUEST, 1);
    rig.ring(GUEST, 2);
    rig.subsystem.poll(64);
    assert_eq!(seen(), [(id_of(GUEST), 3)], "one for the batch, none for the queue without interrupts");
    rig.collect(GUEST, 1);
    rig.collect(GUEST, 2);
    rig.run();
    assert_eq!(seen(), []);

    rig.write32(GUEST, 0x0C, 1 << 3);
    rig.submit(GUEST, 1, zero(0));
    rig.run();
    assert_eq!(seen(), [], "masked");
    rig.write32(GUEST, 0x10, 1 << 3);
    assert_eq!(seen(), [(id_of(GUEST), 3)], "unmasked with completions waiting");
    rig.write32(GUEST, 0x0C, 1 << 3);
    rig.submit(GUEST, 1, zero(1));
    rig.run();
    rig.collect(GUEST, 1);
    rig.write32(GUEST, 0x10, 1 << 3);
    assert_eq!(seen(), [], "consumed meanwhile");
}

#[test]
fn keep_alive_fires_only_when_it_is_not_kept() {
    let subsystem = SubsystemConfig { keep_alive_granularity: 1, ..Options::default().subsystem };
    let mut rig = Rig::with(Options { subsystem, ..Options::default() });
    rig.enable(GUEST);
    let set = SetFeatures::new(FeatureId::KEEP_ALIVE_TIMER, 500);
    rig.admin_ok(GUEST, &set);
    assert_eq!(
        rig.admin_ok(GUEST, &GetFeatures::new(FeatureId::KEEP_ALIVE_TIMER, FeatureSelect::Current)),
        500
    );
    rig.subsystem.advance(400_000);
    assert_eq!(rig.admin(GUEST, &KeepAlive).status(), Status::SUCCESS);
    rig.subsystem.advance(800_000);
    assert_eq!(rig.read32(GUEST, 0x1C), 1);
    rig.subsystem.advance(900_000);
    assert_eq!(rig.read32(GUEST, 0x1C), 3, "fatal");

    let mut rig = Rig::new();
    rig.enable(GUEST);
    assert_eq!(rig.admin(GUEST, &set).status().code(), code(0, 0x02), "no timer, no feature");
    assert_eq!(rig.admin(GUEST, &KeepAlive).status().code(), code(0, 0x01), "nor the command");
}

#[test]
fn configurations_are_checked() {
    type Change = fn(&mut Options);
    let check = |change: Change| {
        let mut options = Options::default();
        change(&mut options);
        Rig::try_with(options).err()
    };
    let rows: [(&str, Change, ConfigError); 10] = [
        ("queue entries", |o| o.subsystem.max_queue_entries = 1, ConfigError::QueueEntries(1)),
        ("page sizes", |o| o.subsystem.min_page_shift = 11, ConfigError::PageSizes { min: 11, max: 16 }),
        ("abort limit", |o| o.subsystem.abort_limit = 0, ConfigError::AbortLimit(0)),
        (
            "serial number",
            |o| o.subsystem.serial_number = "123456789012345678901",
            ConfigError::Text("serial number"),
        ),
        ("model number", |o| o.subsystem.model_number = "ä", ConfigError::Text("model number")),
        ("scratch", |o| o.scratch = 4095, ConfigError::Scratch { bytes: 4095, needed: 4096 }),
        (
            "namespaces",
            |o| o.namespaces = vec![2, 2],
            ConfigError::NamespaceId(nvme_core::wire::NamespaceId::new(2)),
        ),
        (
            "namespace 0",
            |o| o.namespaces = vec![0],
            ConfigError::NamespaceId(nvme_core::wire::NamespaceId::new(0)),
        ),
        ("one queue", |o| o.queues = 1, ConfigError::TooFewSlots(id_of(MANAGER))),
        ("block size", |o| o.block_shift = 8, ConfigError::BlockSize(NSID)),
    ];
    for (name, change, expected) in rows {
        let error = check(change);
        assert_eq!(error, Some(expected), "{name}");
        assert!(!expected.to_string().is_empty());
    }
    assert_eq!(check(|_| {}), None);
}
