// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wherever `nvme-lm migrate` is killed, its journal names the one image that holds every acknowledged write.
//!
//! The moments are random, and each follows something that can be seen from outside, so that on slow and fast
//! machines alike some lie before the switch, some in it and some after it: the journal appears, the command at stop
//! runs, the journal names the destination.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nvme_core::wire::Lba;
use nvme_host_linux::guest::{content, log};
use nvme_host_linux::images;
use nvme_host_linux::journal::{Journal, JournalRecord, Side};
use nvme_tests::program::{migrate_images, nvme_lm, options};

const IMAGE: u64 = 64 << 20;
const BLOCK: u32 = 4096;
/// Where the program puts its journal unless told otherwise: beside the destination image.
const JOURNAL: &str = "destination.img.journal";
const SEED: u64 = 9;
/// Kills with a journal, by the part of the run they fall into.
const BEFORE: usize = 4;
const NEAR: usize = 4;
const SWITCH: usize = 6;
const AFTER: usize = 6;
/// Kills before there is a journal.
const EARLY: usize = 2;
/// Longest that a run may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What can be seen of a run from outside, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Start,
    Journal,
    Stop,
    Switched,
}

/// The files of one run.
struct Run {
    scratch: tempfile::TempDir,
    child: Child,
    started: Instant,
}

impl Run {
    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn start(template: &Path) -> Self {
        let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let at = |name: &str| scratch.path().join(name);
        fs::copy(template, at("source.img")).expect("copy the image");
        File::create(at("destination.img")).and_then(|file| file.set_len(IMAGE)).expect("create the image");
        let mut command = migrate_images(&at("source.img"), &at("destination.img"));
        options(&mut command, [("--guest-log", &at("log"))]);
        options(
            &mut command,
            [
                ("--block-size", "4096"),
                ("--write-rate", "30000"),
                ("--read-percent", "20"),
                ("--run-before", "150ms"),
                ("--run-after", "400ms"),
                ("--run-commands", "100"),
                ("--seed", &SEED.to_string()),
                ("--at-stop", ": > \"$STOP\""),
            ],
        );
        command.env("STOP", at("stop")).stdout(Stdio::null()).stderr(Stdio::piped());
        let started = Instant::now();
        let child = command.spawn().expect("nvme-lm starts");
        Self { scratch, child, started }
    }

    fn has_reached(&self, mark: Mark) -> bool {
        match mark {
            Mark::Start => true,
            Mark::Journal => self.path(JOURNAL).exists(),
            Mark::Stop => self.path("stop").exists(),
            Mark::Switched => Journal::read(&self.path(JOURNAL))
                .is_ok_and(|record| record.authoritative == Side::Destination),
        }
    }

    /// Waits for `mark`; the time since the start.
    fn wait_for(&mut self, mark: Mark) -> Duration {
        while !self.has_reached(mark) {
            let ended = self.child.try_wait().expect("its status");
            assert!(ended.is_none() || self.has_reached(mark), "ended before {mark:?}: {}", self.said());
            assert!(self.started.elapsed() < PATIENCE, "no {mark:?} within {PATIENCE:?}");
            thread::sleep(Duration::from_micros(100));
        }
        self.started.elapsed()
    }

    fn said(&mut self) -> String {
        let mut text = String::new();
        if let Some(stream) = &mut self.child.stderr {
            stream.read_to_string(&mut text).expect("its messages");
        }
        text
    }

