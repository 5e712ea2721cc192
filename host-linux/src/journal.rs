// SPDX-License-Identifier: MIT OR Apache-2.0
//! The journal beside the images: which of the two holds every write acknowledged to the guest.
//!
//! It is one small JSON object, replaced as a whole (temporary file, fsync, rename, fsync of the directory), so that
//! whenever the process or the machine dies the file is there and says the truth: `source` until the destination
//! has acknowledged its resume, `destination` afterwards. The guest sees no completion between the two.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One of the two images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The image that the guest ran on before.
    Source,
    /// The image that the guest runs on afterwards.
    Destination,
}

/// What the journal says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRecord {
    /// Layout of this object; 1.
    pub version: u32,
    /// Names this migration.
    pub migration: String,
    /// Which image holds every write acknowledged to the guest.
    pub authoritative: Side,
    /// Absolute path of that image.
    pub image: PathBuf,
    /// Absolute path of the source image.
    pub source: PathBuf,
    /// Absolute path of the destination image.
    pub destination: PathBuf,
    /// How far the migration has come, in words.
    pub step: String,
}

/// A journal on disk.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    record: JournalRecord,
}

impl Journal {
    /// The journal's usual place: beside the destination image, with `.journal` added to its name.
    #[must_use]
    pub fn beside(destination: &Path) -> PathBuf {
        let mut name = OsString::from(destination);
        name.push(".journal");
        PathBuf::from(name)
    }

    /// Writes a journal that names the source.
    ///
    /// # Errors
    /// The journal cannot be written or one of the paths cannot be made absolute.
    pub fn create(path: &Path, source: &Path, destination: &Path, migration: String) -> io::Result<Self> {
        let source = fs::canonicalize(source)?;
        let destination = fs::canonicalize(destination)?;
        let record = JournalRecord {
            version: 1,
            migration,
            authoritative: Side::Source,
            image: source.clone(),
            source,
            destination,
            step: "migrating; the guest runs on the source".into(),
        };
        let journal = Self { path: std::path::absolute(path)?, record };
        journal.write()?;
        Ok(journal)
    }

    /// Reads the journal at `path`.
    ///
    /// # Errors
    /// There is none, or it is not one.
    pub fn read(path: &Path) -> io::Result<JournalRecord> {
        serde_json::from_slice(&fs::read(path)?).map_err(io::Error::from)
    }

    /// What the journal says now.
    #[must_use]
    pub const fn record(&self) -> &JournalRecord {
        &self.record
    }

    /// Makes the journal say `step`, and `side` if the authority moves. It says so durably once this returns.
    ///
    /// # Errors
    /// The journal cannot be written; on disk it is as before.
    pub fn update(&mut self, side: Side, step: &str) -> io::Result<()> {
        let before = self.record.clone();
        self.record.authoritative = side;
        self.record.image = match side {
            Side::Source => self.record.source.clone(),
            Side::Destination => self.record.destination.clone(),
        };
        self.record.step = step.into();
        self.write().inspect_err(|_| self.record = before)
    }

    fn write(&self) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(&self.record)?;
        text.push('\n');
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = PathBuf::from(name);
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written?;
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images() -> (tempfile::TempDir, PathBuf, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().expect("directory");
        let (source, destination) = (dir.path().join("a.img"), dir.path().join("b.img"));
        fs::write(&source, "a").expect("source");
        fs::write(&destination, "b").expect("destination");
        let journal = Journal::beside(&destination);
        (dir, source, destination, journal)
    }

    #[test]
    fn the_journal_names_one_image_at_every_step() {
        let (dir, source, destination, path) = images();
        assert_eq!(path, dir.path().join("b.img.journal"));
        let mut journal = Journal::create(&path, &source, &destination, "m1".into()).expect("create");
        let source = source.canonicalize().expect("path");
        let destination = destination.canonicalize().expect("path");
        let steps = [
            (None, Side::Source, &source),
            (Some((Side::Source, "suspended")), Side::Source, &source),
            (Some((Side::Destination, "resumed")), Side::Destination, &destination),
            (Some((Side::Destination, "verified")), Side::Destination, &destination),
        ];
        for (update, side, image) in steps {
            if let Some((side, step)) = update {
                journal.update(side, step).expect(step);
            }
            let read = Journal::read(&path).expect("read");
            assert_eq!((read.authoritative, &read.image), (side, image));
            assert_eq!(&read, journal.record());
        }
        let names: Vec<_> =
            fs::read_dir(dir.path()).expect("list").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(names.len(), 3, "no temporary file is left: {names:?}");
    }

    #[test]
    fn a_failed_update_leaves_the_journal_as_it_was() {
        let (dir, source, destination, _) = images();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).expect("directory");
        let path = inner.join("j");
        let mut journal = Journal::create(&path, &source, &destination, "m2".into()).expect("create");
        let before = journal.record().clone();
        fs::rename(&inner, dir.path().join("moved")).expect("move the directory away");
        assert!(journal.update(Side::Destination, "resumed").is_err());
        assert_eq!(journal.record(), &before);
        assert_eq!(Journal::read(&dir.path().join("moved/j")).expect("read"), before);
    }

    #[test]
    fn every_moment_of_a_reader_sees_a_whole_journal() {
        let (_dir, source, destination, path) = images();
        let mut journal = Journal::create(&path, &source, &destination, "m3".into()).expect("create");
        let reader_path = path.clone();
        let reader = std::thread::spawn(move || {
            let mut moved = false;
            while !moved {
                let record = Journal::read(&reader_path).expect("always whole");
                moved = record.authoritative == Side::Destination;
                let right = if moved { &record.destination } else { &record.source };
                assert_eq!(&record.image, right);
            }
        });
        for step in 0..50 {
            journal.update(Side::Source, &"x".repeat(step * 97)).expect("update");
        }
        journal.update(Side::Destination, "resumed").expect("update");
        reader.join().expect("reader");
    }

    #[test]
    fn files_that_are_no_journal_are_refused() {
        let (dir, ..) = images();
        for (name, text) in [("empty", ""), ("not JSON", "hello"), ("no side", "{\"version\": 1}")] {
            let path = dir.path().join("x");
            fs::write(&path, text).expect("write");
            assert!(Journal::read(&path).is_err(), "{name}");
        }
        assert!(Journal::read(&dir.path().join("missing")).is_err());
    }
}
