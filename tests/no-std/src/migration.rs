// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest's controller moved from one subsystem to another while the guest writes: first given up on the way and
//! rolled back, then carried out. The guest goes on with the queues it has.

use core::cell::{Cell, RefCell};
use core::hint::black_box;

use nvme_controller::{
    Controller, ControllerConfig, DataQueueSlot, Namespace, Subsystem, SubsystemConfig, SubsystemStorage,
};
use nvme_core::admin::AdminSlot;
use nvme_core::controller::{Link, Ready};
use nvme_core::dirty::{DirtyMap, DirtySet, Granularity};
use nvme_core::dma::{Direction, DmaArena, Pool};
use nvme_core::io::{Buffer, IoQueuePair, IoSlot};
use nvme_core::migration::{
    DataMover, DestinationOptions, Extent, ExtentKind, MigrationOptions, MigrationStep, Migrator,
    MoverProgress, Outcome, Platform, Ports, Quirks, Round, Timeouts,
};
use nvme_core::register::RegisterIo;
use nvme_core::time::{Instant, Step};
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::{Command, ControllerId, Lba};

use crate::media::{Media, Polled};
use crate::queue;
use crate::sys::memory::Memory;
use crate::world::{Capacity, Check, Device, Failed, GUEST, MANAGER, NAMESPACE, Registers, World};

const BLOCK: usize = 512;
const BLOCKS: usize = 256;
const MEDIA: usize = BLOCKS * BLOCK;

/// A block that could not be moved.
#[derive(Clone, Copy, Debug)]
struct NoSuchBlock;

/// Copies from one medium to the other, one extent at a time.
struct Mover<'m> {
    media: [&'m [Cell<u8>]; 2],
    accepted: Option<Extent>,
    progress: MoverProgress,
}

impl Mover<'_> {
    fn copy(&self, extent: Extent) -> Option<()> {
        let [source, destination] = self.media;
        let start = usize::try_from(extent.start.get()).ok()?.checked_mul(BLOCK)?;
        let len = usize::try_from(extent.blocks).ok()?.checked_mul(BLOCK)?;
        let range = start..start.checked_add(len)?;
        for (from, to) in source.get(range.clone())?.iter().zip(destination.get(range)?) {
            to.set(if extent.kind == ExtentKind::Copy { from.get() } else { 0 });
        }
        Some(())
    }
}

impl DataMover for Mover<'_> {
    type Error = NoSuchBlock;

    fn start(&mut self, extent: Extent) -> Result<bool, NoSuchBlock> {
        if self.accepted.is_some() || extent.namespace != NAMESPACE {
            return if self.accepted.is_some() { Ok(false) } else { Err(NoSuchBlock) };
        }
        self.accepted = Some(extent);
        Ok(true)
    }

    fn poll(&mut self, _now: Instant) -> Result<MoverProgress, NoSuchBlock> {
        if let Some(extent) = self.accepted.take() {
            self.copy(extent).ok_or(NoSuchBlock)?;
            self.progress.blocks = self.progress.blocks.saturating_add(extent.blocks);
            self.progress.bytes = self.progress.blocks.saturating_mul(BLOCK as u64);
        }
        Ok(self.progress)
    }

    fn flush(&mut self, _now: Instant) -> Result<bool, NoSuchBlock> {
        Ok(true)
    }

    fn cancel(&mut self, _now: Instant) -> bool {
        self.accepted = None;
        true
    }
}

/// Moves the guest's endpoint.
struct Switch<'p, 'c, 's> {
    guest: &'p Registers<'c, 's>,
    destination: &'c RefCell<Device<'s>>,
}

/// The endpoint could not be moved.
#[derive(Clone, Copy, Debug)]
struct NoEndpoint;

impl Platform for Switch<'_, '_, '_> {
    type Error = NoEndpoint;

    fn source_suspended(&mut self, _source: ControllerId) -> Result<(), NoEndpoint> {
        Ok(())
    }

    /// Both sides have the vendor-specific format, so nobody asks.
    fn restore_properties(&mut self, _destination: ControllerId) -> Result<(), NoEndpoint> {
        Err(NoEndpoint)
    }

    fn before_resume(&mut self, _destination: ControllerId) -> Result<(), NoEndpoint> {
        Ok(())
    }

    fn destination_resumed(&mut self, destination: ControllerId) -> Result<(), NoEndpoint> {
        self.guest.switch(self.destination, destination).ok_or(NoEndpoint)
    }

    fn source_resumed(&mut self, _source: ControllerId) -> Result<(), NoEndpoint> {
        Ok(())
    }
}

