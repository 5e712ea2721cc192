// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory of a client: what it has sent as descriptors, reached by checked copies.
//!
//! A client that takes its memory away at the wrong moment must not end the server. Memory is therefore mapped only if
//! its file cannot get shorter: a memfd whose size is sealed (`F_SEAL_SHRINK`), or can be sealed by the server, which
//! then does it. Everything else is refused, unless the server is told to trust its clients.
//!
//! What remains even so: a machine that has no memory left for a page of the client that was never written.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use nvme_controller::host::{HostMemory, MemoryFault};
use nvme_core::wire::BusAddr;
use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs};
use rustix::io::Errno;

use super::super::wire::{DMA_READ, DMA_WRITE, DmaMap, DmaUnmap, UNMAP_ALL};
use crate::memory::PAGE;
use crate::sys::Mapping;

/// Memory that is not of huge pages (`TMPFS_MAGIC`): its holes are filled when they are touched.
const TMPFS: i64 = 0x0102_1994;

/// What a client may map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Regions at once.
    pub regions: usize,
    /// Bytes of one region.
    pub region_bytes: u64,
    /// Whether files that cannot be kept from getting shorter are mapped, too. A client that makes one shorter ends the
    /// server.
    pub trust_files: bool,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self { regions: 64, region_bytes: 1 << 44, trust_files: false }
    }
}

#[derive(Debug)]
struct Region {
    address: u64,
    len: u64,
    readable: bool,
    writable: bool,
    /// None if the client sent no descriptor: no access is possible then.
    mapping: Option<Mapping>,
}

impl Region {
    const fn end(&self) -> u64 {
        self.address + self.len
    }
}

#[derive(Debug, Default)]
struct Shared {
    /// By address, without overlaps.
    regions: RwLock<Vec<Region>>,
    bus_master: AtomicBool,
}

/// The memory that one controller reaches: that of whoever is connected. Clones are the same memory.
#[derive(Clone, Debug, Default)]
pub struct ClientMemory(Arc<Shared>);

impl ClientMemory {
    /// Memory with nothing mapped.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn regions(&self) -> RwLockReadGuard<'_, Vec<Region>> {
        self.0.regions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn regions_mut(&self) -> RwLockWriteGuard<'_, Vec<Region>> {
        self.0.regions.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the controller reach memory, or not.
    pub(super) fn set_bus_master(&self, enabled: bool) {
        self.0.bus_master.store(enabled, Ordering::Release);
    }

    /// Takes a region in.
    pub(super) fn map(
        &self,
        map: &DmaMap,
        file: Option<&OwnedFd>,
        limits: &MemoryLimits,
    ) -> Result<(), Errno> {
        let page = PAGE as u64;
        let readable = map.flags & DMA_READ != 0;
        let writable = map.flags & DMA_WRITE != 0;
        if map.flags & !(DMA_READ | DMA_WRITE) != 0 || !(readable || writable) {
            return Err(Errno::INVAL);
        }
        if map.size == 0 || !(map.address | map.size | map.offset).is_multiple_of(page) {
            return Err(Errno::INVAL);
        }
        let end = map.address.checked_add(map.size).ok_or(Errno::INVAL)?;
        if map.size > limits.region_bytes {
            return Err(Errno::FBIG);
        }
        // Only one thread maps, so that what is found now holds below.
        {
            let regions = self.regions();
            if regions.iter().any(|region| map.address < region.end() && region.address < end) {
                return Err(Errno::EXIST);
            }
            if regions.len() >= limits.regions {
                return Err(Errno::NOSPC);
            }
        }
        let mapping = match file {
            Some(file) => Some(map_file(file, map, writable, limits)?),
            None => None,
        };
        let region = Region { address: map.address, len: map.size, readable, writable, mapping };
        let mut regions = self.regions_mut();
        let at = regions.partition_point(|other| other.address < region.address);
        regions.insert(at, region);
        Ok(())
    }

    /// Takes a region out, or all. No access to it is under way afterwards.
    pub(super) fn unmap(&self, unmap: &DmaUnmap) -> Result<(), Errno> {
        if unmap.flags == UNMAP_ALL {
            if unmap.address != 0 || unmap.size != 0 {
                return Err(Errno::INVAL);
            }
            self.clear();
            return Ok(());
        }
        if unmap.flags != 0 {
            return Err(Errno::INVAL);
        }
        let mut regions = self.regions_mut();
        match regions.binary_search_by_key(&unmap.address, |region| region.address) {
            Ok(at) if regions.get(at).is_some_and(|region| region.len == unmap.size) => {
                regions.remove(at);
                Ok(())
            }
            _ => Err(Errno::NOENT),
        }
    }

