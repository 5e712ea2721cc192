// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bring-up, an I/O queue pair, blocks written and read back, deletion, disable.

use core::cell::{Cell, RefCell};

use nvme_controller::{
    Controller, ControllerConfig, DataQueueSlot, Namespace, Subsystem, SubsystemConfig, SubsystemStorage,
};
use nvme_core::admin::AdminSlot;
use nvme_core::controller::Link;
use nvme_core::dma::{Direction, DmaArena, Pool};
use nvme_core::io::{Buffer, IoSlot};
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::{Command, Lba};

use crate::media::{Media, Polled};
use crate::sys::memory::Memory;
use crate::world::{Capacity, Check, Failed, MANAGER, NAMESPACE, Registers, World};

const MEDIA: usize = 64 * 1024;
const TRANSFER: usize = 3 * 4096;

/// Failures are numbered from 1.
pub fn work() -> Result<(), Failed> {
    let memory = Memory::new(0).check(1)?;
    let mut media = [0; MEDIA];
    let mut capacity = Capacity::new();
    let mut controllers = [Controller::new(ControllerConfig::managing(MANAGER), &memory, capacity.lend())];
    let mut namespaces = [Namespace::new(NAMESPACE, Media::new(&mut media), [0; 16])];
    let storage = SubsystemStorage {
        controllers: &mut controllers,
        namespaces: &mut namespaces,
        data_queues: &mut [DataQueueSlot::new(); 1],
        scratch: &mut [0; 4096],
    };
    let device = Subsystem::new(SubsystemConfig::default(), storage, Polled).check(2)?;
    let devices = [RefCell::new(device)];
    let world = World { devices: &devices, clock: Cell::new(0) };
    let [device] = world.devices else { return Err(Failed(3)) };
    let registers = Registers::new(device, MANAGER).check(3)?;
    let link = Link::new();

    let mut slots = [const { AdminSlot::new() }; 8];
    let mut ready = world.bring_up(4, &registers, &memory, &link, &mut slots)?;
    let mut io_slots = [const { IoSlot::<()>::new() }; 4];
    let mut pair = world.create_pair(5, &mut ready, &mut io_slots)?;

    let region = memory.allocate(Pool::Data, TRANSFER, 4096, Direction::Bidirectional).check(6)?;
    let mut pattern = [0_u8; TRANSFER];
    for (index, byte) in pattern.iter_mut().enumerate() {
        *byte = (index / 7) as u8;
    }
    region.write(0, &pattern).check(7)?;
    let blocks = (TRANSFER / 512) as u32;
    let write = Write::new(NAMESPACE, Lba::new(5), blocks).encode();
    let read = Read::new(NAMESPACE, Lba::new(5), blocks).encode();
    let back = world.transfer(8, &mut pair, &write, Some(Buffer::whole(region)))?.check(8)?;
    back.region().zero(0..TRANSFER).check(9)?;
    let region = world.transfer(10, &mut pair, &read, Some(back))?.check(10)?.into_region();
    let mut found = [0_u8; TRANSFER];
    region.read(0, &mut found).check(11)?;
    (found == pattern).check(12)?;

    world.delete_pair(13, &mut ready, pair)?;
    world.bring_down(14, ready, |proof| nvme_core::dma::release(&memory, region, proof))?;
    (memory.live() == 0).check(15)
}
