// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands beside reads and writes: features, the health log, copy, deallocate, zeroes.

use nvme_core::admin::AdminRequest;
use nvme_core::dma::{Direction, DmaArena, Pool};
use nvme_core::io::Buffer;
use nvme_core::wire::admin::{FeatureSelect, GetFeatures, GetLogPage};
use nvme_core::wire::feature::{FeatureId, NumberOfQueues, VolatileWriteCache};
use nvme_core::wire::log::{LogPageId, SmartHealthInformation, SmartHealthInformationData};
use nvme_core::wire::nvm::{Copy, DatasetManagement, Flush, Read, WriteZeroes};
use nvme_core::wire::nvm_data::{CopySource, CopySourceData, DatasetRange, DatasetRangeData};
use nvme_core::wire::{Command, Lba, NamespaceId, Status, SubmissionQueueEntry};
use nvme_host_linux::memory::AddressSpace;
use zerocopy::{FromBytes, IntoBytes};

use super::drive::{COMMAND_BYTES, Controller, PAIRS, Pair, TIMEOUT, Waiter, admin, byte, debug, text};

/// Where a namespace has bytes that nothing else writes.
const SPARE: u64 = 4 << 20;
const HEALTH_BYTES: usize = 512;

/// Reads and sets features, and reads the health log.
pub(crate) fn check_admin(
    controller: &mut Controller<'_, '_>,
    arena: &AddressSpace,
    waiter: &Waiter,
) -> Result<(), String> {
    let feature = |controller: &mut Controller<'_, '_>, id| {
        let command = GetFeatures::new(id, FeatureSelect::Current);
        let request = AdminRequest::without_data(&command, TIMEOUT);
        admin(controller, "Get Features", request, &mut [], waiter).map(|entry| entry.dw0())
    };
    let queues = NumberOfQueues::from_dword(feature(controller, FeatureId::NUMBER_OF_QUEUES)?);
    let queues = queues.map_err(debug)?;
    if queues.submission < PAIRS || queues.completion < PAIRS {
        return Err(format!("Number of Queues is {queues:?}"));
    }
    for enabled in [false, true] {
        let command = VolatileWriteCache { enabled }.to_set_features();
        let request = AdminRequest::without_data(&command, TIMEOUT);
        admin(controller, "Set Features", request, &mut [], waiter)?;
        let found = feature(controller, FeatureId::VOLATILE_WRITE_CACHE)?;
        if VolatileWriteCache::from_dword(found) != (VolatileWriteCache { enabled }) {
            return Err(format!("Volatile Write Cache is {found:#x} where {enabled} was set"));
        }
    }
    let command = GetLogPage {
        namespace: NamespaceId::ALL,
        ..GetLogPage::new(LogPageId::SMART_HEALTH_INFORMATION, HEALTH_BYTES as u64 / 4)
    };
    let request = AdminRequest::receiving(&command, arena, HEALTH_BYTES, TIMEOUT).map_err(debug)?;
    let mut bytes = [0; HEALTH_BYTES];
    admin(controller, "Get Log Page", request, &mut bytes, waiter)?;
    let data = SmartHealthInformationData::read_from_bytes(&bytes).map_err(debug)?;
    let health = SmartHealthInformation::from(&data);
    println!(
        "{queues:?}; health: {} reads, {} writes, warnings {:?}",
        health.host_reads, health.host_writes, health.critical_warning
    );
    if health.host_writes == 0 {
        return Err("the health log knows of no write".to_owned());
    }
    Ok(())
}

