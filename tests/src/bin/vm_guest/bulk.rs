// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole namespace, written and read: by `nvme-lm` through VFIO, and through the kernel's block device.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use nvme_host_linux::address::PciAddress;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::Failure;
use super::drive::text;
use super::tools::nvme_lm;

/// Bytes read and written at once.
const PIECE: usize = 1 << 20;
/// Blocks of the namespace: 256 MiB of 512 bytes.
pub(crate) const BLOCKS: u64 = 1 << 19;

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

/// Has `nvme-lm` write or read all blocks of namespace 1 by four queue pairs through VFIO. Returns their SHA-256.
pub(crate) fn by_vfio(function: PciAddress, job: Job) -> Result<String, Failure> {
    let (address, blocks) = (format!("vfio:{function}"), BLOCKS.to_string());
    let ends = ["--lba", "0", "--blocks", &blocks, "--queues", "4", "--depth", "8", "--sha256", "--json"];
    let out = match job {
        Job::Write(seed) => {
            let seed = seed.to_string();
            let source = ["--pattern", "random", "--seed", &seed, "--yes"];
            nvme_lm(&[&["write", &address], ends.as_slice(), &source].concat())?
        }
        Job::Read => nvme_lm(&[&["read", &address], ends.as_slice()].concat())?,
    };
    let out = out.succeeded("nvme-lm")?;
    let json: serde_json::Value = serde_json::from_slice(&out).map_err(text)?;
    println!("{json}");
    let sum = json.get("sha256").and_then(serde_json::Value::as_str).ok_or("no SHA-256 is printed")?;
    Ok(sum.to_owned())
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
    let mut room = vec![0; PIECE + 4096];
    let start = room.as_ptr().align_offset(4096);
    let piece = room.get_mut(start..start + PIECE).ok_or("no aligned memory")?;
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
    if bytes != size_of(&file)? || bytes != BLOCKS * 512 {
        return Err(format!("{bytes} bytes of {}; {BLOCKS} blocks of 512 are needed", size_of(&file)?));
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
