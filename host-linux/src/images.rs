// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two namespaces as files, checked before anything is changed.

mod checks;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nvme_core::wire::Lba;

use crate::config::{MigrateConfig, Namespaces, SIZE_LIMITS};
use crate::guest::{WriteContent, WriteExtent, content, parse_extents};
use crate::journal::Journal;
use crate::storage::FileStorage;
pub(crate) use checks::plain;
use checks::{Written, check_distinct, check_journals, check_writable, lock_image};

/// Something asked for is not possible. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError(pub String);

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InputError {}

fn refuse<T>(what: String) -> Result<T, InputError> {
    Err(InputError(what))
}

/// What a run works on: both namespaces open, everything else looked at.
#[derive(Debug)]
pub struct Inputs {
    /// The source's namespace.
    pub source: Arc<File>,
    /// The destination's namespace.
    pub destination: Arc<File>,
    /// Bytes in each.
    pub size: u64,
    /// Blocks that the guest may write; the whole namespace if no list was given.
    pub extents: Vec<WriteExtent>,
    /// Where the journal goes, with the paths of both images.
    pub journal: Option<JournalPaths>,
}

/// Paths that a journal needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalPaths {
    /// The journal.
    pub journal: PathBuf,
    /// The source image.
    pub source: PathBuf,
    /// The destination image.
    pub destination: PathBuf,
}

/// Bytes of memory that the system could give without swapping, if it says so.
fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Opens an image for reading and writing, which changes nothing, and checks what it is.
pub(crate) fn open_image(role: &str, path: &Path, block_size: u32) -> Result<(File, u64), InputError> {
    let failed =
        |what: &str, error: &io::Error| InputError(format!("{role} image {path:?}{what}: {}", plain(error)));
    // Opening something else than a file may have effects of its own.
    if !fs::metadata(path).map_err(|error| failed("", &error))?.is_file() {
        return refuse(format!("{role} image {path:?} is not a regular file"));
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| failed(" is not writable", &error))?;
    let metadata = file.metadata().map_err(|error| failed("", &error))?;
    if !metadata.is_file() {
        return refuse(format!("{role} image {path:?} is not a regular file"));
    }
    // Root may write anything, so permissions are looked at as well as tried.
    if metadata.permissions().mode() & 0o222 == 0 {
        return refuse(format!(
            "{role} image {path:?} is not writable: its mode is {:04o}",
            metadata.permissions().mode() & 0o7777
        ));
    }
    let len = metadata.len();
    if !len.is_multiple_of(u64::from(block_size)) {
        return refuse(format!(
            "{role} image {path:?} has {len} bytes, which is not a multiple of the block size {block_size}"
        ));
    }
    if !SIZE_LIMITS.contains(&len) {
        return refuse(format!(
            "{role} image {path:?} has {len} bytes; it must have from {} to {}",
            SIZE_LIMITS.start(),
            SIZE_LIMITS.end()
        ));
    }
    Ok((file, len))
}

impl Inputs {
    /// Checks `config` as a whole and opens what it names. `expected_size` is the size asked for beside images.
    ///
    /// # Errors
    /// [`InputError`] naming the first thing that is wrong, its value and the limit; no file was changed.
    pub fn open(config: &MigrateConfig, expected_size: Option<u64>) -> Result<Self, InputError> {
        let block_size = config.block_size;
        if config.io_size < block_size || !config.io_size.is_multiple_of(block_size) {
            return refuse(format!(
                "I/O size {} is not a multiple of the block size {block_size}",
                config.io_size
            ));
        }
        if let Some(every) = config.head_every.filter(|every| *every >= config.cdq_entries) {
            return refuse(format!(
                "a head update every {every} entries: it must be fewer than the {} entries of the queue",
                config.cdq_entries
            ));
        }
        match &config.namespaces {
            Namespaces::Memory { size } => Self::memory(config, *size),
            Namespaces::Images { source, destination } => {
                Self::images(config, source, destination, expected_size)
            }
            Namespaces::Controllers(_) => {
                refuse("controllers have no images; use migrate::run_between".to_string())
            }
        }
    }

