// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two namespaces as files, checked before anything is changed.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nvme_core::wire::Lba;

use crate::config::{MigrateConfig, Namespaces, SIZE_LIMITS};
use crate::guest::{WriteContent, WriteExtent, content, parse_extents};
use crate::journal::Journal;
use crate::storage::FileStorage;

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
fn open_image(role: &str, path: &Path, block_size: u32) -> Result<(File, u64), InputError> {
    let name = path.display();
    let metadata =
        fs::metadata(path).or_else(|error| refuse(format!("{role} image {name}: {}", plain(&error))))?;
    if !metadata.is_file() {
        return refuse(format!("{role} image {name} is not a regular file"));
    }
    // Root may write anything, so permissions are looked at as well as tried.
    if metadata.permissions().mode() & 0o222 == 0 {
        return refuse(format!(
            "{role} image {name} is not writable: its mode is {:04o}",
            metadata.permissions().mode() & 0o7777
        ));
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .or_else(|error| refuse(format!("{role} image {name} is not writable: {}", plain(&error))))?;
    let len = metadata.len();
    if !len.is_multiple_of(u64::from(block_size)) {
        return refuse(format!(
            "{role} image {name} has {len} bytes, which is not a multiple of the block size {block_size}"
        ));
    }
    if !SIZE_LIMITS.contains(&len) {
        return refuse(format!(
            "{role} image {name} has {len} bytes; it must have from {} to {}",
            SIZE_LIMITS.start(),
            SIZE_LIMITS.end()
        ));
    }
    Ok((file, len))
}

/// An error without the number that the operating system gives it.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

/// Checks that a file can be made or replaced at `path`.
fn check_output(role: &str, path: &Path) -> Result<(), InputError> {
    if path.is_dir() {
        return refuse(format!("{role} {} is a directory", path.display()));
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if parent.is_dir() {
        Ok(())
    } else {
        refuse(format!("{role} {}: there is no directory {}", path.display(), parent.display()))
    }
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
        for (role, path) in [("guest log", &config.guest_log), ("journal", &config.journal)] {
            path.as_deref().map_or(Ok(()), |path| check_output(role, path))?;
        }
        let inputs = match &config.namespaces {
            Namespaces::Memory { size } => Self::memory(config, *size)?,
            Namespaces::Images { source, destination } => {
                Self::images(config, source, destination, expected_size)?
            }
        };
        for (role, path) in [("guest log", &config.guest_log), ("journal", &config.journal)] {
            if let (Some(path), Namespaces::Images { source, destination }) = (path, &config.namespaces)
                && [source, destination].into_iter().any(|image| same_file(image, path))
            {
                return refuse(format!("{role} {} is one of the images", path.display()));
            }
        }
        Ok(inputs)
    }

    fn extents(config: &MigrateConfig, size: u64) -> Result<Vec<WriteExtent>, InputError> {
        let blocks = size / u64::from(config.block_size);
        let Some(path) = &config.write_extents else {
            return Ok(vec![WriteExtent { start: 0, blocks, content: WriteContent::Generated }]);
        };
        let name = path.display();
        let text = fs::read_to_string(path)
            .or_else(|error| refuse(format!("list of extents {name}: {}", plain(&error))))?;
        parse_extents(&text, blocks).or_else(|error| refuse(format!("list of extents {name}: {error}")))
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
        if same_file(source_path, destination_path) {
            return refuse(format!(
                "source and destination image are the same file {}",
                source_path.display()
            ));
        }
        if let Some(expected) = expected_size.filter(|expected| *expected != size) {
            return refuse(format!(
                "size {expected}: source image {} has {size} bytes",
                source_path.display()
            ));
        }
        if destination_size != size {
            return refuse(format!(
                "destination image {} has {destination_size} bytes; it must have the {size} of the source",
                destination_path.display()
            ));
        }
        let extents = Self::extents(config, size)?;
        let journal = config.journal.clone().unwrap_or_else(|| Journal::beside(destination_path));
        check_output("journal", &journal)?;
        for (role, path, file) in
            [("source", source_path, &source), ("destination", destination_path, &destination)]
        {
            // Two runs on one image would spoil it.
            if file.try_lock().is_err() {
                return refuse(format!("{role} image {} is in use by another program", path.display()));
            }
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

fn same_file(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Fills a namespace with version 0 of the generated content.
///
/// # Errors
/// The file cannot be written.
pub fn fill(file: &File, size: u64, block_size: u32, seed: u64) -> io::Result<()> {
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    while at < size {
        let len = piece.len().min((size - at) as usize);
        let piece = &mut piece[..len];
        for (index, block) in piece.chunks_exact_mut(block_size as usize).enumerate() {
            content::fill(block, Lba::new(at / u64::from(block_size) + index as u64), 0, seed);
        }
        file.write_all_at(piece, at)?;
        at += len as u64;
    }
    Ok(())
}