    /// Takes everything out.
    pub(super) fn clear(&self) {
        self.regions_mut().clear();
    }

    /// Calls `access` with each part of the range that lies in one region, after all of it was found to be there.
    fn for_each_part(
        &self,
        address: BusAddr,
        len: usize,
        allowed: impl Fn(&Region) -> bool,
        mut access: impl FnMut(&Mapping, usize, Range<usize>),
    ) -> Result<(), MemoryFault> {
        let fault = MemoryFault { address, len };
        if !self.0.bus_master.load(Ordering::Acquire) {
            return Err(fault);
        }
        let regions = self.regions();
        let start = address.get();
        let end = start.checked_add(len as u64).ok_or(fault)?;
        let first = regions.partition_point(|region| region.end() <= start);
        let mut covered = start;
        for region in regions.iter().skip(first) {
            if covered >= end || region.address > covered || !allowed(region) || region.mapping.is_none() {
                break;
            }
            covered = region.end();
        }
        if covered < end {
            return Err(fault);
        }
        let mut at = start;
        for region in regions.iter().skip(first) {
            let Some(mapping) = region.mapping.as_ref().filter(|_| at < end) else { break };
            let stop = region.end().min(end);
            // Both fit: the mapping is as long as the region, the range as long as the caller's bytes.
            access(mapping, (at - region.address) as usize, (at - start) as usize..(stop - start) as usize);
            at = stop;
        }
        Ok(())
    }
}

/// Maps what `map` names of `file`, if that cannot get shorter.
fn map_file(file: &OwnedFd, map: &DmaMap, writable: bool, limits: &MemoryLimits) -> Result<Mapping, Errno> {
    if !limits.trust_files {
        // Asked first: it takes no time whatever the descriptor is.
        let seals = fcntl_get_seals(file).map_err(|_| Errno::PERM)?;
        if !seals.contains(SealFlags::SHRINK) {
            fcntl_add_seals(file, SealFlags::SHRINK).map_err(|_| Errno::PERM)?;
        }
        #[allow(clippy::unnecessary_cast, reason = "the type differs from machine to machine")]
        let kind = fstatfs(file)?.f_type as i64;
        if kind != TMPFS {
            return Err(Errno::PERM);
        }
    }
    let len = u64::try_from(fstat(file)?.st_size).unwrap_or(0);
    let end = map.offset.checked_add(map.size).ok_or(Errno::INVAL)?;
    if end > len {
        return Err(Errno::INVAL);
    }
    let size = usize::try_from(map.size).map_err(|_| Errno::FBIG)?;
    let error = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::NOMEM);
    Mapping::new(file, map.offset, size, writable).map_err(error)
}

impl HostMemory for ClientMemory {
    fn read(&self, address: BusAddr, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let len = bytes.len();
        let copy = |mapping: &Mapping, at: usize, range: Range<usize>| mapping.read(at, &mut bytes[range]);
        self.for_each_part(address, len, |region| region.readable, copy)
    }

    fn write(&self, address: BusAddr, bytes: &[u8]) -> Result<(), MemoryFault> {
        let copy = |mapping: &Mapping, at: usize, range: Range<usize>| mapping.write(at, &bytes[range]);
        self.for_each_part(address, bytes.len(), |region| region.writable, copy)
    }

    fn write_entry(&self, address: BusAddr, entry: &[u8]) -> Result<(), MemoryFault> {
        let fault = MemoryFault { address, len: entry.len() };
        let (payload, last) = entry.split_last_chunk::<4>().ok_or(fault)?;
        if !address.get().is_multiple_of(4) || !payload.len().is_multiple_of(4) {
            return Err(fault);
        }
        // The whole entry must be there before any of it is written.
        self.for_each_part(address, entry.len(), |region| region.writable, |_, _, _| {})?;
        self.write(address, payload).map_err(|_| fault)?;
        let last_address = address.plus(payload.len() as u64);
        let store = |mapping: &Mapping, at: usize, _: Range<usize>| mapping.write_dword_release(at, *last);
        self.for_each_part(last_address, 4, |region| region.writable, store).map_err(|_| fault)
    }

