// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm migrate` between controllers that are there already: embedded ones, those of another process behind sockets, and
//! both kinds in one migration.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nvme_controller::{ControllerConfig, ManagerConfig, Role, SecondaryConfig};
use nvme_core::wire::{AdminOpcode, ControllerId};
use nvme_host_linux::report::{EnabledReport, Report, RunsOn, Verdict};
use nvme_host_linux::vfio_user::server::ServeOptions;
use nvme_tests::conformance::backend::Topology;
use nvme_tests::program::{nvme_lm, send, wait_until};
use nvme_tests::vfio_user::{Serving, migration_side};

/// Blocks of 4 KiB of each namespace: 8 MiB.
const BLOCKS: u64 = 2048;
const SIZE: &str = "size=8M";

fn command_for(arguments: &[String]) -> Command {
    let mut command = Command::new(nvme_lm());
    command.arg("migrate").args(["--no-progress", "--run-before", "0ms", "--run-after", "0ms"]);
    command.args(["--run-commands", "200", "--queue-depth", "16", "--json", "-"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[String]) -> Output {
    command_for(arguments).output().expect("nvme-lm starts")
}

/// The report of a run with exit status 0.
fn report(name: &str, arguments: &[String]) -> Report {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{name}: {said}{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{name}: {error}: {said}"))
}

fn serving() -> Serving {
    Serving::start(|| migration_side(BLOCKS), ServeOptions::default())
}

fn socket(path: &Path) -> String {
    format!("vfio-user:{}", path.display())
}

fn sides(source: [&str; 2], destination: [&str; 2]) -> Vec<String> {
    let options =
        ["--source-manager", source[0], "--source", source[1], "--dest-manager", destination[0], "--dest"];
    let options = options.into_iter().chain([destination[1], "--yes"]);
    options.map(str::to_owned).collect()
}

#[test]
fn every_mix_of_back_ends_migrates_a_guest_and_both_sides_are_equal() {
    let servers = [serving(), serving()];
    let [there, other] =
        servers.each_ref().map(|server| [0, 1].map(|function| socket(&server.path(function))));
    let [there, other] = [&there, &other].map(|[manager, tracked]| [manager.as_str(), tracked.as_str()]);
    let [a, b] = [["embedded:a/1", "embedded:a/2"], ["embedded:b/1", "embedded:b/7"]];
    let table = [
        ("embedded to embedded", a, b, &["a", "b"] as &[&str]),
        ("embedded to another process", a, there, &["a"]),
        ("from another process to embedded", there, b, &["b"]),
        ("from one process to another", there, other, &[]),
    ];
    for (name, source, destination, embedded) in table {
        for polling in [false, true] {
            let mut arguments = sides(source, destination);
            arguments.push("--compare".into());
            for subsystem in embedded {
                arguments.extend(["--embedded".into(), format!("{subsystem},{SIZE}")]);
            }
            arguments.extend(polling.then(|| "--polling".into()));
            let report = report(name, &arguments);
            assert_eq!(report.verdict, Verdict::Verified, "{name}: {}", report.statement);
            let comparison = report.comparison.unwrap_or_else(|| panic!("{name}: not compared"));
            assert_eq!((comparison.equal, comparison.wrong), (BLOCKS, 0), "{name}");
            assert!(report.total_bytes >= 8 << 20, "{name}: {} bytes", report.total_bytes);
            assert!(report.guest.commands_before >= 200 && report.guest.commands_after >= 200, "{name}");
            assert!(report.guest.verified_after > 0 && report.cdq.entries > 0, "{name}");
            assert_eq!(report.leftovers.bytes, 0, "{name}");
            assert_eq!(report.enabled.source, Some(false), "{name}: the source still runs");
        }
    }
}

#[test]
fn a_medium_that_both_sides_share_is_not_copied() {
    let arguments = sides(["embedded:a/1", "embedded:a/2"], ["embedded:a/3", "embedded:a/7"]);
    let shared = ["--data", "shared", "--embedded", "a,size=8M"].map(str::to_owned);
    let report = report("shared", &[arguments, shared.to_vec()].concat());
    assert_eq!((report.verdict, report.total_bytes, report.cdq.entries), (Verdict::Verified, 0, 0));
    assert!(report.guest.commands_after >= 200, "{:?}", report.guest);
}

#[test]
fn the_controller_of_somebody_else_migrates_by_its_managers_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let fenced = folder.path().join("fenced");
    let managers =
        ["--source-manager", "embedded:a/1", "--source-controller", "2", "--dest-manager", "embedded:b/1"];
    let rest = ["--dest-controller", "2", "--embedded", "a,size=8M", "--embedded", "b,size=8M"];
    let fences = ["--unfence", "true", "--dest-fence", "true", "--fence"];
    let fence = format!("touch '{}'", fenced.display());
    let mut arguments: Vec<String> =
        managers.into_iter().chain(rest).chain(fences).map(str::to_owned).collect();
    arguments.push(fence);
    let plain = report("without comparison", &arguments);
    assert_eq!(plain.verdict, Verdict::Migrated, "{}", plain.statement);
    assert!(plain.statement.contains("nothing was verified"), "{}", plain.statement);
    assert!(fenced.exists(), "the source was not fenced");
    arguments.push("--compare".into());
    let compared = report("with comparison", &arguments);
    assert_eq!(compared.verdict, Verdict::Verified, "{}", compared.statement);
    assert_eq!(compared.comparison.map(|comparison| comparison.equal), Some(BLOCKS));
    // What its owner programmed does not make either look enabled.
    let [properties, told] = ["properties", "told"].map(|name| folder.path().join(name));
    std::fs::write(&properties, "CC 0x460001\nAQA 0x1f001f\nASQ 0x1000\nACQ 0x2000\n").expect("a file");
    let tell = format!("echo $NVME_LM_CC $NVME_LM_AQA $NVME_LM_ASQ $NVME_LM_ACQ > '{}'", told.display());
    let options = ["--properties".into(), properties.display().to_string(), "--at-stop".into(), tell];
    let with_properties = report("with properties", &[&arguments[..], &options].concat());
    assert_eq!(with_properties.verdict, Verdict::Verified, "{}", with_properties.statement);
    let told = std::fs::read_to_string(&told).expect("what the command was told");
    assert_eq!(told, "0x460001 0x1f001f 0x1000 0x2000\n");
    assert_eq!(with_properties.enabled, EnabledReport { source: None, destination: None });
    // Rolled back at the stop: the destination is fenced, and nobody claims to have verified the guest.
    let forgotten = folder.path().join("forgotten");
    let mut back = arguments.clone();
    let at = back.iter().position(|argument| argument == "--dest-fence").expect("there");
    back[at + 1] = format!("touch '{}'", forgotten.display());
    back.extend(["--at-stop".into(), "exit 9".into()]);
    let output = run(&back);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(forgotten.exists() && text.contains("was not verified"), "{text}");
    // A fence that fails keeps the source whole.
    let at = arguments.iter().position(|argument| argument == "--fence").expect("there");
    arguments[at + 1] = "exit 7".into();
    let output = run(&arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("failed with status 7") && text.contains("source"), "{text}");
}

/// Options of a migration between controllers of somebody else, in which the hook called `name` runs `command` and the others
/// leave a file with their name.
fn hooked(folder: &Path, name: &str, command: &str) -> Vec<String> {
    let managers =
        "--source-manager embedded:a/1 --source-controller 2 --dest-manager embedded:b/1 --dest-controller 2";
    let rest = "--embedded a,size=8M --embedded b,size=8M";
    let mut arguments: Vec<String> = [managers, rest].join(" ").split(' ').map(str::to_owned).collect();
    for hook in ["at-stop", "fence", "unfence", "dest-fence"] {
        let leave = format!("echo $NVME_LM_SOURCE $NVME_LM_DESTINATION > '{}'", folder.join(hook).display());
        arguments.extend([format!("--{hook}"), if hook == name { command.into() } else { leave }]);
    }
    arguments
}

#[test]
fn shell_commands_are_given_up_after_their_limit() {
    // Name, what takes too long, what fails so that it goes back, hooks that ran to their end, words.
    type Row<'a> = (&'a str, &'a str, bool, &'a [&'a str], &'a str);
    let rows: [Row<'_>; 4] = [
        ("the fence", "fence", false, &["unfence", "dest-fence"], "away from the source took longer"),
        ("at stop", "at-stop", false, &["fence", "unfence", "dest-fence"], "at stop took longer"),
        ("the way back", "unfence", true, &["fence", "dest-fence"], "rolled back, but not cleanly"),
        (
            "the other fence",
            "dest-fence",
            true,
            &["fence"],
            "could not be kept from its memory, so the source was.",
        ),
    ];
    let check = |(name, hook, fails, ran, words): Row<'_>| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut arguments = hooked(folder.path(), hook, "sleep 3600");
        // The other commands have the same limit, on a busy computer, too.
        arguments.extend(["--shell-timeout", "10s"].map(str::to_owned));
        if fails {
            let at = arguments.iter().position(|argument| argument == "--at-stop").expect("there");
            arguments[at + 1] = "exit 9".into();
        }
        let output = run(&arguments);
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{name}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(said.contains(words), "{name}: {said}");
        for one in ["fence", "unfence", "dest-fence"] {
            let sides = std::fs::read_to_string(folder.path().join(one)).ok();
            assert_eq!(sides.as_deref(), ran.contains(&one).then_some("2 2\n"), "{name}: {one}");
        }
    };
    std::thread::scope(|scope| {
        for row in rows {
            scope.spawn(move || check(row));
        }
    });
}

#[test]
fn r10_a_destination_that_cannot_be_fenced_keeps_the_source_from_memory() {
    const NEITHER: &str = "could not be kept from its memory, nor could the source.";
    const SOURCE_TOO: &str = "could not be kept from its memory, so the source was. The end of this program";
    const RESET: &str =
        "resumed by a reset of its managing controller: the guest is somebody else's and was not verified";
    const NO_MEMORY: &str = "but it could not be given its memory back";
    // Fails the first two times.
    const THIRD: &str = "echo >> tries; [ $(wc -l < tries) -ge 3 ]";
    const SET: &[&str] = &["--cancel-after", "set-state"];
    // Name, more options, commands of hooks, words, files: whose hook ran.
    type Row<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, &'a str)], &'a [&'a str], &'a [(&'a str, bool)]);
    let rows: [Row<'_>; 7] = [
        (
            "cancelled with the state set",
            SET,
            &[("dest-fence", "exit 9")],
            &[SOURCE_TOO],
            &[("unfence", false), ("fence", true)],
        ),
        (
            "nor the source",
            SET,
            &[("dest-fence", "exit 9"), ("fence", "exit 9")],
            &[NEITHER],
            &[("unfence", false)],
        ),
        // Nothing may be switched to a side that was refused.
        (
            "refused at stop",
            &[],
            &[("dest-fence", "exit 9"), ("at-stop", "exit 9")],
            &[SOURCE_TOO],
            &[("unfence", false), ("fence", true)],
        ),
        (
            "a fence that works once",
            &[],
            &[("dest-fence", "exit 9"), ("at-stop", "exit 9"), ("fence", "mkdir once")],
            &[SOURCE_TOO],
            &[("unfence", false), ("once", true)],
        ),
        (
            "the third time, with no fence to lift",
            SET,
            &[("dest-fence", THIRD)],
            &[RESET],
            &[("unfence", false), ("fence", false)],
        ),
        (
            "the third time, with a fence",
            &[],
            &[("dest-fence", THIRD), ("at-stop", "exit 9")],
            &[RESET],
            &[("unfence", true), ("fence", true)],
        ),
        (
            "the third time, and the source has no memory",
            &[],
            &[("dest-fence", THIRD), ("at-stop", "exit 9"), ("unfence", "exit 9")],
            &[RESET, NO_MEMORY],
            &[("fence", true)],
        ),
    ];
    let check = |(name, options, commands, words, files): Row<'_>| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut arguments = hooked(folder.path(), "", "");
        for (hook, command) in commands {
            let option = format!("--{hook}");
            let at = arguments.iter().position(|argument| *argument == option).expect("there");
            arguments[at + 1] = (*command).into();
        }
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        let output = command_for(&arguments).current_dir(folder.path()).output().expect("nvme-lm starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        for words in words {
            assert!(said.contains(words) && !said.contains(", verified"), "{name}: {said}");
        }
        assert_eq!(said.contains(NO_MEMORY), words.contains(&NO_MEMORY), "{name}: {said}");
        for (file, ran) in files {
            assert_eq!(folder.path().join(file).exists(), *ran, "{name}: {file}");
        }
        let warned =
            String::from_utf8_lossy(&output.stderr).matches("could not be kept from its memory").count();
        let tries = commands.iter().any(|(_, command)| *command == THIRD);
        assert_eq!(warned, if tries { 1 } else { 5 }, "{name}: {}", String::from_utf8_lossy(&output.stderr));
    };
    std::thread::scope(|scope| {
        for row in rows {
            scope.spawn(move || check(row));
        }
    });
}

#[test]
fn r10_a_side_whose_server_ends_at_the_stop_leaves_the_guest_to_the_other() {
    for (name, ends, side, words) in [
        ("the destination", 1, RunsOn::Source, "rolled back, the guest runs on at the source, verified"),
        ("the source", 0, RunsOn::Destination, "the guest runs on at the destination, verified"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let [begun, ended] = ["begun", "ended"].map(|file| folder.path().join(file));
        let mut servers = [serving(), serving()];
        let [source, destination] =
            servers.each_ref().map(|server| [0, 1].map(|function| socket(&server.path(function))));
        let mut arguments = sides(source.each_ref().map(|at| &**at), destination.each_ref().map(|at| &**at));
        let wait =
            format!("echo > '{}'; until [ -e '{}' ]; do sleep 0.01; done", begun.display(), ended.display());
        arguments.extend(["--at-stop".into(), wait]);
        let mut child = command_for(&arguments).spawn().expect("nvme-lm starts");
        wait_until(&mut child, name, || begun.exists());
        servers[ends].stop();
        std::fs::write(&ended, "").expect("a file");
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        let report: Report = serde_json::from_slice(&output.stdout).expect("a report");
        assert_eq!(report.guest_runs_on, side, "{name}: {}", report.statement);
        assert!(report.statement.contains(words), "{name}: {}", report.statement);
        assert!(report.guest.commands_after >= 200, "{name}: {:?}", report.guest);
        let enabled = [report.enabled.source, report.enabled.destination];
        assert_eq!(enabled, [Some(ends == 1), Some(ends == 0)], "{name}");
    }
}

#[test]
fn a_signal_ends_a_shell_command_while_nothing_runs_and_goes_back() {
    for (hook, signal) in [("fence", "INT"), ("at-stop", "TERM")] {
        let folder = tempfile::tempdir().expect("a folder");
        let begun = folder.path().join("begun");
        let command = format!("echo > '{}'; sleep 3600 & wait", begun.display());
        let arguments = hooked(folder.path(), hook, &command);
        let mut child = command_for(&arguments).spawn().expect("nvme-lm starts");
        wait_until(&mut child, hook, || begun.exists());
        send(signal, &child);
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{hook}: {said}");
        let report: Report = serde_json::from_slice(&output.stdout).expect("a report");
        assert_eq!(report.verdict, Verdict::Interrupted, "{hook}: {}", report.statement);
        assert!(report.statement.contains("signal in resume-destination"), "{hook}: {}", report.statement);
        assert!(report.statement.contains("not verified"), "{hook}: {}", report.statement);
        for one in ["unfence", "dest-fence"] {
            assert!(folder.path().join(one).exists(), "{hook}: no {one}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_changed() {
    let good =
        "--source-manager embedded:a/1 --source embedded:a/2 --dest-manager embedded:b/1 --dest embedded:b/7";
    let table = [
        ("no migration at the source", good.replace("a/1", "a/3x"), 2, "at byte"),
        ("twice the same controller", good.replace("b/7", "b/1"), 2, "named twice"),
        ("a manager of another subsystem", good.replace("a/2", "c/2"), 2, "name two controllers of one subsystem"),
        ("the same at the destination", good.replace("b/7", "c/7"), 2, "name two controllers of one subsystem"),
        ("sizes differ", format!("{good} --embedded a,size=8M"), 2, "must be alike"),
        ("no namespace", format!("{good} --namespace 9"), 2, "no active namespace 9"),
        (
            "no tracked controller",
            good.replace("--source embedded:a/2 ", ""),
            2,
            "--source or --source-controller",
        ),
        ("no destination", good.replace(" --dest embedded:b/7", ""), 2, "--dest or --dest-controller"),
        (
            "ours to theirs",
            good.replace("--dest embedded:b/7", "--dest-controller 2"),
            2,
            "so --dest has to be, too",
        ),
        (
            "theirs to ours",
            good.replace("--source embedded:a/2", "--source-controller 2 --fence true --unfence true"),
            2,
            "give --dest-controller",
        ),
        (
            "no fence at the destination",
            good.replace("--source embedded:a/2", "--source-controller 2 --fence true --unfence true")
                .replace("--dest embedded:b/7", "--dest-controller 2"),
            2,
            "--dest-fence",
        ),
        (
            "a fence that nothing opens",
            good.replace("--source embedded:a/2", "--source-controller 2 --fence true"),
            2,
            "--unfence",
        ),
        (
            "no fence",
            good.replace("--source embedded:a/2", "--source-controller 2")
                .replace("--dest embedded:b/7", "--dest-controller 2 --dest-fence true"),
            2,
            "give --fence",
        ),
        (
            "nobody says yes",
            good.replace("embedded:a/2", "vfio-user:/nowhere"),
            2,
            "vfio-user:/nowhere: nobody",
        ),
        (
            "nor to the destination",
            good.replace("embedded:b/1", "vfio-user:/nowhere"),
            2,
            "vfio-user:/nowhere: nobody",
        ),
        ("nor to an image", format!("{good} --embedded b,image=nothing"), 2, "at embedded:b/1: nobody"),
        (
            "one medium copied onto itself",
            good.replace("embedded:b/1", "embedded:a/3").replace("embedded:b/7", "embedded:a/7"),
            2,
            "of one subsystem, nqn.2014-08.org.nvmexpress:nvme-lm:a, so the namespace is the same",
        ),
        ("with a size", format!("{good} --size 8M"), 2, "cannot be used with"),
        ("with a fault rule", format!("{good} --fault drop"), 2, "cannot be used with"),
        ("a subsystem that nobody names", format!("{good} --embedded c"), 2, "no address names"),
        ("an I/O size below a block", format!("{good} --io-size 512"), 2, "not a multiple"),
        (
            "quirks to be listed",
            format!("{good} --quirks list"),
            2,
            "--quirks list only shows",
        ),
        (
            "one controller for both sides",
            "--source-manager embedded:a/1 --source-controller 2 --dest-manager embedded:a/3 --dest-controller 2 \
             --data shared --fence true --unfence true --dest-fence true"
                .into(),
            2,
            "the same on both sides",
        ),
        ("a socket that is not there", good.replace("embedded:b/7", "vfio-user:/nowhere"), 1, "vfio-user:/nowhere: connecting"),
    ];
    for (name, arguments, status, words) in table {
        let arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        let output = run(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{name}: {said}");
        assert!(said.contains(words), "{name}: {said}");
    }
}

/// A side with a managing controller at socket 0 and migratable ones at sockets 1 and 2.
fn three(serial: &'static str) -> Topology {
    let mut topology = migration_side(BLOCKS);
    topology.config.serial_number = serial;
    topology.controllers.push(ControllerConfig::migratable(ControllerId::new(3)));
    topology.memories.push(None);
    topology
}

/// A managing controller that cannot log changes of user data.
fn without_log(id: u16) -> ControllerConfig {
    let limits = ManagerConfig { track_user_data: false, ..ManagerConfig::default() };
    ControllerConfig { role: Role::Managing(limits), ..ControllerConfig::managing(ControllerId::new(id)) }
}

#[test]
fn controllers_without_what_is_needed_are_told_by_their_identify_data() {
    type Change = fn(&mut Topology);
    let same: Change = |_| {};
    const SOURCE: [usize; 2] = [0, 1];
    const DESTINATION: [usize; 2] = [0, 2];
    // The second migratable controller of a side manages nothing.
    type Row<'a> = (&'a str, Change, [[usize; 2]; 2], &'a [&'a str], usize, &'a str);
    let rows: [Row<'_>; 4] = [
        (
            "a source manager that manages nothing",
            same,
            [[2, 1], DESTINATION],
            &[],
            0,
            "Host Managed Live Migration is not supported by this controller: OACS in Identify Controller is 0x0",
        ),
        (
            "a destination manager that manages nothing",
            same,
            [SOURCE, [1, 2]],
            &[],
            1,
            "Host Managed Live Migration is not supported by this controller: OACS in Identify Controller is 0x0",
        ),
        (
            "a source manager that logs no changes",
            |topology| topology.controllers[0] = without_log(1),
            [SOURCE, DESTINATION],
            &[],
            0,
            "Track User Data Changes is not supported by this controller: TRATTR in Identify Controller is 0x",
        ),
        (
            "a destination manager that is no primary controller",
            same,
            [SOURCE, DESTINATION],
            &["--virtualization", "--dest-controller", "3"],
            1,
            "admin command Virtualization Management (1Ch) is not supported by this controller: OACS in \
             Identify Controller is 0x0",
        ),
    ];
    for (name, change, [source, destination], more, lacks, words) in rows {
        let servers = ["one", "other"].map(|serial| {
            Serving::counting(move || {
                let mut topology = three(serial);
                change(&mut topology);
                topology
            })
        });
        let at = |server: usize, function: usize| socket(&servers[server].path(function));
        let [source, destination] = [source.map(|index| at(0, index)), destination.map(|index| at(1, index))];
        let managers = [&source[0], &destination[0]];
        let mut arguments =
            sides(source.each_ref().map(String::as_str), destination.each_ref().map(String::as_str));
        arguments.extend(more.iter().map(|one| (*one).to_owned()));
        let output = run(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{name}: {said}");
        let expected = format!("{}: {words}", managers[lacks]);
        assert!(said.contains(&expected) && said.contains(" clear; nothing was sent"), "{name}: {said}");
        for (server, which) in servers.iter().zip(["source", "destination"]) {
            let sent = server.admin_commands();
            assert!(sent.is_subset(&harmless()), "{name}: the {which} was sent {sent:?}");
        }
        assert!(servers[lacks].admin_commands().contains(&AdminOpcode::IDENTIFY), "{name}");
    }
}

/// What a controller may be asked before it is known whether it can do its part.
fn harmless() -> BTreeSet<AdminOpcode> {
    BTreeSet::from([AdminOpcode::IDENTIFY])
}

#[test]
fn a_shared_medium_needs_no_log_of_its_changes() {
    // Both managing controllers, of one subsystem, log nothing.
    let server = Serving::counting(|| {
        let mut topology = migration_side(BLOCKS);
        let migratable = ControllerConfig::migratable(ControllerId::new(4));
        topology.controllers[0] = without_log(1);
        topology.controllers.extend([without_log(3), migratable]);
        topology.memories.extend([None, None]);
        topology
    });
    let [manager, tracked, other, destination] = [0, 1, 2, 3].map(|function| socket(&server.path(function)));
    let mut arguments = sides([&manager, &tracked], [&other, &destination]);
    arguments.extend(["--data", "shared"].map(str::to_owned));
    let report = report("shared", &arguments);
    assert_eq!((report.verdict, report.total_bytes, report.cdq.entries), (Verdict::Verified, 0, 0));
    let sent = server.admin_commands();
    assert!(sent.is_superset(&BTreeSet::from([AdminOpcode::MIGRATION_SEND, AdminOpcode::MIGRATION_RECEIVE])));
    for log in [AdminOpcode::CONTROLLER_DATA_QUEUE, AdminOpcode::TRACK_SEND, AdminOpcode::TRACK_RECEIVE] {
        assert!(!sent.contains(&log), "{sent:?}");
    }
}

#[test]
fn sides_that_cannot_do_it_are_refused_before_anything_is_copied() {
    let theirs = ["--source-controller", "2", "--dest-controller", "2"];
    let fences = ["--fence", "true", "--unfence", "true", "--dest-fence", "true"];
    let theirs: Vec<String> = theirs.iter().chain(&fences).map(|one| (*one).to_owned()).collect();
    type Change = fn(&mut Topology);
    let rows: [(&str, Change, &str); 2] = [
        (
            "blocks longer than a command moves",
            |topology| {
                topology.config.max_transfer_shift = 1;
                topology.namespaces[0].block_shift = 14;
            },
            "a block has 16384 bytes, and one command moves 8192",
        ),
        (
            "no state format in common",
            |topology| topology.config.vendor_state_format = false,
            "no vendor-specific state format",
        ),
    ];
    for (name, change, words) in rows {
        let other = |side: &'static str| {
            move || {
                let mut topology = migration_side(64);
                topology.config.serial_number = side;
                change(&mut topology);
                topology
            }
        };
        let servers = ["one", "other"].map(|side| Serving::start(other(side), ServeOptions::default()));
        let [source, destination] = servers.each_ref().map(|server| socket(&server.path(0)));
        let managers = ["--source-manager", &source, "--dest-manager", &destination, "--yes"];
        let arguments: Vec<String> =
            managers.iter().map(|one| (*one).to_owned()).chain(theirs.clone()).collect();
        let output = run(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains(words), "{name}: {said}");
    }
}

#[test]
fn a_secondary_controller_is_brought_online_before_it_takes_a_guest() {
    // At the destination the guest's controller is secondary to the managing one, and offline.
    let server = Serving::start(
        || {
            let mut topology = migration_side(BLOCKS);
            let primary = topology.controllers[0].id;
            topology.controllers[1].secondary =
                Some(SecondaryConfig { primary, virtual_function: 1, online: false });
            topology
        },
        ServeOptions::default(),
    );
    let [manager, other] = [socket(&server.path(0)), socket(&server.path(1))];
    let base = sides(["embedded:a/1", "embedded:a/2"], [&manager, &other]);
    let with =
        |more: &[&str]| [&base[..], &more.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>()].concat();
    const SHAPE: [&str; 3] = ["--embedded", "a,size=8M", "--compare"];
    let rows: [(&str, &[&str], i32, &str); 4] = [
        ("not brought online", &[], 2, "--virtualization, which brings it online"),
        ("nobody knows which", &["--virtualization"], 2, "--dest-controller"),
        (
            "another controller",
            &["--virtualization", "--dest-controller", "9"],
            2,
            "no primary one of controller 9",
        ),
        (
            "more than there is",
            &["--virtualization", "--dest-controller", "2", "--virtual-queues", "900"],
            1,
            "assigning queues",
        ),
    ];
    for (name, more, status, words) in rows {
        let output = run(&with(&[&SHAPE[..], more].concat()));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{name}: {said}");
        assert!(said.contains(words), "{name}: {said}");
    }
    let good = ["--virtualization", "--dest-controller", "2"];
    for name in ["first", "again, while it is online"] {
        let report = report(name, &with(&[&SHAPE[..], &good[..]].concat()));
        assert_eq!(report.verdict, Verdict::Verified, "{name}: {}", report.statement);
        assert_eq!(report.comparison.map(|comparison| comparison.equal), Some(BLOCKS), "{name}");
        assert!(report.guest.commands_after >= 200, "{name}: {:?}", report.guest);
    }
}

/// A side whose guest's controller is a secondary one of the managing one, online until that is reset or left.
fn secondary_side() -> Serving {
    let topology = || {
        let mut topology = migration_side(BLOCKS);
        let primary = topology.controllers[0].id;
        topology.controllers[1].secondary =
            Some(SecondaryConfig { primary, virtual_function: 1, online: true });
        topology
    };
    Serving::start(topology, ServeOptions::default())
}

#[test]
fn a_guest_on_a_secondary_controller_has_its_primary_one_until_it_ends() {
    let good = ["--embedded", "b,size=8M", "--compare"].map(str::to_owned);
    // Name, more options, exit status, where the guest runs on.
    let rows = [
        ("migrated", &[] as &[&str], 0, RunsOn::Destination),
        ("rolled back", &["--at-stop", "exit 9"], 1, RunsOn::Source),
    ];
    for (name, more, status, side) in rows {
        let server = secondary_side();
        let [manager, source] = [socket(&server.path(0)), socket(&server.path(1))];
        let sides = sides([&manager, &source], ["embedded:b/1", "embedded:b/2"]);
        let more: Vec<_> = more.iter().map(|one| (*one).to_owned()).collect();
        let output = run(&[&sides[..], &good[..], &more[..]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{name}: {said}");
        let report: Report =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{name}: {said}"));
        assert_eq!(report.guest_runs_on, side, "{name}: {}", report.statement);
        assert_eq!(report.guest.error, None, "{name}: {}", report.statement);
        assert!(report.guest.commands_after >= 200, "{name}: {:?}", report.guest);
        assert!(
            report.statement.contains("go offline with the end of this program"),
            "{name}: {}",
            report.statement
        );
    }
}

#[test]
fn a_secondary_controller_of_somebody_else_is_refused() {
    for of_source in [true, false] {
        let server = secondary_side();
        let manager = socket(&server.path(0));
        let other = "embedded:b/1".to_owned();
        let (source, destination) = if of_source { (manager, other) } else { (other, manager) };
        let arguments = format!(
            "--source-manager {source} --source-controller 2 --fence true --unfence true --dest-manager {destination} \
             --dest-controller 2 --dest-fence true --embedded b,size=8M --yes"
        );
        let output = run(&arguments.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "source {of_source}: {said}");
        assert!(said.contains("not its primary one"), "source {of_source}: {said}");
    }
}
