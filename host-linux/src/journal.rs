// SPDX-License-Identifier: MIT OR Apache-2.0
//! The journal beside the images: which of the two holds every write acknowledged to the guest.
//!
//! It is one small JSON object, replaced as a whole (temporary file, fsync, rename, fsync of the directory), so that
//! whenever the process is killed the file is there and says the truth: `source` until the destination has
//! acknowledged its resume, `destination` afterwards. The guest sees no completion between the two. If the machine
//! itself dies the images hold what was acknowledged and flushed, and the journal says what it last said durably.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Links followed before a name counts as leading nowhere.
const LINKS: usize = 40;
/// The largest file that can be a journal, in bytes: three paths and some words.
const LARGEST: u64 = 64 << 10;

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
    /// Higher than that of any journal that was in the folders of the images when this one was begun: of several about one
    /// image the highest counts.
    #[serde(default)]
    pub sequence: u64,
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
    /// What the temporary file beside the journal says, if there is one.
    prepared: Option<JournalRecord>,
}

/// The same error with the file it is about.
fn about(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{path:?}: {error}"))
}

impl Journal {
    /// The journal's usual place: beside the destination image, with `.journal` added to its name.
    #[must_use]
    pub fn beside(destination: &Path) -> PathBuf {
        let mut name = OsString::from(destination);
        name.push(".journal");
        PathBuf::from(name)
    }

    /// Writes a journal that names the source, then removes older ones from the usual place beside either image: they
    /// would soon be wrong.
    ///
    /// # Errors
    /// The journal cannot be written, an older one cannot be removed, or one of the paths cannot be made absolute.
    pub fn create(path: &Path, source: &Path, destination: &Path, migration: String) -> io::Result<Self> {
        let older = [Self::beside(source), Self::beside(destination)];
        let others = Self::near(&[source, destination, path]);
        let sequence = others.iter().map(|(_, other)| other.sequence).max().unwrap_or(0).saturating_add(1);
        let source = fs::canonicalize(source).map_err(about(source))?;
        let destination = fs::canonicalize(destination).map_err(about(destination))?;
        let record = JournalRecord {
            version: 1,
            sequence,
            migration,
            authoritative: Side::Source,
            image: source.clone(),
            source,
            destination,
            step: "migrating; the guest runs on the source".into(),
        };
        let path = std::path::absolute(path).map_err(about(path))?;
        let mut journal = Self { path, record: record.clone(), prepared: None };
        journal.replace(record)?;
        for older in older.iter().filter(|older| Self::read(older).is_ok_and(|old| old != journal.record)) {
            fs::remove_file(older).map_err(about(older))?;
        }
        Ok(journal)
    }