    fn is_host_memory(&self, address: BusAddr, len: u64) -> bool {
        let start = address.get();
        let Some(end) = start.checked_add(len).filter(|end| *end > start) else { return false };
        let regions = self.regions();
        let mut covered = start;
        for region in regions.iter().skip(regions.partition_point(|region| region.end() <= start)) {
            if covered >= end || region.address > covered || region.mapping.is_none() {
                break;
            }
            covered = region.end();
        }
        covered >= end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    fn memfd(len: u64) -> OwnedFd {
        let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memfd");
        ftruncate(&file, len).expect("size");
        file
    }

    fn map(address: u64, size: u64, offset: u64, flags: u32) -> DmaMap {
        DmaMap { argsz: 32, flags, offset, address, size }
    }

    const LIMITS: MemoryLimits = MemoryLimits { regions: 3, region_bytes: 0x10_0000, trust_files: false };

    #[test]
    fn what_cannot_be_mapped_is_refused() {
        let sealed = memfd(0x10_0000);
        let end = 0u64.wrapping_sub(0x1000);
        let rows = [
            ("no rights", map(0x9000, 0x1000, 0, 0), Errno::INVAL),
            ("unknown rights", map(0x9000, 0x1000, 0, 7), Errno::INVAL),
            ("nothing", map(0x9000, 0, 0, 3), Errno::INVAL),
            ("odd address", map(0x9001, 0x1000, 0, 3), Errno::INVAL),
            ("odd size", map(0x9000, 0x1001, 0, 3), Errno::INVAL),
            ("odd offset", map(0x9000, 0x1000, 8, 3), Errno::INVAL),
            ("address over the end", map(end, 0x2000, 0, 3), Errno::INVAL),
            ("too large", map(0x10_0000, 0x11_0000, 0, 3), Errno::FBIG),
            ("offset over the end", map(0x9000, 0x1000, end, 3), Errno::INVAL),
            ("beyond the file", map(0x9000, 0x2000, 0xF_F000, 3), Errno::INVAL),
            ("the same", map(0x4000, 0x2000, 0, 3), Errno::EXIST),
            ("its end", map(0x5000, 0x1000, 0, 3), Errno::EXIST),
            ("around it", map(0x3000, 0x4000, 0, 3), Errno::EXIST),
        ];
        let memory = ClientMemory::new();
        assert_eq!(memory.map(&map(0x4000, 0x2000, 0, 3), Some(&sealed), &LIMITS), Ok(()));
        for (name, map, expected) in rows {
            assert_eq!(memory.map(&map, Some(&sealed), &LIMITS), Err(expected), "{name}");
        }
        assert_eq!(memory.map(&map(0x6000, 0x1000, 0, 3), Some(&sealed), &LIMITS), Ok(()), "behind it");
        assert_eq!(memory.map(&map(0x3000, 0x1000, 0, 3), Some(&sealed), &LIMITS), Ok(()), "before it");
        assert_eq!(memory.map(&map(0x9000, 0x1000, 0, 3), Some(&sealed), &LIMITS), Err(Errno::NOSPC));
    }

    #[test]
    fn files_that_can_get_shorter_are_not_mapped() {
        let fixed = memfd_create("test", MemfdFlags::CLOEXEC).expect("memfd");
        ftruncate(&fixed, 0x4000).expect("size");
        let regular: OwnedFd = tempfile::tempfile().expect("a file").into();
        ftruncate(&regular, 0x4000).expect("size");
        let (pipe, _end) = std::io::pipe().expect("a pipe");
        let pipe: OwnedFd = pipe.into();
        let trusting = MemoryLimits { trust_files: true, ..LIMITS };
        let rows = [
            ("a memfd that cannot be sealed", &fixed, Err(Errno::PERM), Ok(())),
            ("a file", &regular, Err(Errno::PERM), Ok(())),
            ("a pipe", &pipe, Err(Errno::PERM), Err(Errno::INVAL)),
        ];
        for (name, file, expected, trusted) in rows {
            let memory = ClientMemory::new();
            let map = map(0x4000, 0x2000, 0, 3);
            assert_eq!(memory.map(&map, Some(file), &LIMITS), expected, "{name}");
            assert_eq!(memory.map(&map, Some(file), &trusting), trusted, "{name}, trusted");
        }
        let sealable = memfd(0x4000);
        assert_eq!(ClientMemory::new().map(&map(0, 0x4000, 0, 3), Some(&sealable), &LIMITS), Ok(()));
        assert_eq!(ftruncate(&sealable, 0), Err(Errno::PERM), "it stays as long as it is");
    }

    #[test]
    fn accesses_are_whole_and_within_their_rights() {
        let memory = ClientMemory::new();
        let file = memfd(0x8000);
        // Two regions for both ways, then read-only, write-only, and one without descriptor.
        let rows =
            [(0x1000, 3, true), (0x2000, 3, true), (0x3000, 1, true), (0x4000, 2, true), (0x5000, 3, false)];
        let limits = MemoryLimits { regions: 8, ..LIMITS };
        for (address, flags, backed) in rows {
            let map = map(address, 0x1000, if backed { address } else { 0 }, flags);
            assert_eq!(memory.map(&map, backed.then_some(&file), &limits), Ok(()));
        }
        let read = |at, len| HostMemory::read(&memory, BusAddr::new(at), &mut vec![0; len]).is_ok();
        let write = |at, len| HostMemory::write(&memory, BusAddr::new(at), &vec![7; len]).is_ok();
        let entry = |at| memory.write_entry(BusAddr::new(at), &[9; 16]).is_ok();
        assert!(!read(0x1000, 1) && !write(0x1000, 1) && !entry(0x1000), "no bus master");
        memory.set_bus_master(true);
        let table: [(&str, u64, usize, bool, bool); 9] = [
            ("one region", 0x1000, 0x1000, true, true),
            ("over the border", 0x1FFF, 2, true, true),
            ("into read-only memory", 0x2FFF, 2, true, false),
            ("read-only and write-only", 0x3FFF, 2, false, false),
            ("write-only", 0x4000, 0x1000, false, true),
            ("without descriptor", 0x5000, 1, false, false),
            ("before everything", 0xFFF, 1, false, false),
            ("over the end of the address space", u64::MAX, 2, false, false),
            ("nothing", 0x9000, 0, true, true),
        ];
        for (name, at, len, readable, writable) in table {
            assert_eq!(read(at, len), readable, "{name}");
            assert_eq!(write(at, len), writable, "{name}");
        }
        assert!(entry(0x1FF8) && entry(0x4FF0), "over a border, at an end");
        HostMemory::write(&memory, BusAddr::new(0x2FF8), &[1; 4]).expect("mapped");
        assert!(!entry(0x2FF8) && !entry(0x1002) && !entry(0x4FF8), "read-only, odd, over the end");
        let mut found = [0; 4];
        HostMemory::read(&memory, BusAddr::new(0x2FF8), &mut found).expect("mapped");
        assert_eq!(found, [1; 4], "an entry that does not fit leaves nothing behind");
        let host = |at, len| memory.is_host_memory(BusAddr::new(at), len);
        assert!(host(0x1000, 0x4000) && host(0x4FFF, 1));
        assert!(!host(0x4FFF, 2) && !host(0x1000, 0) && !host(u64::MAX, 1) && !host(0, 0x1001));
    }

    #[test]
    fn regions_go_one_by_one_or_all() {
        let memory = ClientMemory::new();
        let file = memfd(0x8000);
        for address in [0x1000, 0x4000] {
            memory.map(&map(address, 0x2000, 0, 3), Some(&file), &LIMITS).expect("mapped");
        }
        let unmap = |flags, address, size| memory.unmap(&DmaUnmap { argsz: 24, flags, address, size });
        let rows = [
            ("not mapped", unmap(0, 0x3000, 0x1000), Err(Errno::NOENT)),
            ("a part", unmap(0, 0x1000, 0x1000), Err(Errno::NOENT)),
            ("its end", unmap(0, 0x2000, 0x1000), Err(Errno::NOENT)),
            ("with the dirty pages", unmap(1, 0x1000, 0x2000), Err(Errno::INVAL)),
            ("all, with a range", unmap(UNMAP_ALL, 0x1000, 0x2000), Err(Errno::INVAL)),
            ("as mapped", unmap(0, 0x1000, 0x2000), Ok(())),
            ("twice", unmap(0, 0x1000, 0x2000), Err(Errno::NOENT)),
            ("all", unmap(UNMAP_ALL, 0, 0), Ok(())),
            ("what went with all", unmap(0, 0x4000, 0x2000), Err(Errno::NOENT)),
        ];
        for (name, found, expected) in rows {
            assert_eq!(found, expected, "{name}");
        }
        assert!(memory.regions().is_empty());
    }
}