/// What a migration works with.
struct Parts<'w, 'm, R: RegisterIo + 'm> {
    media: [&'m [Cell<u8>]; 2],
    managers: [Ready<'m, 'm, R, Memory>; 2],
    guest: IoQueuePair<'m, 'm, R, Memory, ()>,
    buffer: Option<Buffer>,
    written: u64,
    world: &'w World<'w, 'm>,
}

impl<R: RegisterIo> Parts<'_, '_, R> {
    /// The guest writes a block, each time another one and other data.
    fn write(&mut self, number: u8) -> Result<(), Failed> {
        self.written = self.written.wrapping_add(1);
        let buffer = self.buffer.take().check(number)?;
        buffer.region().write(0, &[self.written as u8; BLOCK]).check(number)?;
        let lba = Lba::new(self.written.wrapping_mul(11) % BLOCKS as u64);
        let entry = Write::new(NAMESPACE, lba, 1).encode();
        self.buffer = self.world.transfer(number, &mut self.guest, &entry, Some(buffer))?;
        Ok(())
    }

    /// Migrates, or gives up once `cancel` is passed. `true` if the guest has moved.
    fn migrate(
        &mut self,
        number: u8,
        platform: &mut Switch<'_, '_, '_>,
        cancel: Option<MigrationStep>,
    ) -> Result<bool, Failed> {
        let mut words = [0; BLOCKS.div_ceil(64)];
        let mut maps =
            [DirtyMap::new(NAMESPACE, black_box(BLOCKS as u64), black_box(Granularity::BLOCK), &mut words)
                .check(number)?];
        let dirty = DirtySet::new(&mut maps).check(number)?;
        let mut rounds = [Round::default(); 32];
        let mut image = [0; 4096];
        let to = DestinationOptions {
            controller: GUEST,
            limits: None,
            quirks: Quirks::empty(),
            timeouts: Timeouts::default(),
        };
        let mut from = MigrationOptions::new(GUEST);
        from.queue.entries = 64;
        from.extent_blocks = 16;
        let (from, to) = black_box((from, to));
        let mut mover = Mover { media: self.media, accepted: None, progress: MoverProgress::default() };
        let mut migrator = Migrator::new(from, to, dirty, &mut rounds, &mut image);
        for _ in 0..100_000 {
            if migrator.step() == MigrationStep::BaselineCopy {
                self.write(number)?;
            }
            if cancel.is_some_and(|step| migrator.step() > step) {
                let _ = migrator.cancel();
            }
            let now = self.world.tick();
            let [source, destination] = &mut self.managers;
            source.poll(now).check(number)?;
            destination.poll(now).check(number)?;
            let ports = Ports { source: source.admin(), destination: destination.admin() };
            if migrator.poll(now, ports, &mut mover, platform) == Step::Done {
                return match migrator.outcome() {
                    Some(Outcome::Completed { platform: true, clean_up: None }) => Ok(true),
                    Some(Outcome::RolledBack { platform: true, .. }) => Ok(false),
                    _ => Err(Failed(number)),
                };
            }
        }
        Err(Failed(number))
    }
}

