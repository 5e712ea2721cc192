// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm migrate` between controllers of somebody else: what their owner programmed, which shell commands are told, and which
//! one of them has to write to the destination if the sides have no vendor-specific state format in common.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nvme_core::register::{Offset, RegisterIo};
use nvme_host_linux::report::{EnabledReport, Report, RunsOn, Verdict};
use nvme_host_linux::vfio_user::server::ServeOptions;
use nvme_host_linux::vfio_user::{ConnectOptions, RemoteController};
use nvme_tests::program::{nvme_lm, send, wait_until};
use nvme_tests::vfio_user::{Serving, migration_side};
use tempfile::TempDir;

/// VS, CC, CSTS, AQA, ASQ and ACQ.
const VS: u32 = 0x08;
const CC: u32 = 0x14;
const CSTS: u32 = 0x1C;
const AQA: u32 = 0x24;
const ASQ: u32 = 0x28;
const ACQ: u32 = 0x30;

/// What the owner programs: CC, AQA, ASQ and ACQ, and how commands are told.
const PROGRAMMED: [u64; 4] = [0x46_0001, 0x1F_001F, 0x1_2345_6000, 0xFF_0000_7000];
const TOLD: &str = "0x460001 0x1f001f 0x123456000 0xff00007000";

/// Registers with that in them, of a page.
fn registers(version: u32) -> Vec<u8> {
    let mut page = vec![0; 4096];
    let mut set = |offset: u32, bytes: &[u8]| {
        let offset = offset as usize;
        page[offset..offset + bytes.len()].copy_from_slice(bytes);
    };
    let [cc, aqa, asq, acq] = PROGRAMMED;
    set(VS, &version.to_le_bytes());
    set(CC, &(cc as u32).to_le_bytes());
    set(CSTS, &1_u32.to_le_bytes());
    set(AQA, &(aqa as u32).to_le_bytes());
    set(ASQ, &asq.to_le_bytes());
    set(ACQ, &acq.to_le_bytes());
    page
}

/// Two sides in threads of their own, and a folder.
struct Sides {
    servers: [Serving; 2],
    folder: TempDir,
}

impl Sides {
    /// With a vendor-specific state format in common, or none at all.
    fn new(have_format: bool) -> Self {
        let side = |name: &'static str| {
            let topology = move || {
                let mut topology = migration_side(64);
                topology.config.serial_number = name;
                topology.config.vendor_state_format = have_format;
                topology
            };
            Serving::start(topology, ServeOptions::default())
        };
        Self { servers: ["one", "other"].map(side), folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a command has left in the file with its name.
    fn left(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok().map(|text| text.trim().to_owned())
    }

    /// A file with this content.
    fn file(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.path(name), content).expect("a file");
        self.path(name).display().to_string()
    }

    /// `--properties FILE`.
    fn properties(&self) -> [String; 2] {
        let text = b"CC 0x460001\nAQA 0x1f001f\nASQ 0x123456000\nACQ 0xff00007000\n";
        ["--properties".into(), self.file("properties", text)]
    }

    /// `--source-registers FILE`.
    fn registers(&self) -> [String; 2] {
        ["--source-registers".into(), self.file("registers", &registers(0x2_0100))]
    }

    /// One of these by its name, or neither.
    fn known(&self, name: &str) -> Vec<String> {
        match name {
            "properties" => self.properties().to_vec(),
            "registers" => self.registers().to_vec(),
            _ => Vec::new(),
        }
    }

    /// Has the owner of the destination use it: what comes without a vendor-specific part is for a controller that is enabled.
    fn use_destination(&self, have_format: bool) -> Option<RemoteController> {
        let owner = (!have_format).then(|| owned(&self.servers[1]))?;
        program(&owner, PROGRAMMED);
        Some(owner)
    }

