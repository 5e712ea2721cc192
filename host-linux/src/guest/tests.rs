// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest on one embedded controller, without a migration.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use nvme_core::dma::Pool;
use nvme_core::wire::ControllerId;

use super::*;
use crate::embedded::{
    ControllerRole, ControllerSetup, EmbeddedController, EmbeddedSubsystem, NAMESPACE, SubsystemSetup,
};
use crate::endpoint::Endpoint;
use crate::images;
use crate::memory::{AddressSpace, Capacity, PoolUsage};
use crate::storage::FileStorage;
use crate::sync::{RunToken, Signal};

const SIZE: u64 = 8 << 20;
const SEED: u64 = 99;

struct Bench {
    subsystem: EmbeddedSubsystem,
    file: Arc<File>,
    memory: Arc<AddressSpace>,
    token: Arc<RunToken>,
    guest: Guest,
}

fn bench(block_size: u32, queue_depth: u16, io_queues: u16, log: Option<std::path::PathBuf>) -> Bench {
    bench_of(block_size, queue_depth, io_queues, log, false)
}

fn bench_of(
    block_size: u32,
    queue_depth: u16,
    io_queues: u16,
    log: Option<std::path::PathBuf>,
    held: bool,
) -> Bench {
    let file = FileStorage::memory("test", SIZE).expect("memory");
    images::fill(&file, SIZE, block_size, SEED, &mut |_| true).expect("fill");
    let capacity = Capacity { queues: 16 << 20, data: 16 << 20, controller_data: 1 << 20 };
    let memory = Arc::new(AddressSpace::new("guest", capacity).expect("address space"));
    let interrupts = Arc::<Signal>::default();
    let id = ControllerId::new(3);
    let subsystem = EmbeddedSubsystem::start(SubsystemSetup {
        name: "guest-test".into(),
        serial_number: "G".into(),
        namespace: Arc::clone(&file),
        block_size,
        unique_id: [1; 16],
        faults: Arc::default(),
        quirks: nvme_controller::Quirks::empty(),
        controllers: vec![ControllerSetup {
            id,
            role: ControllerRole::Migratable,
            io_queues,
            memory: Arc::clone(&memory),
            interrupts: Arc::clone(&interrupts),
        }],
    })
    .expect("subsystem");
    let registers = || subsystem.controller(id).expect("controller");
    let token = Arc::<RunToken>::default();
    let blocks = SIZE / u64::from(block_size);
    let guest = Guest::start(GuestSetup::<EmbeddedController> {
        endpoint: Arc::new(Endpoint::new(registers(), registers())),
        memory: Arc::clone(&memory),
        interrupts,
        token: Arc::clone(&token),
        wiring: Wiring { namespace: NAMESPACE, vectors: None },
        io_queues,
        queue_depth,
        io_timeout: Duration::from_secs(60),
        admin_timeout: Duration::from_secs(60),
        workload: WorkloadOptions {
            block_size,
            blocks,
            blocks_per_command: 16384 / u64::from(block_size),
            initial: InitialContent::Generated,
            seed: SEED,
            pattern: Pattern::Random,
            read_percent: 50,
            extents: vec![WriteExtent { start: 0, blocks, content: WriteContent::Generated }],
            write_rate: None,
            writes: None,
        },
        log,
        held,
    })
    .expect("guest");
    Bench { subsystem, file, memory, token, guest }
}

impl Bench {
    /// Waits until the guest has completed so many commands more, however long the machine takes.
    fn works(&self, commands: u64) {
        let enough = self.guest.commands() + commands;
        while self.guest.commands() < enough && !self.guest.has_failed() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn the_guest_verifies_everything_and_leaves_no_memory_behind() {
    for (block_size, depth, queues) in [(512, 64, 2), (4096, 64, 2), (4096, 1, 1), (512, 200, 3)] {
        let name = format!("{block_size} bytes, depth {depth}, {queues} queues");
        let bench = bench(block_size, depth, queues, None);
        // Of 64 commands in which reads and writes take turns by a seed some write.
        bench.works(64);
        let verified = bench.guest.verify().expect("guest works");
        bench.token.pause();
        let before = bench.guest.commands();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(bench.guest.commands(), before, "{name}: completions seen while stopped");
        bench.token.resume();
        bench.works(64);
        let (report, ledger) = bench.guest.finish().expect("no error");
        assert!(verified > 0 && report.verified_after >= verified, "{name}: {report:?}");
        assert_eq!(report.verified_before, verified, "{name}");
        assert!(report.commands_before > 0 && report.commands_after > 0, "{name}: {report:?}");
        assert!(report.in_flight <= u64::from(depth) * u64::from(queues), "{name}: {report:?}");
        assert!(report.admin > 0, "{name}: {report:?}");
        assert_eq!(ledger.written().len() as u64, report.verified_after, "{name}");
        for pool in [Pool::Queues, Pool::Data, Pool::ControllerData] {
            assert_eq!(bench.memory.usage(pool), PoolUsage::default(), "{name}: {pool:?}");
        }
        bench.subsystem.stop();
    }
}

#[test]
fn a_guest_that_is_held_does_nothing_before_it_begins() {
    let held = || bench_of(4096, 16, 1, None, true);
    for begins in [false, true] {
        let bench = held();
        assert_eq!(bench.guest.commands(), 0);
        if begins {
            bench.guest.begin();
            bench.works(64);
        }
        let (report, ledger) = bench.guest.finish().expect("no error");
        assert_eq!((report.writes > 0, !ledger.written().is_empty()), (begins, begins), "{report:?}");
        bench.subsystem.stop();
    }
    let bench = held();
    let report = bench.guest.halt(&bench.token);
    assert_eq!((report.writes, report.error), (0, Some(GuestError::Halted.to_string())));
    bench.subsystem.stop();
    // Nobody is left to begin it, so that its thread ends, too.
    drop(held());
}

#[test]
fn a_block_that_changes_by_itself_is_found() {
    let bench = bench(4096, 16, 1, None);
    bench.works(64);
    for block in 0..SIZE / 4096 {
        bench.file.write_all_at(&[0xEE; 8], block * 4096 + 2048).expect("spoil");
    }
    let error = bench.guest.finish().expect_err("spoilt blocks must be found");
    assert!(matches!(error, GuestError::Mismatch(Mismatch { found: None, .. })), "{error}");
}

#[test]
fn a_subsystem_that_stops_is_an_error_and_no_hang() {
    let bench = bench(4096, 16, 1, None);
    bench.subsystem.stop();
    let error = bench.guest.finish().expect_err("nothing can complete");
    assert!(matches!(error, GuestError::Driver(_)), "{error}");
}

#[test]
fn every_acknowledged_write_is_in_the_log_and_on_the_image() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("log");
    let bench = bench(512, 32, 2, Some(path.clone()));
    bench.works(64);
    let (report, ledger) = bench.guest.finish().expect("no error");
    let acknowledged = log::read(&path).expect("log");
    assert!(!acknowledged.is_empty());
    assert_eq!(acknowledged.len() as u64, report.verified_after);
    for (lba, version) in &acknowledged {
        assert_eq!(u64::from(ledger.acknowledged(nvme_core::wire::Lba::new(*lba))), *version);
    }
    assert_eq!(log::missing(&bench.file, &acknowledged, 512, SEED).expect("check"), Vec::<u64>::new());
}
