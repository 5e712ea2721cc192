// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks of everything that a run is going to write, made before it writes anything.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{InputError, refuse};
use crate::journal::{Journal, temporary};

/// Links followed before a name counts as leading nowhere.
const LINKS: usize = 40;

/// An error without the number that the operating system gives it.
pub(super) fn plain(error: &io::Error) -> String {
    crate::cli::without_numbers(&error.to_string())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where `path` leads: a link to a file that does not exist yet stands for that file.
fn followed(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = parent(&path).join(target),
            Err(_) => break,
        }
    }
    path
}

/// One file, whatever it is called.
#[derive(Debug, PartialEq, Eq)]
enum Identity {
    /// Device and inode of a file that exists.
    Existing(u64, u64),
    /// Where a file will be.
    Missing(PathBuf),
}

impl Identity {
    fn of(path: &Path) -> Self {
        if let Ok(metadata) = fs::metadata(path) {
            return Self::Existing(metadata.dev(), metadata.ino());
        }
        let path = followed(path);
        match (fs::canonicalize(parent(&path)), path.file_name()) {
            (Ok(parent), Some(name)) => Self::Missing(parent.join(name)),
            _ => Self::Missing(path),
        }
    }
}

/// Whether a file can take data for several purposes at once, as a terminal or a null device can.
fn is_shareable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_char_device())
}

/// Checks that no two of `files` are the same one, by whatever names.
pub(super) fn check_distinct(files: &[(&str, &Path)]) -> Result<(), InputError> {
    let mut seen: Vec<(Identity, &str, &Path)> = Vec::new();
    for (role, path) in files.iter().filter(|(_, path)| !is_shareable(path)) {
        let identity = Identity::of(path);
        if let Some((_, other, name)) = seen.iter().find(|(found, ..)| *found == identity) {
            return refuse(format!("{role} {path:?} and {other} {name:?} are the same file; use two"));
        }
        seen.push((identity, role, path));
    }
    Ok(())
}

/// How a file is going to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// In place.
    InPlace,
    /// By another file that takes its name.
    Replaced,
}

/// Checks that `path` can be written, and leaves everything as it is.
pub(super) fn check_writable(role: &str, path: &Path, written: Written) -> Result<(), InputError> {
    let found = fs::metadata(path).ok();
    if found.as_ref().is_some_and(fs::Metadata::is_dir) {
        return refuse(format!("{role} {path:?} is a directory"));
    }
    let is_file = found.as_ref().is_some_and(fs::Metadata::is_file);
    if found.is_some() && !is_file {
        return match written {
            // Opening a pipe or a device may have effects of its own.
            Written::InPlace => Ok(()),
            Written::Replaced => refuse(format!("{role} {path:?} is not a regular file")),
        };
    }
    let target = followed(path);
    let directory = parent(if written == Written::Replaced { path } else { &target });
    if !directory.is_dir() {
        return refuse(format!("{role} {path:?}: there is no directory {directory:?}"));
    }
    let tried = match written {
        Written::InPlace if is_file => OpenOptions::new().write(true).open(path).map(drop),
        Written::InPlace => create_and_remove(&target),
        Written::Replaced => create_and_remove(&temporary(path)),
    };
    tried.or_else(|error| refuse(format!("{role} {path:?} cannot be written: {}", plain(&error))))
}

fn create_and_remove(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path)?;
    fs::remove_file(path)
}

/// The largest file that can be a journal: three paths and some words.
const JOURNAL_BYTES: u64 = 64 << 10;

/// What may be a journal in the folder of `image`.
fn journals_beside(image: &Path) -> Vec<PathBuf> {
    let is_small = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= JOURNAL_BYTES)
    };
    let entries = fs::read_dir(parent(&followed(image))).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let named = paths.filter(|path| path.extension().is_some_and(|extension| extension == "journal"));
    named.filter(is_small).collect()
}

/// Checks that no journal of an earlier run, in the folder of either image, says that one of them holds a guest's writes and
/// would be overwritten, or that `source` is an older copy.
fn check_other_journals(source: &Path, destination: &Path) -> Result<(), InputError> {
    let images = [source, destination].map(Identity::of);
    let [of_source, of_destination] = &images;
    let found: BTreeSet<_> = [source, destination].into_iter().flat_map(journals_beside).collect();
    for path in found {
        let Ok(record) = Journal::read(&path) else { continue };
        let counts = Identity::of(&record.image);
        let is_of_source =
            [&record.source, &record.destination].map(|image| Identity::of(image)).contains(of_source);
        let why = if counts == *of_destination {
            "which would be overwritten"
        } else if is_of_source && counts != *of_source {
            "not the source"
        } else {
            continue;
        };
        return refuse(disagreement(&path, &record.image, why));
    }
    Ok(())
}

fn disagreement(journal: &Path, image: &Path, why: &str) -> String {
    format!(
        "journal {journal:?} of an earlier run names {image:?} as the image with the guest's writes, {why}; swap the images, \
         remove that journal, or go on with --force"
    )
}

/// Checks that no journal of an earlier run says that `source` is not the image to go on with, or that `destination` is. One
/// beside the source counts as well as the one that is going to be replaced and the one in the usual place; others in the
/// folders of both images count as far as they name one of them.
pub(super) fn check_journals(journal: &Path, source: &Path, destination: &Path) -> Result<(), InputError> {
    let found = [journal.to_path_buf(), Journal::beside(destination), Journal::beside(source)];
    for path in &found {
        let record = match Journal::read(path) {
            Ok(record) => record,
            Err(error) => {
                let is_ours = path == journal && error.kind() != io::ErrorKind::NotFound;
                if is_ours && fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0) {
                    return refuse(format!(
                        "journal {path:?} exists and is no journal; remove it or name another with --journal"
                    ));
                }
                continue;
            }
        };
        let image = Identity::of(&record.image);
        if image == Identity::of(source) {
            continue;
        }
        let why =
            if image == Identity::of(destination) { "which would be overwritten" } else { "not the source" };
        return refuse(disagreement(path, &record.image, why));
    }
    check_other_journals(source, destination)
}

/// Locks an image against other runs, which would spoil it. With `force` it may go without where files cannot be
/// locked.
pub(super) fn lock_image(role: &str, path: &Path, file: &File, force: bool) -> Result<(), InputError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => refuse(format!(
            "{role} image {path:?} is in use by another program; end that first, --force does not help"
        )),
        Err(TryLockError::Error(_)) if force => Ok(()),
        Err(TryLockError::Error(error)) => refuse(format!(
            "{role} image {path:?} cannot be locked against other runs: {}; go on with --force if there are none",
            plain(&error)
        )),
    }
}