    /// Checks that what is going to be written can be, and that nothing is written over.
    pub(crate) fn check_files(
        config: &MigrateConfig,
        images: &[(&str, &Path)],
        journal: Option<&Path>,
    ) -> Result<(), InputError> {
        let outputs = [
            ("report", config.report.as_deref(), Written::InPlace),
            ("guest log", config.guest_log.as_deref(), Written::InPlace),
            ("journal", journal, Written::Replaced),
        ];
        let outputs = outputs.into_iter().filter_map(|(role, path, written)| Some((role, path?, written)));
        let mut files = images.to_vec();
        files.extend(config.write_extents.as_deref().map(|path| ("list of extents", path)));
        files.extend(outputs.clone().map(|(role, path, _)| (role, path)));
        check_distinct(&files)?;
        outputs.into_iter().try_for_each(|(role, path, written)| check_writable(role, path, written))
    }

    pub(crate) fn extents(config: &MigrateConfig, size: u64) -> Result<Vec<WriteExtent>, InputError> {
        let blocks = size / u64::from(config.block_size);
        let Some(path) = &config.write_extents else {
            return Ok(vec![WriteExtent { start: 0, blocks, content: WriteContent::Generated }]);
        };
        let text = fs::read_to_string(path)
            .or_else(|error| refuse(format!("list of extents {path:?}: {}", plain(&error))))?;
        parse_extents(&text, blocks).or_else(|error| refuse(format!("list of extents {path:?}: {error}")))
    }

    fn memory(config: &MigrateConfig, size: u64) -> Result<Self, InputError> {
        if !size.is_multiple_of(u64::from(config.block_size)) {
            return refuse(format!("size {size} is not a multiple of the block size {}", config.block_size));
        }
        if let Some(available) = available_memory().filter(|available| size.saturating_mul(2) > *available) {
            return refuse(format!(
                "size {size}: two namespaces of it in memory need {} bytes, {available} are available",
                size.saturating_mul(2)
            ));
        }
        Self::check_files(config, &[], None)?;
        let extents = Self::extents(config, size)?;
        let memory = |name| {
            FileStorage::memory(name, size)
                .or_else(|error| refuse(format!("size {size}: no memory: {}", plain(&error))))
        };
        let (source, destination) = (memory("nvme-lm source")?, memory("nvme-lm destination")?);
        Ok(Self { source, destination, size, extents, journal: None })
    }

    fn images(
        config: &MigrateConfig,
        source_path: &Path,
        destination_path: &Path,
        expected_size: Option<u64>,
    ) -> Result<Self, InputError> {
        let (source, size) = open_image("source", source_path, config.block_size)?;
        let (destination, destination_size) = open_image("destination", destination_path, config.block_size)?;
        let journal = config.journal.clone().unwrap_or_else(|| Journal::beside(destination_path));
        let images = [("source image", source_path), ("destination image", destination_path)];
        Self::check_files(config, &images, Some(&journal))?;
        if let Some(expected) = expected_size.filter(|expected| *expected != size) {
            return refuse(format!("size {expected}: source image {source_path:?} has {size} bytes"));
        }
        if destination_size != size {
            return refuse(format!(
                "destination image {destination_path:?} has {destination_size} bytes; it must have the {size} of the source"
            ));
        }
        let extents = Self::extents(config, size)?;
        lock_image("source", source_path, &source, config.force)?;
        lock_image("destination", destination_path, &destination, config.force)?;
        if !config.force {
            check_journals(&journal, source_path, destination_path)?;
        }
        Ok(Self {
            source: Arc::new(source),
            destination: Arc::new(destination),
            size,
            extents,
            journal: Some(JournalPaths {
                journal,
                source: source_path.to_path_buf(),
                destination: destination_path.to_path_buf(),
            }),
        })
    }
}

/// Fills a namespace with version 0 of the generated content, as long as `go_on`, which is told the bytes done so far before
/// each MiB, wants that; returns whether all was filled.
///
/// # Errors
/// The file cannot be written.
pub fn fill(
    file: &File,
    size: u64,
    block_size: u32,
    seed: u64,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> io::Result<bool> {
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    while at < size {
        if !go_on(at) {
            return Ok(false);
        }
        let len = piece.len().min((size - at) as usize);
        let piece = &mut piece[..len];
        for (index, block) in piece.chunks_exact_mut(block_size as usize).enumerate() {
            content::fill(block, Lba::new(at / u64::from(block_size) + index as u64), 0, seed);
        }
        file.write_all_at(piece, at)?;
        at += len as u64;
    }
    Ok(true)
}