/// Runs one command, with `bytes` of data to the device, or with room for as many from it; returns those.
fn run(
    pair: &mut Pair<'_, '_>,
    arena: &AddressSpace,
    (what, entry): (&str, &SubmissionQueueEntry),
    (direction, bytes): (Direction, &[u8]),
    waiter: &Waiter,
) -> Result<Vec<u8>, String> {
    let buffer = if bytes.is_empty() {
        None
    } else {
        let region = arena.allocate(Pool::Data, bytes.len(), 4096, direction).map_err(debug)?;
        region.write(0, bytes).map_err(debug)?;
        Some(Buffer::whole(region))
    };
    pair.submit(entry, buffer, 0, None).map_err(|rejected| format!("{what}: {:?}", rejected.error))?;
    pair.ring().map_err(text)?;
    let begin = waiter.now();
    loop {
        if let Some(completed) = pair.poll().map_err(text)? {
            pair.acknowledge().map_err(text)?;
            let mut found = vec![0; bytes.len()];
            if let Some(buffer) = &completed.buffer {
                buffer.region().read(0, &mut found).map_err(debug)?;
            }
            let (entry, _) = completed.release(arena);
            return match entry.status() {
                Status::SUCCESS => Ok(found),
                status => Err(format!("{what} ended with {status}")),
            };
        }
        if waiter.is_over(begin) {
            return Err(format!("{what} has no end"));
        }
        waiter.nap(pair.id().get())?;
    }
}

/// Copies blocks, deallocates and zeroes them, in a part of the namespace that nothing else writes.
pub(crate) fn check_io(
    pair: &mut Pair<'_, '_>,
    arena: &AddressSpace,
    (number, block_bytes): (u32, u32),
    waiter: &Waiter,
) -> Result<(), String> {
    let namespace = NamespaceId::new(number);
    let blocks = COMMAND_BYTES as u32 / block_bytes;
    let spare = |index: u32| Lba::new(SPARE / u64::from(block_bytes) + u64::from(index * blocks));
    let none = (Direction::ToDevice, [].as_slice());
    let room = vec![0; COMMAND_BYTES];
    // What the first queue pair wrote by its second and first command, in this order.
    let sources = [1_u32, 0]
        .map(|index| CopySourceData::from(CopySource::new(Lba::new(u64::from(index * blocks)), blocks)));
    let command = Copy::new(namespace, spare(0), 2).encode();
    run(pair, arena, ("Copy", &command), (Direction::ToDevice, sources.as_bytes()), waiter)?;
    let read = |pair: &mut Pair<'_, '_>, index| {
        let command = Read::new(namespace, spare(index), blocks).encode();
        run(pair, arena, ("Read", &command), (Direction::FromDevice, &room), waiter)
    };
    for (index, source) in [(0, 1), (1, 0)] {
        let expected: Vec<u8> = (0..COMMAND_BYTES).map(|at| byte(number, 0, source, at)).collect();
        if read(pair, index)? != expected {
            return Err(format!("part {index} of the copy in namespace {number} is not its source"));
        }
    }
    let command = WriteZeroes { deallocate: true, ..WriteZeroes::new(namespace, spare(1), blocks) }.encode();
    run(pair, arena, ("Write Zeroes", &command), none, waiter)?;
    if read(pair, 1)?.iter().any(|byte| *byte != 0) {
        return Err(format!("blocks of namespace {number} are not zero"));
    }
    let range = [DatasetRangeData::from(DatasetRange { attributes: 0, blocks, start: spare(0) })];
    let command = DatasetManagement {
        namespace,
        ranges: 1,
        deallocate: true,
        integral_write: false,
        integral_read: false,
    };
    let command = command.encode();
    run(pair, arena, ("Dataset Management", &command), (Direction::ToDevice, range.as_bytes()), waiter)?;
    // Deallocated blocks keep what they held, or are all alike.
    let found = read(pair, 0)?;
    let kept = found.iter().enumerate().all(|(at, found)| *found == byte(number, 0, 1, at));
    if !kept && found.iter().any(|byte| *byte != found[0] || !matches!(byte, 0 | 0xFF)) {
        return Err(format!("deallocated blocks of namespace {number} hold something else"));
    }
    let state = if kept { "as before" } else { "all alike" };
    run(pair, arena, ("Flush", &Flush { namespace }.encode()), none, waiter)?;
    println!("namespace {number}: copied, zeroed, deallocated (read {state}), flushed");
    Ok(())
}
