// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks of everything that a run is going to write, made before it writes anything.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{InputError, refuse};
use crate::journal::{Journal, JournalRecord, followed, parent, temporary};

/// An error without the number that the operating system gives it.
pub(crate) fn plain(error: &io::Error) -> String {
    crate::cli::without_numbers(&error.to_string())
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

/// A journal that was found.
#[derive(Debug)]
struct Found {
    path: PathBuf,
    record: JournalRecord,
}

impl Found {
    fn read(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_path_buf(), record: Journal::read(path)? })
    }

    /// Which image holds the guest's writes.
    fn counts(&self) -> Identity {
        Identity::of(&self.record.image)
    }

    fn names(&self, image: &Identity) -> bool {
        [&self.record.source, &self.record.destination].iter().any(|path| Identity::of(path) == *image)
    }

    fn disagrees(&self, why: &str) -> InputError {
        InputError(format!(
            "journal {:?} of an earlier run names {:?} as the image with the guest's writes, {why}; swap the images, remove that \
             journal, or go on with --force",
            self.path, self.record.image
        ))
    }
}

/// Whether what `journal` says of its images is out of date: a later run has left the writes of the one that it names in another.
fn is_outdated(journal: &Found, all: &[Found]) -> bool {
    let counts = journal.counts();
    all.iter().any(|other| {
        other.record.sequence > journal.record.sequence && other.names(&counts) && other.counts() != counts
    })
}

/// Checks that no journal of an earlier run says that `source` is not the image to go on with, or that `destination` is. Of those
/// in the folders of both images the latest that names an image counts. One in the usual place beside an image, or the one that
/// is going to be replaced, counts whatever it names, unless a later one says otherwise: the images may have been moved with it.
pub(super) fn check_journals(journal: &Path, source: &Path, destination: &Path) -> Result<(), InputError> {
    let [of_source, of_destination] = [source, destination].map(Identity::of);
    let near = Journal::near(&[source, destination]).into_iter();
    let mut all: Vec<Found> = near.map(|(path, record)| Found { path, record }).collect();
    match Found::read(journal) {
        Ok(found) => all.push(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) if fs::metadata(journal).is_ok_and(|metadata| metadata.len() > 0) => {
            return refuse(format!(
                "journal {journal:?} exists and is no journal; remove it or name another with --journal"
            ));
        }
        Err(_) => {}
    }
    let why = |found: &Found| match found.counts() == of_destination {
        true => "which would be overwritten",
        false => "not the source",
    };
    for path in [journal, &Journal::beside(destination), &Journal::beside(source)] {
        if let Ok(found) = Found::read(path)
            && found.counts() != of_source
            && !is_outdated(&found, &all)
        {
            return Err(found.disagrees(why(&found)));
        }
    }
    // Of several with one number any that is against it counts.
    let latest = |image: &Identity| -> Vec<&Found> {
        let about: Vec<&Found> = all.iter().filter(|found| found.names(image)).collect();
        let last = about.iter().map(|found| found.record.sequence).max();
        about.into_iter().filter(|found| Some(found.record.sequence) == last).collect()
    };
    let stale = latest(&of_source).into_iter().find(|found| found.counts() != of_source);
    let lost = latest(&of_destination).into_iter().find(|found| found.counts() == of_destination);
    stale.or(lost).map_or(Ok(()), |found| Err(found.disagrees(why(found))))
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
