// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole namespace, written and read: by four queue pairs through VFIO, and through the kernel's block device.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nvme_core::dma::{Direction, DmaArena, DmaRegion, Pool};
use nvme_core::io::Buffer;
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::{Command, Lba, NamespaceId, Status};
use nvme_host_linux::session::Session;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::Failure;
use super::drive::{PAIRS, debug, text};

/// Bytes of one command.
const PIECE: usize = 128 << 10;
/// Commands outstanding in each queue pair.
const DEPTH: usize = 8;
/// Commands outstanding at once.
pub(crate) const AT_ONCE: usize = PAIRS as usize * DEPTH;
/// Nothing is this slow: the time for what is outstanding at once.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where data come from, or go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    /// Written, as this seed makes them.
    Write(u64),
    /// Read.
    Read,
}

/// Says how fast it went, and returns the sum as text.
fn finish(what: &str, bytes: u64, begin: Instant, sum: Sha256) -> String {
    let sum: String = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{what}: {bytes} bytes in {} ms, SHA-256 {sum}", begin.elapsed().as_millis());
    sum
}

/// All bytes that a seed makes, piece by piece.
fn source(seed: u64) -> impl FnMut(&mut [u8]) {
    let mut random = fastrand::Rng::with_seed(seed);
    move |piece| random.fill(piece)
}

/// Writes or reads all blocks of namespace 1 through VFIO. Returns their SHA-256.
pub(crate) fn by_vfio(session: &mut Session<'_>, job: Job) -> Result<String, Failure> {
    let begin = Instant::now();
    let namespace = NamespaceId::new(1);
    let identity = session.namespace(namespace).map_err(text)?.ok_or("there is no namespace 1")?;
    let (size, block) = (u64::try_from(identity.bytes()).map_err(text)?, identity.block_bytes());
    if size % (PIECE * AT_ONCE) as u64 != 0 || session.max_transfer() < PIECE {
        return Err(format!("{size} bytes, {} in a command at most", session.max_transfer()));
    }
    if session.make_pairs(PAIRS).map_err(text)? != PAIRS {
        return Err(format!("fewer queue pairs than {PAIRS}"));
    }
    let arena = session.space();
    let region = || arena.allocate_scattered(Pool::Data, PIECE, Direction::Bidirectional).map_err(debug);
    let mut regions = (0..AT_ONCE).map(|_| region().map(Some)).collect::<Result<Vec<_>, _>>()?;
    let mut sum = Sha256::new();
    let mut fill = source(if let Job::Write(seed) = job { seed } else { 0 });
    let mut piece = vec![0; PIECE];
    for first in (0..size).step_by(PIECE * AT_ONCE) {
        for (index, region) in regions.iter_mut().enumerate() {
            let region = region.take().ok_or("a buffer is missing")?;
            let start = Lba::new((first + (index * PIECE) as u64) / u64::from(block));
            let blocks = PIECE as u32 / block;
            let command = if let Job::Write(_) = job {
                fill(&mut piece);
                sum.update(&piece);
                region.write(0, &piece).map_err(debug)?;
                arena.publish(&region, 0..PIECE);
                Write::new(namespace, start, blocks).encode()
            } else {
                Read::new(namespace, start, blocks).encode()
            };
            let pair = session.pairs().get_mut(index % usize::from(PAIRS)).ok_or("a pair is missing")?;
            pair.submit(&command, Some(Buffer::whole(region)), index as u64, None)
                .map_err(|rejected| format!("a command is not submitted: {:?}", rejected.error))?;
        }
        for pair in session.pairs() {
            pair.ring().map_err(text)?;
        }
        collect(session, &mut regions)?;
        if job == Job::Read {
            for region in regions.iter().flatten() {
                arena.acquire(region, 0..PIECE);
                region.read(0, &mut piece).map_err(debug)?;
                sum.update(&piece);
            }
        }
    }
    for region in regions.into_iter().flatten() {
        nvme_core::dma::give_back(arena, region);
    }
    Ok(finish(&format!("{job:?} through VFIO"), size, begin, sum))
}

/// Waits until every command is completed, and puts each buffer back in its place.
fn collect(session: &mut Session<'_>, regions: &mut [Option<DmaRegion>]) -> Result<(), Failure> {
    let begin = Instant::now();
    while regions.iter().any(Option::is_none) {
        let now = session.now();
        session.controller().poll(now).map_err(text)?;
        let mut any = false;
        for pair in session.pairs() {
            while let Some(completed) = pair.poll().map_err(text)? {
                if completed.entry.status() != Status::SUCCESS {
                    return Err(format!("command {} ended with {}", completed.tag, completed.entry.status()));
                }
                let buffer = completed.buffer.ok_or("a buffer is missing")?;
                let place = regions.get_mut(completed.tag as usize).ok_or("a tag is unknown")?;
                *place = Some(buffer.into_region());
                any = true;
            }
            pair.acknowledge().map_err(text)?;
        }
        if begin.elapsed() > PATIENCE {
            return Err("commands have no end".to_owned());
        }
        if !any {
            session.nap();
        }
    }
    Ok(())
}

/// Writes or reads all of a block device, past the kernel's cache. Returns its SHA-256.
pub(crate) fn by_kernel(device: &Path, job: Job) -> Result<String, Failure> {
    let begin = Instant::now();
    let flags = (OFlags::DIRECT | OFlags::EXCL).bits() as i32;
    let mut file = OpenOptions::new()
        .read(job == Job::Read)
        .write(job != Job::Read)
        .custom_flags(flags)
        .open(device)
        .map_err(|error| format!("{}: {error}", device.display()))?;
    // Past the cache a buffer has to be aligned like a block.
    let mut room = vec![0; (8 * PIECE) + 4096];
    let start = room.as_ptr().align_offset(4096);
    let piece = room.get_mut(start..start + 8 * PIECE).ok_or("no aligned memory")?;
    let mut sum = Sha256::new();
    let mut bytes = 0;
    match job {
        Job::Write(seed) => {
            let mut fill = source(seed);
            for _ in 0..size_of(&file)? / piece.len() as u64 {
                fill(piece);
                sum.update(&piece);
                file.write_all(piece).map_err(text)?;
                bytes += piece.len() as u64;
            }
            file.sync_all().map_err(text)?;
        }
        Job::Read => loop {
            let count = file.read(piece).map_err(text)?;
            if count == 0 {
                break;
            }
            sum.update(piece.get(..count).unwrap_or_default());
            bytes += count as u64;
        },
    }
    if bytes != size_of(&file)? {
        return Err(format!("{bytes} bytes of {}", size_of(&file)?));
    }
    Ok(finish(&format!("{job:?} through {}", device.display()), bytes, begin, sum))
}

fn size_of(device: &File) -> Result<u64, Failure> {
    use std::io::{Seek, SeekFrom};
    let mut device = device.try_clone().map_err(text)?;
    let position = device.stream_position().map_err(text)?;
    let size = device.seek(SeekFrom::End(0)).map_err(text)?;
    device.seek(SeekFrom::Start(position)).map_err(text)?;
    Ok(size)
}