    /// Reads the journal at `path`.
    ///
    /// # Errors
    /// There is none, or it is not one.
    pub fn read(path: &Path) -> io::Result<JournalRecord> {
        let record: JournalRecord = serde_json::from_slice(&fs::read(path)?)?;
        match record.version {
            1 => Ok(record),
            other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("version {other} is not 1"))),
        }
    }

    /// The journals in the folders of these files, whatever they are called, and of the files that they lead to if they are links.
    #[must_use]
    pub fn near(files: &[&Path]) -> Vec<(PathBuf, JournalRecord)> {
        let is_small = |path: &Path| {
            fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= LARGEST)
        };
        let targets: Vec<PathBuf> = files.iter().map(|file| followed(file)).collect();
        let files = files.iter().copied().chain(targets.iter().map(PathBuf::as_path));
        let folders: BTreeSet<&Path> = files.map(parent).collect();
        let entries = folders.into_iter().flat_map(fs::read_dir).flatten().flatten();
        let paths = entries.map(|entry| entry.path()).filter(|path| !is_temporary(path) && is_small(path));
        paths.filter_map(|path| Self::read(&path).ok().map(|record| (path, record))).collect()
    }

    /// What the journal says now.
    #[must_use]
    pub const fn record(&self) -> &JournalRecord {
        &self.record
    }

    /// Makes the journal say `step`, and `side` if the authority moves. It says so durably once this returns. What was
    /// [prepared](Self::prepare) is dropped.
    ///
    /// # Errors
    /// The journal cannot be written. [`record`](Self::record) tells whether it says the new thing already: that is so
    /// if only the directory could not be made durable.
    pub fn update(&mut self, side: Side, step: &str) -> io::Result<()> {
        let record = self.saying(side, step);
        self.replace(record)
    }

    /// Writes what the journal is to say next durably into a temporary file beside it, so that little is left that
    /// can fail in [`commit`](Self::commit).
    ///
    /// # Errors
    /// It cannot be written; nothing is prepared then, and the journal is as before.
    pub fn prepare(&mut self, side: Side, step: &str) -> io::Result<()> {
        let record = self.saying(side, step);
        self.write(record)
    }

    /// Makes the journal say what was prepared, durably once this returns.
    ///
    /// # Errors
    /// Nothing was prepared, or the prepared file cannot take the journal's place: the journal is as before. Or the
    /// directory cannot be made durable: then the journal says the new thing already, as [`record`](Self::record)
    /// tells, for everybody who reads it before the machine dies.
    pub fn commit(&mut self) -> io::Result<()> {
        let Some(record) = self.prepared.take() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{:?}: nothing is prepared", self.path),
            ));
        };
        if let Err(error) = fs::rename(self.temporary(), &self.path) {
            let _ = fs::remove_file(self.temporary());
            return Err(about(&self.path)(error));
        }
        self.record = record;
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(about(directory))
    }

    /// Removes what was prepared; without effect if nothing was.
    pub fn discard(&mut self) {
        if self.prepared.take().is_some() {
            let _ = fs::remove_file(self.temporary());
        }
    }

    fn saying(&self, side: Side, step: &str) -> JournalRecord {
        let image = match side {
            Side::Source => &self.record.source,
            Side::Destination => &self.record.destination,
        };
        JournalRecord { authoritative: side, image: image.clone(), step: step.into(), ..self.record.clone() }
    }

    fn replace(&mut self, record: JournalRecord) -> io::Result<()> {
        self.write(record)?;
        self.commit()
    }

    fn temporary(&self) -> PathBuf {
        temporary(&self.path)
    }

    fn write(&mut self, record: JournalRecord) -> io::Result<()> {
        self.discard();
        let temporary = self.temporary();
        let mut text = serde_json::to_string_pretty(&record)?;
        text.push('\n');
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).open(&temporary);
        file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .inspect_err(|_| drop(fs::remove_file(&temporary)))
            .map_err(about(&temporary))?;
        self.prepared = Some(record);
        Ok(())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.discard();
    }
}

/// The folder that a file is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where `path` leads: a link to a file that does not exist yet stands for that file.
pub(crate) fn followed(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = parent(&path).join(target),
            Err(_) => break,
        }
    }
    path
}

/// Whether that is where a journal's next content was written by a process that was killed: what it says never became true.
fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let number = name.strip_suffix(".tmp").and_then(|name| name.rsplit_once('.'));
    number.is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Where the next content of the journal at `path` is written.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{}.tmp", std::process::id()));
    PathBuf::from(name)
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
    fn what_is_prepared_counts_once_it_is_committed() {
        type Act = fn(&mut Journal);
        let table: [(&str, Act, Side); 5] = [
            ("prepared only", |_| (), Side::Source),
            ("committed", |journal| journal.commit().expect("commit"), Side::Destination),
            ("discarded", Journal::discard, Side::Source),
            (
                "updated instead",
                |journal| journal.update(Side::Source, "back").expect("update"),
                Side::Source,
            ),
            (
                "committed twice",
                |journal| {
                    journal.commit().expect("commit");
                    assert!(journal.commit().is_err(), "nothing is left to commit");
                },
                Side::Destination,
            ),
        ];
        for (name, act, side) in table {
            let (dir, source, destination, path) = images();
            let mut journal = Journal::create(&path, &source, &destination, "m".into()).expect("create");
            journal.prepare(Side::Destination, "resumed").expect("prepare");
            assert_eq!(Journal::read(&path).expect("read").authoritative, Side::Source, "{name}");
            act(&mut journal);
            assert_eq!(&Journal::read(&path).expect("read"), journal.record(), "{name}");
            assert_eq!(journal.record().authoritative, side, "{name}");
            drop(journal);
            assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 3, "{name}: a file is left");
        }
    }

    #[test]
    fn a_new_journal_replaces_those_beside_either_image() {
        let (dir, source, destination, path) = images();
        let other = Journal::beside(&source);
        drop(Journal::create(&other, &destination, &source, "back".into()).expect("create"));
        drop(Journal::create(&path, &source, &destination, "there".into()).expect("create"));
        assert!(!other.exists() && path.exists());
        let elsewhere = dir.path().join("j");
        fs::write(&other, "no journal").expect("write");
        drop(Journal::create(&elsewhere, &source, &destination, "again".into()).expect("create"));
        assert!(other.exists() && !path.exists() && elsewhere.exists(), "only journals are removed");
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