    /// Kills the program `delay` after `mark`; `false` if it had ended by itself.
    fn kill_after(&mut self, mark: Mark, delay: Duration) -> bool {
        self.wait_for(mark);
        thread::sleep(delay);
        if self.child.try_wait().expect("its status").is_some() {
            return false;
        }
        self.child.kill().expect("kill it");
        let status = self.child.wait().expect("its status");
        status.code().is_none()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Whatever failed, nothing keeps running; it is no error if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// When a run that is not killed comes to each mark.
#[derive(Debug)]
struct Timeline {
    journal: Duration,
    stop: Duration,
    switched: Duration,
    end: Duration,
}

fn measure(template: &Path) -> Timeline {
    let mut run = Run::start(template);
    let [journal, stop, switched] =
        [Mark::Journal, Mark::Stop, Mark::Switched].map(|mark| run.wait_for(mark));
    let status = run.child.wait().expect("its status");
    let end = run.started.elapsed();
    assert!(status.success(), "the run that is not killed fails: {}", run.said());
    let record = Journal::read(&run.path(JOURNAL)).expect("a journal");
    let found = check_image(&run, &record);
    assert_eq!(found.side, Side::Destination);
    assert!(found.acknowledged > 0 && found.lost_on_the_other > 0, "{found:?}");
    Timeline { journal, stop, switched, end }
}

/// What was found after a kill.
#[derive(Debug)]
struct Found {
    side: Side,
    /// Blocks with an acknowledged write.
    acknowledged: usize,
    /// Blocks whose newest write was in flight and is on the image.
    newer: usize,
    /// Acknowledged blocks that the image not named does not hold.
    lost_on_the_other: usize,
}

/// Checks the image that the journal names, block by block.
fn check_image(run: &Run, record: &JournalRecord) -> Found {
    let name = |path: &str| fs::canonicalize(run.path(path)).expect("an image");
    let (source, destination) = (name("source.img"), name("destination.img"));
    assert_eq!((&record.source, &record.destination), (&source, &destination));
    let (named, other) = match record.authoritative {
        Side::Source => (&source, &destination),
        Side::Destination => (&destination, &source),
    };
    assert_eq!(&record.image, named, "the journal claims the image of the side it names and no other");

    let acknowledged = log_or_nothing(run);
    let image = fs::read(named).expect("the image");
    assert_eq!(image.len() as u64, IMAGE);
    let mut newer = 0;
    for (lba, block) in (0..).zip(image.chunks_exact(BLOCK as usize)) {
        let oldest = acknowledged.get(&lba).copied().unwrap_or(0);
        match content::version_of(block, Lba::new(lba), SEED) {
            Some(version) if version == oldest => {}
            // One write of a block may be in flight.
            Some(version) if version == oldest + 1 => newer += 1,
            version => panic!(
                "block {lba} of {} holds version {version:?}, {oldest} was acknowledged",
                named.display()
            ),
        }
    }
    let other = File::open(other).expect("the other image");
    let lost = log::missing(&other, &acknowledged, BLOCK, SEED).expect("read the other image");
    Found {
        side: record.authoritative,
        acknowledged: acknowledged.len(),
        newer,
        lost_on_the_other: lost.len(),
    }
}

/// Checks what a run left that was killed some time after `mark`; `None` if it had no journal yet.
fn judge(run: &Run, name: &str, mark: Mark, pristine: &[u8]) -> Option<Found> {
    if !run.path(JOURNAL).exists() {
        assert_eq!(mark, Mark::Start, "{name}: the journal is gone");
        assert!(log_or_nothing(run).is_empty(), "{name}: a write was acknowledged without a journal");
        assert!(
            fs::read(run.path("source.img")).expect("the source") == pristine,
            "{name}: the source changed without a journal"
        );
        println!("{name}: no journal yet, nothing acknowledged");
        return None;
    }
    let record = Journal::read(&run.path(JOURNAL)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let state = check_image(run, &record);
    println!(
        "{name}: {:?}, {} blocks acknowledged, {} newer, {} lost on the other image",
        state.side, state.acknowledged, state.newer, state.lost_on_the_other
    );
    match state.side {
        Side::Destination => {
            assert!(run.has_reached(Mark::Stop), "{name}: the destination cannot be resumed yet");
        }
        Side::Source => assert_ne!(mark, Mark::Switched, "{name}: the authority went back"),
    }
    // What a killed update leaves is never taken for the journal.
    let known = ["source.img", "destination.img", "log", JOURNAL, "stop"];
    let names = fs::read_dir(run.scratch.path()).expect("the folder");
    let strangers: BTreeSet<_> = names
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !known.contains(&name.as_str()) && !name.ends_with(".tmp"))
        .collect();
    assert!(strangers.is_empty(), "{name}: {strangers:?}");
    Some(state)
}

fn log_or_nothing(run: &Run) -> BTreeMap<u64, u64> {
    let path = run.path("log");
    if path.exists() { log::read(&path).expect("the guest's log") } else { BTreeMap::new() }
}

fn random(generator: &mut fastrand::Rng, range: &Range<Duration>) -> Duration {
    range.start + (range.end - range.start).mul_f64(generator.f64())
}

#[test]
fn a_killed_migration_leaves_one_image_with_everything_and_says_which() {
    // Building it counts for nothing.
    nvme_lm();
    let started = Instant::now();
    // Set NVME_KILL_SEED to draw the same moments again.
    let seed = std::env::var("NVME_KILL_SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    println!("moments from NVME_KILL_SEED={seed}");
    let mut generator = fastrand::Rng::with_seed(seed);
    let template = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a file");
    template.as_file().set_len(IMAGE).expect("its length");
    images::fill(template.as_file(), IMAGE, BLOCK, SEED, &mut |_| true).expect("fill it");
    let pristine = fs::read(template.path()).expect("read it");
    let timeline = measure(template.path());
    println!("{timeline:?}");
    let Timeline { journal, stop, switched, end } = timeline;
    let to_stop = stop - journal;
    let parts = [
        (EARLY, Mark::Start, Some(Mark::Journal), Duration::ZERO..journal),
        (BEFORE, Mark::Journal, Some(Mark::Switched), Duration::ZERO..to_stop),
        // The source is suspended shortly before the command at stop runs.
        (NEAR, Mark::Journal, Some(Mark::Switched), to_stop.mul_f64(0.8)..to_stop),
        // Twice as long as the switch takes, so that some land behind it.
        (SWITCH, Mark::Stop, None, Duration::ZERO..(switched - stop).max(Duration::from_millis(1)) * 2),
        (AFTER, Mark::Switched, None, Duration::ZERO..end - switched),
    ];
    let mut found = Vec::new();
    for (count, mark, next, range) in parts {
        for _ in 0..count {
            let mut range = range.clone();
            loop {
                assert!(
                    range.end > Duration::from_micros(100),
                    "no run can be killed in time after {mark:?}"
                );
                let mut run = Run::start(template.path());
                let delay = random(&mut generator, &range);
                if run.kill_after(mark, delay) {
                    let name = format!("killed {delay:?} after {mark:?}");
                    found.extend(judge(&run, &name, mark, &pristine));
                    if !next.is_some_and(|next| run.has_reached(next)) {
                        break;
                    }
                }
                // It was faster than the run that was measured: in its next part, or at its end, before it was
                // killed. Whatever was found counts, and an earlier moment is drawn.
                range = range.start.mul_f64(0.7)..range.end.mul_f64(0.7);
            }
        }
    }
    println!("{} runs killed with a journal", found.len());
    assert!(found.len() >= BEFORE + NEAR + SWITCH + AFTER);
    for side in [Side::Source, Side::Destination] {
        let of_side: Vec<&Found> = found.iter().filter(|state| state.side == side).collect();
        let decisive = of_side.iter().filter(|state| state.lost_on_the_other > 0).count();
        println!(
            "{side:?}: {} times, the other image would have lost writes {decisive} times",
            of_side.len()
        );
        assert!(!of_side.is_empty(), "no run ended with {side:?} as the answer");
        assert!(decisive > 0, "no run showed that {side:?} is the only right answer");
        assert!(of_side.iter().any(|state| state.acknowledged > 0), "{side:?}: nothing was acknowledged");
    }
    println!("done in {:.1} s", started.elapsed().as_secs_f64());
}