    /// Shell text that leaves what it was told in a file.
    fn leaves(&self, name: &str) -> String {
        let path = self.path(name);
        let path = path.display();
        format!(
            "echo $NVME_LM_CC $NVME_LM_AQA $NVME_LM_ASQ $NVME_LM_ACQ > '{path}.new' && mv '{path}.new' '{path}'"
        )
    }

    /// A migration whose commands leave what they were told, but for those named in `given`.
    fn command(&self, given: &[(&str, &str)], more: &[String]) -> Command {
        let mut command = Command::new(nvme_lm());
        let managers =
            self.servers.each_ref().map(|server| format!("vfio-user:{}", server.path(0).display()));
        command.args(["migrate", "--no-progress", "--yes", "--source-controller", "2"]);
        command.args(["--dest-controller", "2", "--source-manager", &managers[0]]);
        command.args(["--dest-manager", &managers[1]]);
        for hook in ["at-stop", "fence", "unfence", "dest-fence"] {
            let text = given.iter().find(|(name, _)| *name == hook).map(|(_, text)| (*text).to_owned());
            command.arg(format!("--{hook}")).arg(text.unwrap_or_else(|| self.leaves(hook)));
        }
        command.args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// As [`command`](Self::command), with the report on standard output.
    fn reporting(&self, given: &[(&str, &str)], more: &[String]) -> Command {
        let mut command = self.command(given, more);
        command.args(["--json", "-"]);
        command
    }

    fn run(&self, given: &[(&str, &str)], more: &[String]) -> Output {
        self.reporting(given, more).output().expect("nvme-lm starts")
    }

    /// `--restore` with a command that leaves what it was told.
    fn restore(&self) -> [String; 2] {
        ["--restore".into(), self.leaves("restore")]
    }
}

/// The report of a run that ended with this status.
fn report(name: &str, output: &Output, status: i32) -> Report {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(status),
        "{name}: {said}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{name}: {error}: {said}"))
}

#[test]
fn every_command_is_told_what_the_owner_programmed() {
    // Name, whether the sides have a format in common, what tells the properties, what is told then, whether the source is
    // known to be enabled.
    let rows = [
        ("listed, a format in common", true, "properties", TOLD, None),
        ("shown, a format in common", true, "registers", TOLD, Some(true)),
        ("unknown, a format in common", true, "", "", None),
        ("listed, no format in common", false, "properties", TOLD, None),
        ("shown, no format in common", false, "registers", TOLD, Some(true)),
    ];
    for (name, have_format, source, told, enabled) in rows {
        let sides = Sides::new(have_format);
        let (known, _owner) = (sides.known(source), sides.use_destination(have_format));
        let migrated = report(name, &sides.run(&[], &[known.clone(), sides.restore().to_vec()].concat()), 0);
        assert_eq!(migrated.verdict, Verdict::Migrated, "{name}: {}", migrated.statement);
        assert_eq!(migrated.enabled, EnabledReport { source: enabled, destination: None }, "{name}");
        for hook in ["fence", "at-stop"] {
            assert_eq!(sides.left(hook).as_deref(), Some(told), "{name}: {hook}");
        }
        // A format in common brings the properties along.
        assert_eq!(sides.left("restore").as_deref(), (!have_format).then_some(told), "{name}");
        assert_eq!([sides.left("unfence"), sides.left("dest-fence")], [None, None], "{name}");

        let sides = Sides::new(have_format);
        let (known, _owner) = (sides.known(source), sides.use_destination(have_format));
        let back = sides.run(&[("at-stop", "exit 9")], &[known, sides.restore().to_vec()].concat());
        let back = report(name, &back, 1);
        assert!(back.statement.contains("at stop failed with status 9"), "{name}: {}", back.statement);
        for hook in ["unfence", "dest-fence"] {
            assert_eq!(sides.left(hook).as_deref(), Some(told), "{name}: {hook}");
        }
    }
}

/// The registers of the controller that migrates, for its owner.
fn owned(server: &Serving) -> RemoteController {
    RemoteController::connect(&server.path(1), &ConnectOptions::default()).expect("the server listens")
}

