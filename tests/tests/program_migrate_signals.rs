// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signals in the middle of `nvme-lm migrate` between controllers: wherever they come, the same migration can be started
//! again at once. Behind sockets the controllers outlive the program.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nvme_controller::ControllerConfig;
use nvme_core::wire::ControllerId;
use nvme_host_linux::report::{Report, Verdict};
use nvme_host_linux::vfio_user::server::ServeOptions;
use nvme_tests::program::{nvme_lm, send, wait_until};
use nvme_tests::vfio_user::{Serving, migration_side};
use tempfile::TempDir;

/// Blocks of 4 KiB of each namespace: 4 MiB.
const BLOCKS: u64 = 1024;
const BLOCK: usize = 4096;

/// How far the migration has come when the signal is sent, as it shows from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// The guest writes.
    Guest,
    /// The destination has the last block: the first round is over, and changes wait in the Controller Data Queue.
    Copied,
    /// The source is suspended, the destination holds everything.
    AtStop,
    /// The guest writes again.
    RunsOn,
}

/// Where the controllers are.
trait Place {
    /// The managing and the migrated controller of both sides, and what else a migration between them needs.
    fn options(&self) -> Vec<String>;

    /// The last block at the destination.
    fn last_block(&self) -> Vec<u8>;
}

/// Behind sockets of servers that go on.
struct Sockets {
    sides: [Serving; 2],
    folder: PathBuf,
}

impl Sockets {
    fn new(folder: &Path) -> Self {
        // By a third controller the namespace can be looked at meanwhile.
        let topology = || {
            let mut topology = migration_side(BLOCKS);
            topology.controllers.push(ControllerConfig::migratable(ControllerId::new(3)));
            topology.memories.push(None);
            topology
        };
        let sides = [(); 2].map(|()| Serving::start(topology, ServeOptions::default()));
        let sockets = Self { sides, folder: folder.into() };
        let source = sockets.address(0, 2);
        let filled = ["write", &source, "--lba", "0", "--pattern", "random", "--blocks", "1024", "--yes"];
        let output = Command::new(nvme_lm()).args(filled).output().expect("nvme-lm starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        sockets
    }

    fn address(&self, side: usize, function: usize) -> String {
        format!("vfio-user:{}", self.sides[side].path(function).display())
    }
}

impl Place for Sockets {
    fn options(&self) -> Vec<String> {
        let names =
            [("--source-manager", 0, 0), ("--source", 0, 1), ("--dest-manager", 1, 0), ("--dest", 1, 1)];
        let options =
            names.into_iter().flat_map(|(name, side, at)| [name.to_owned(), self.address(side, at)]);
        options.chain(["--yes".to_owned()]).collect()
    }

    fn last_block(&self) -> Vec<u8> {
        let (path, address) = (self.folder.join("last"), self.address(1, 2));
        let read = ["read", &address, "--lba", "1023", "--blocks", "1", "--output"];
        let output = Command::new(nvme_lm()).args(read).arg(&path).output().expect("nvme-lm starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read(path).expect("the block")
    }
}

/// In the program itself, with images that outlive it.
struct Embedded(PathBuf);

impl Embedded {
    fn new(folder: &Path) -> Self {
        fs::write(folder.join("a.img"), vec![0xA5; BLOCKS as usize * BLOCK]).expect("an image");
        fs::write(folder.join("b.img"), vec![0; BLOCKS as usize * BLOCK]).expect("an image");
        Self(folder.into())
    }
}

impl Place for Embedded {
    fn options(&self) -> Vec<String> {
        let controllers = "--source-manager embedded:a/1 --source embedded:a/2 --dest-manager embedded:b/1 --dest embedded:b/7 --yes";
        let mut options: Vec<String> = controllers.split(' ').map(str::to_owned).collect();
        for name in ["a", "b"] {
            let image = self.0.join(format!("{name}.img"));
            options.extend(["--embedded".into(), format!("{name},image={}", image.display())]);
        }
        options
    }

