// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client learns of a region, and the doorbells it maps.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{SealFlags, fcntl_add_seals, fstat};

use super::connection::{Connection, Expected};
use super::error::Error;
use super::wire::{
    CapabilityHeader, Command, REGION_CAPS, REGION_MMAP, RegionInfo, SPARSE_MMAP, SparseArea, SparseMmap,
};
use crate::endpoint::DOORBELLS;
use crate::memory::PAGE;
use crate::sys::Mapping;

/// Bytes of a region's information with all its capabilities, at most.
const MOST_INFORMATION: usize = 4096;
/// Capabilities of a region, at most.
const MOST_CAPABILITIES: usize = 16;

/// A region as the server describes it.
#[derive(Debug)]
pub(crate) struct RegionDescription {
    pub(crate) info: RegionInfo,
    /// What can be mapped, each area inside the region and made of whole pages.
    pub(crate) areas: Vec<SparseArea>,
    /// Behind the areas.
    pub(crate) file: Option<OwnedFd>,
}

/// Asks for region `index`.
pub(crate) fn describe(connection: &mut Connection, index: u32) -> Result<RegionDescription, Error> {
    let command = Command::DEVICE_GET_REGION_INFO;
    let asked = RegionInfo { argsz: MOST_INFORMATION as u32, index, ..RegionInfo::default() };
    let expected = Expected { least: RegionInfo::LEN, most: MOST_INFORMATION, descriptors: true };
    let reply = connection.request(command, &asked.bytes(), &[], expected)?;
    let info = RegionInfo::parse(&reply.body).ok_or(Error::Closed)?;
    if info.index != index {
        return Err(connection.wrong(command, "index", index, info.index));
    }
    if info.argsz as usize > MOST_INFORMATION {
        return Err(connection.wrong(command, "argsz", MOST_INFORMATION as u64, info.argsz));
    }
    // Whoever says that there is something to map sends what to map, and nobody else does.
    let wanted = usize::from(info.flags & REGION_MMAP != 0);
    let found = reply.descriptors.len();
    if found != wanted {
        return Err(connection.give_up(Error::Descriptors { command, expected: wanted, found }));
    }
    let mut areas = Vec::new();
    if info.flags & REGION_MMAP != 0 {
        areas = match info.flags & REGION_CAPS {
            0 => None,
            _ => sparse_areas(connection, &info, &reply.body)?,
        }
        // Without a list of areas all of it can be mapped.
        .unwrap_or_else(|| vec![SparseArea { offset: 0, size: info.size }]);
        for area in &areas {
            let inside = area.offset.checked_add(area.size).is_some_and(|end| end <= info.size);
            let pages = (area.offset | area.size).is_multiple_of(PAGE as u64);
            if !inside || !pages || area.size == 0 {
                let error = Error::Area { offset: area.offset, size: area.size, region: info.size };
                return Err(connection.give_up(error));
            }
        }
    }
    Ok(RegionDescription { info, areas, file: reply.descriptors.into_iter().next() })
}

/// The areas that can be mapped, if the capabilities list them.
fn sparse_areas(
    connection: &mut Connection,
    info: &RegionInfo,
    body: &[u8],
) -> Result<Option<Vec<SparseArea>>, Error> {
    let command = Command::DEVICE_GET_REGION_INFO;
    let mut next = info.cap_offset as usize;
    for _ in 0..MOST_CAPABILITIES {
        if next == 0 {
            return Ok(None);
        }
        let rest = body.get(next..).filter(|_| next >= RegionInfo::LEN).unwrap_or_default();
        let Some(header) = CapabilityHeader::parse(rest) else {
            return Err(connection.wrong(command, "capability offset", RegionInfo::LEN as u64, next as u64));
        };
        if header.id == SPARSE_MMAP {
            let rest = rest.get(CapabilityHeader::LEN..).unwrap_or_default();
            let count = SparseMmap::parse(rest).map_or(0, |list| list.areas as usize);
            let list = rest.get(SparseMmap::LEN..).unwrap_or_default();
            let areas: Vec<SparseArea> =
                list.chunks_exact(SparseArea::LEN).filter_map(SparseArea::parse).take(count).collect();
            if areas.len() != count {
                return Err(connection.wrong(command, "number of areas", areas.len() as u64, count as u64));
            }
            return Ok(Some(areas));
        }
        next = header.next as usize;
    }
    Err(connection.wrong(command, "number of capabilities", MOST_CAPABILITIES as u64, u64::MAX))
}

/// Doorbells in memory that is shared with the server.
///
/// The file behind them is checked to be long enough, and its size is sealed if the server's file can be sealed (a
/// memfd). What remains: a server whose file cannot be sealed and who makes it shorter later ends this process with
/// SIGBUS at the next doorbell. Whoever does not trust a server that far turns
/// [`map_doorbells`](super::ConnectOptions::map_doorbells) off.
#[derive(Debug)]
pub(crate) struct Doorbells {
    mapping: Mapping,
    /// Offset in the register space of the first byte mapped.
    start: u32,
    /// Doorbells mapped.
    range: Range<u32>,
}

impl Doorbells {
    /// Maps the area in which the first doorbells lie, if there is one.
    pub(crate) fn map(
        info: &RegionInfo,
        areas: &[SparseArea],
        file: &OwnedFd,
    ) -> Result<Option<Self>, Error> {
        let first = u64::from(DOORBELLS);
        let holds = |area: &&SparseArea| area.offset <= first && first < area.offset + area.size;
        let Some(area) = areas.iter().find(holds) else { return Ok(None) };
        let (Ok(start), Ok(end), Ok(len)) =
            (u32::try_from(area.offset), u32::try_from(area.offset + area.size), usize::try_from(area.size))
        else {
            return Err(Error::Area { offset: area.offset, size: area.size, region: info.size });
        };
        let offset = info.offset.checked_add(area.offset).filter(|at| at.is_multiple_of(PAGE as u64));
        let needed = offset.and_then(|offset| offset.checked_add(area.size));
        let (Some(offset), Some(needed)) = (offset, needed) else {
            return Err(Error::Device("its doorbells cannot be mapped from there", info.offset));
        };
        // A file that cannot be sealed is used as it is, see above.
        let _sealed = fcntl_add_seals(file, SealFlags::SHRINK);
        let status = fstat(file).map_err(|error| Error::system("looking at the doorbells' file", error))?;
        let found = u64::try_from(status.st_size).unwrap_or(0);
        if found < needed {
            return Err(Error::FileTooSmall { needed, found });
        }
        let mapping = Mapping::new(file.as_fd(), offset, len, true)
            .map_err(|error| Error::System("mapping the doorbells", error.raw_os_error().unwrap_or(0)))?;
        Ok(Some(Self { mapping, start, range: DOORBELLS..end }))
    }

    /// Writes the doorbell at `offset`, after everything written before; `false` if it is not mapped.
    #[inline]
    pub(crate) fn ring(&self, offset: u32, value: u32) -> bool {
        if !self.range.contains(&offset) || !offset.is_multiple_of(4) {
            return false;
        }
        self.mapping.write_dword_release((offset - self.start) as usize, value.to_le_bytes());
        true
    }
}