fn program(controller: &RemoteController, [cc, aqa, asq, acq]: [u64; 4]) {
    controller.write32(Offset::new(AQA), aqa as u32).expect("AQA");
    controller.write64(Offset::new(ASQ), asq).expect("ASQ");
    controller.write64(Offset::new(ACQ), acq).expect("ACQ");
    controller.write32(Offset::new(CC), cc as u32).expect("CC");
}

fn programmed(controller: &RemoteController) -> [u64; 4] {
    let short = |offset| u64::from(controller.read32(Offset::new(offset)).expect("a register"));
    let long = |offset| controller.read64(Offset::new(offset)).expect("a register");
    [short(CC), short(AQA), long(ASQ), long(ACQ)]
}

#[test]
fn the_destination_has_what_the_source_had() {
    let sides = Sides::new(false);
    let [source, destination] = sides.servers.each_ref().map(owned);
    program(&source, PROGRAMMED);
    let mut page = registers(0);
    for offset in (0..0x38).step_by(4) {
        let value = source.read32(Offset::new(offset)).expect("a register");
        page[offset as usize..offset as usize + 4].copy_from_slice(&value.to_le_bytes());
    }
    let shown = ["--source-registers".to_owned(), sides.file("registers", &page)];
    assert_eq!(programmed(&destination), [0; 4], "nobody has used it yet");
    // Whoever drives the destination waits for the command, and the command for that.
    let (done, seen) = (sides.path("done"), sides.path("restore"));
    let restore =
        format!("{}; while [ ! -e '{}' ]; do sleep 0.01; done", sides.leaves("restore"), done.display());
    let mut child = sides
        .reporting(&[], &[&shown[..], &["--restore".into(), restore]].concat())
        .spawn()
        .expect("nvme-lm starts");
    wait_until(&mut child, "the command", || seen.exists());
    let told = sides.left("restore").expect("a file");
    let told: Vec<u64> = told
        .split(' ')
        .map(|value| {
            u64::from_str_radix(value.strip_prefix("0x").expect("hexadecimal"), 16).expect("a number")
        })
        .collect();
    program(&destination, told.try_into().expect("four values"));
    fs::write(&done, "").expect("a file");
    let output = child.wait_with_output().expect("it ends");
    let migrated = report("restored", &output, 0);
    assert_eq!(migrated.verdict, Verdict::Migrated, "{}", migrated.statement);
    assert_eq!(programmed(&destination), programmed(&source));
    assert_eq!(programmed(&destination), PROGRAMMED);
    let ready = || destination.read32(Offset::new(CSTS)).expect("CSTS") != 0;
    let until = Instant::now() + Duration::from_secs(120);
    while !ready() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(destination.read32(Offset::new(CSTS)), Ok(1), "it is ready and has not failed");
}

#[test]
fn a_restoration_that_fails_goes_back() {
    // Name, the command, more options, words.
    let rows: [(&str, &str, &[&str], &str); 3] = [
        ("a status", "exit 7", &[], "restores the destination's properties failed with status 7"),
        ("a signal", "kill -9 $$", &[], "was ended by a signal"),
        ("too long", "sleep 3600", &["--shell-timeout", "5s"], "took longer than 5s"),
    ];
    for (name, command, more, words) in rows {
        let sides = Sides::new(false);
        let more: Vec<String> = more.iter().map(|one| (*one).to_owned()).collect();
        let options = [&sides.registers()[..], &["--restore".into(), command.into()], &more].concat();
        let back = report(name, &sides.run(&[], &options), 1);
        assert!(back.statement.contains(words), "{name}: {}", back.statement);
        assert!(back.statement.contains("rolled back"), "{name}: {}", back.statement);
        // The destination is fenced, and the source never was.
        let left = ["dest-fence", "at-stop", "fence", "unfence"].map(|hook| sides.left(hook));
        assert_eq!(left, [Some(TOLD.to_owned()), None, None, None], "{name}");
    }
    for signal in ["INT", "TERM"] {
        let sides = Sides::new(false);
        let begun = sides.path("begun");
        let restore = format!("echo > '{}'; sleep 3600 & wait", begun.display());
        let options = [&sides.properties()[..], &["--restore".into(), restore]].concat();
        let mut child = sides.reporting(&[], &options).spawn().expect("nvme-lm starts");
        wait_until(&mut child, signal, || begun.exists());
        send(signal, &child);
        let back = report(signal, &child.wait_with_output().expect("it ends"), 130);
        assert_eq!(back.verdict, Verdict::Interrupted, "{signal}: {}", back.statement);
        assert!(back.statement.contains("signal in set-state"), "{signal}: {}", back.statement);
        assert_eq!(sides.left("dest-fence").as_deref(), Some(TOLD), "{signal}");
        assert_eq!(sides.left("unfence"), None, "{signal}");
    }
}