/// Failures are numbered from 60, those of the queue's life apart.
pub fn work() -> Result<(), Failed> {
    let memories = [Memory::new(0).check(60)?, Memory::new(1).check(60)?, Memory::new(2).check(60)?];
    let [source_memory, destination_memory, guest_memory] = &memories;
    let mut media = [[0; MEDIA]; 2];
    let [source_media, destination_media] = &mut media;
    let disks = [Media::new(source_media), Media::new(destination_media)];
    let [source_disk, destination_disk] = disks;
    let mut capacities = [Capacity::new(), Capacity::new(), Capacity::new(), Capacity::new()];
    let [source_manager, source_guest, destination_manager, destination_guest] = &mut capacities;
    let mut source = [
        Controller::new(ControllerConfig::managing(MANAGER), source_memory, source_manager.lend()),
        Controller::new(ControllerConfig::migratable(GUEST), guest_memory, source_guest.lend()),
    ];
    let mut destination = [
        Controller::new(ControllerConfig::managing(MANAGER), destination_memory, destination_manager.lend()),
        Controller::new(ControllerConfig::migratable(GUEST), guest_memory, destination_guest.lend()),
    ];
    let mut source_namespaces = [Namespace::new(NAMESPACE, source_disk, [7; 16])];
    let mut destination_namespaces = [Namespace::new(NAMESPACE, destination_disk, [7; 16])];
    let (mut source_queues, mut destination_queues) = ([DataQueueSlot::new(); 1], [DataQueueSlot::new(); 1]);
    let (mut source_scratch, mut destination_scratch) = ([0; 4096], [0; 4096]);
    let source = SubsystemStorage {
        controllers: &mut source,
        namespaces: &mut source_namespaces,
        data_queues: &mut source_queues,
        scratch: &mut source_scratch,
    };
    let destination = SubsystemStorage {
        controllers: &mut destination,
        namespaces: &mut destination_namespaces,
        data_queues: &mut destination_queues,
        scratch: &mut destination_scratch,
    };
    let devices = [
        RefCell::new(Subsystem::new(black_box(SubsystemConfig::default()), source, Polled).check(61)?),
        RefCell::new(Subsystem::new(black_box(SubsystemConfig::default()), destination, Polled).check(61)?),
    ];
    let [source, destination] = &devices;
    let world = World { devices: &devices, clock: Cell::new(0) };

    let registers = [
        Registers::new(source, MANAGER).check(62)?,
        Registers::new(destination, MANAGER).check(62)?,
        Registers::new(source, GUEST).check(62)?,
    ];
    let [source_registers, destination_registers, guest_registers] = &registers;
    let links = [Link::new(), Link::new(), Link::new()];
    let [source_link, destination_link, guest_link] = &links;
    let mut slots = [const { [const { AdminSlot::new() }; 16] }; 3];
    let [source_slots, destination_slots, guest_slots] = &mut slots;
    let mut managers = [
        world.bring_up(63, source_registers, source_memory, source_link, source_slots)?,
        world.bring_up(64, destination_registers, destination_memory, destination_link, destination_slots)?,
    ];
    let mut guest = world.bring_up(65, guest_registers, guest_memory, guest_link, guest_slots)?;
    let mut io_slots = [const { IoSlot::<()>::new() }; 4];
    let mut pair = world.create_pair(66, &mut guest, &mut io_slots)?;
    let [manager, _] = &mut managers;
    queue::work(&world, manager, &mut pair)?;

    let region = guest_memory.allocate(Pool::Data, BLOCK, 4096, Direction::Bidirectional).check(67)?;
    let buffer = Some(Buffer::whole(region));
    let media = [source_disk.cells(), destination_disk.cells()];
    let mut parts = Parts { media, managers, guest: pair, buffer, written: 0, world: &world };
    let mut platform = Switch { guest: guest_registers, destination };
    for step in [MigrationStep::BaselineCopy, MigrationStep::SuspendSource] {
        (!parts.migrate(70, &mut platform, Some(step))?).check(71)?;
        parts.write(72)?;
    }
    parts.migrate(73, &mut platform, None)?.check(74)?;
    media_agree(&media).check(75)?;
    let lba = Lba::new(parts.written.wrapping_mul(11) % BLOCKS as u64);
    let expected = parts.written as u8;
    parts.write(76)?;
    (!media_agree(&media)).check(77)?;

    let read = Read::new(NAMESPACE, lba, 1).encode();
    let back = world.transfer(78, &mut parts.guest, &read, parts.buffer.take())?.check(78)?;
    let mut found = [0; BLOCK];
    back.region().read(0, &mut found).check(79)?;
    (found == [expected; BLOCK]).check(80)?;
    let Parts { managers, guest: pair, .. } = parts;
    world.delete_pair(81, &mut guest, pair)?;
    let region = back.into_region();
    world.bring_down(82, guest, |proof| nvme_core::dma::release(guest_memory, region, proof))?;
    for manager in managers {
        world.bring_down(83, manager, |_| {})?;
    }
    memories.iter().all(|memory| memory.live() == 0).check(84)
}

fn media_agree(media: &[&[Cell<u8>]; 2]) -> bool {
    let [source, destination] = media;
    source.iter().zip(destination.iter()).all(|(one, other)| one.get() == other.get())
}