    fn last_block(&self) -> Vec<u8> {
        let image = fs::read(self.0.join("b.img")).expect("the image");
        image[image.len() - BLOCK..].to_vec()
    }
}

fn migrate(options: &[String]) -> Command {
    let mut command = Command::new(nvme_lm());
    command.args(["migrate", "--no-progress", "--queue-depth", "16", "--json", "-"]).args(options);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts a migration, sends it `signal` once it has come to `mark`, and checks its end and that of the next one.
fn interrupt(name: &str, folder: &Path, place: &dyn Place, mark: Mark, signal: &str) {
    let [log, stopped, alive] = ["log", "stopped", "alive"].map(|file| folder.join(file));
    fs::write(&alive, "").expect("a file");
    // The log as long as it is while the guest stands still, then whatever follows.
    let at_stop = |then: &str| {
        let (log, stopped, alive) = (log.display(), stopped.display(), alive.display());
        let then = then.replace("ALIVE", &alive.to_string());
        format!("wc -c < '{log}' > '{stopped}.new' && mv '{stopped}.new' '{stopped}'{then}")
    };
    let mut options = place.options();
    let (before, after) = match mark {
        Mark::Guest => ("3600s", "0s"),
        Mark::RunsOn => ("0s", "3600s"),
        Mark::Copied | Mark::AtStop => ("0s", "0s"),
    };
    let shown = log.display().to_string();
    options.extend(["--run-before", before, "--run-after", after, "--guest-log", &shown].map(str::to_owned));
    let more = match mark {
        Mark::Guest => vec![],
        // No overflow may cut the round short after which it waits.
        Mark::Copied => ["--stall-commands", "1000000000", "--write-rate", "100"].map(str::to_owned).to_vec(),
        Mark::AtStop => vec!["--at-stop".into(), at_stop("; while [ -e 'ALIVE' ]; do sleep 0.05; done")],
        Mark::RunsOn => vec!["--at-stop".into(), at_stop("")],
    };
    options.extend(more);
    let mut child = migrate(&options).spawn().expect("nvme-lm starts");
    let logged = || fs::metadata(&log).map_or(0, |data| data.len());
    let at_stop = || fs::read_to_string(&stopped).ok().and_then(|text| text.trim().parse::<u64>().ok());
    wait_until(&mut child, name, || match mark {
        Mark::Guest => logged() > 0,
        Mark::Copied => place.last_block().iter().any(|byte| *byte != 0),
        Mark::AtStop => at_stop().is_some(),
        Mark::RunsOn => at_stop().is_some_and(|then| logged() > then),
    });
    send(signal, &child);
    if signal == "KILL" {
        let _ = child.wait();
    }
    // What was run at stop outlives a program that is killed.
    let _ = (signal == "KILL").then(|| fs::remove_file(&alive));
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    if signal == "KILL" {
        assert_eq!(output.status.signal(), Some(9), "{name}: {said}");
    } else {
        let (status, verdict) = match mark {
            Mark::RunsOn => (0, Verdict::Verified),
            _ => (130, Verdict::Interrupted),
        };
        assert_eq!(output.status.code(), Some(status), "{name}: {said}");
        let report: Report = serde_json::from_slice(&output.stdout).expect("a report");
        assert_eq!(report.verdict, verdict, "{name}: {}", report.statement);
        assert_eq!((&report.guest.error, report.leftovers.bytes), (&None, 0), "{name}: {}", report.statement);
        assert!(
            [report.enabled.source, report.enabled.destination] != [Some(true); 2],
            "{name}: {}",
            report.statement
        );
    }
    let mut again = place.options();
    again.extend("--run-before 0s --run-after 0s --run-commands 50 --compare".split(' ').map(str::to_owned));
    let output = migrate(&again).output().expect("nvme-lm starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{name}, again: {said}{text}");
    let report: Report = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(report.comparison.map(|comparison| comparison.equal), Some(BLOCKS), "{name}, again");
}

fn after_each_signal(place: fn(&Path) -> Box<dyn Place>) {
    for mark in [Mark::Guest, Mark::Copied, Mark::AtStop, Mark::RunsOn] {
        for signal in ["INT", "TERM", "KILL"] {
            let name = format!("SIG{signal}, {mark:?}");
            println!("{name}");
            let folder = TempDir::new().expect("a folder");
            interrupt(&name, folder.path(), &*place(folder.path()), mark, signal);
        }
    }
}

#[test]
fn controllers_of_another_process_can_be_migrated_again_at_once() {
    after_each_signal(|folder| Box::new(Sockets::new(folder)));
}

#[test]
fn embedded_controllers_can_be_migrated_again_at_once() {
    after_each_signal(|folder| Box::new(Embedded::new(folder)));
}