#[test]
fn r10_a_destination_that_nobody_fenced_runs_as_is_said() {
    let sides = Sides::new(true);
    let [source, destination] = sides.servers.each_ref().map(owned);
    program(&source, PROGRAMMED);
    let options = ["--cancel-after", "set-state"].map(str::to_owned);
    let ended = report("not fenced", &sides.run(&[("dest-fence", "exit 9")], &options), 1);
    assert!(ended.statement.contains("lets the destination run"), "{}", ended.statement);
    assert_eq!(ended.guest_runs_on, RunsOn::Nowhere);
    assert!(
        sides.left("fence").is_some() && sides.left("unfence").is_none(),
        "the source is kept from memory"
    );
    // It was never programmed by its owner: what it has is what the source had. It fetches commands, from where no memory is.
    assert_eq!(programmed(&destination), PROGRAMMED);
    destination.write32(Offset::new(0x1000), 1).expect("the tail of the admin queue");
    let has_failed = || destination.read32(Offset::new(CSTS)).expect("CSTS") & 2 != 0;
    let until = Instant::now() + Duration::from_secs(120);
    while !has_failed() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(has_failed(), "it runs");
}

#[test]
fn what_is_missing_without_a_format_in_common_is_named() {
    let sides = Sides::new(false);
    let (restore, listed, shown) =
        (sides.restore().to_vec(), sides.properties().to_vec(), sides.registers().to_vec());
    // Name, options, what is asked for, what is not.
    let rows = [
        ("both", Vec::new(), &["--restore", "--source-registers", "--properties"] as &[&str], ""),
        ("the command, with a list", listed, &["--restore COMMAND"], "--properties"),
        ("the command, with registers", shown, &["--restore COMMAND"], "--properties"),
        ("the values", restore, &["--source-registers FILE or --properties FILE"], "--restore"),
    ];
    for (name, options, words, other) in rows {
        let output = sides.run(&[], &options);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains("no vendor-specific state format in common"), "{name}: {said}");
        for word in words {
            assert!(said.contains(word), "{name}: {said}");
        }
        assert!(other.is_empty() || !said.contains(other), "{name}: {said}");
        let left = ["dest-fence", "at-stop", "fence", "unfence", "restore"].map(|hook| sides.left(hook));
        assert_eq!(left, [const { None }; 5], "{name}");
    }
}

#[test]
fn a_table_says_what_nobody_knows() {
    for (is_shown, word) in [(true, "yes"), (false, "unknown")] {
        let sides = Sides::new(true);
        let known = if is_shown { sides.registers() } else { sides.properties() };
        let output = sides.command(&[], &known).output().expect("nvme-lm starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
        for (row, expected) in [("source enabled", word), ("destination enabled", "unknown")] {
            let line = said.lines().find(|line| line.trim().starts_with(row));
            assert!(
                line.is_some_and(|line| line.trim().ends_with(expected)),
                "shown {is_shown}, {row}: {said}"
            );
        }
    }
}
