// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm` and secondary controllers, which go offline whenever their primary one is opened or left: those of a migration,
//! and those whose guests would be lost.

use std::process::{Command, Output, Stdio};

use nvme_controller::{ControllerConfig, SecondaryConfig};
use nvme_core::wire::ControllerId;
use nvme_host_linux::report::{Report, Verdict};
use nvme_host_linux::vfio_user::server::ServeOptions;
use nvme_tests::program::nvme_lm;
use nvme_tests::vfio_user::{Serving, migration_side};

/// Blocks of 4 KiB of each namespace: 8 MiB.
const BLOCKS: u64 = 2048;

/// A process with managing controller 1, at socket 0, and its secondary controllers from 2 on; `managers` follow.
fn side(name: &'static str, secondaries: u16, online: bool, managers: &'static [u16]) -> Serving {
    let topology = move || {
        let mut topology = migration_side(BLOCKS);
        topology.config.name = name;
        let primary = topology.controllers[0].id;
        topology.controllers.truncate(1);
        topology.controllers.extend((2..secondaries + 2).map(|id| ControllerConfig {
            secondary: Some(SecondaryConfig { primary, virtual_function: id - 1, online }),
            ..ControllerConfig::migratable(ControllerId::new(id))
        }));
        topology
            .controllers
            .extend(managers.iter().map(|id| ControllerConfig::managing(ControllerId::new(*id))));
        topology.memories = vec![None; topology.controllers.len()];
        if secondaries > 100 {
            (topology.queue_pairs, topology.commands, topology.state_bytes) = (5, 64, 16 << 10);
        }
        topology
    };
    Serving::start(topology, ServeOptions::default())
}

fn at(server: &Serving, function: usize) -> String {
    format!("vfio-user:{}", server.path(function).display())
}

fn run(arguments: &str) -> Output {
    let mut command = Command::new(nvme_lm());
    command.args(arguments.split_whitespace()).stdin(Stdio::null()).output().expect("nvme-lm starts")
}

fn migrate(arguments: &str) -> Output {
    run(&format!(
        "migrate --no-progress --run-before 0ms --run-after 0ms --run-commands 200 --queue-depth 16 --json - --yes {arguments}"
    ))
}

/// Its report, which must say that everything was verified.
fn verified(name: &str, arguments: &str) -> Report {
    let output = migrate(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{name}: {said}{}", String::from_utf8_lossy(&output.stdout));
    let report: Report =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(report.verdict, Verdict::Verified, "{name}: {}", report.statement);
    assert_eq!(report.comparison.map(|comparison| comparison.equal), Some(BLOCKS), "{name}");
    assert!(report.guest.commands_after >= 200, "{name}: {:?}", report.guest);
    report
}

/// It must be refused, before anything is copied.
fn refused(name: &str, output: &Output, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{name}: {said}{}", String::from_utf8_lossy(&output.stdout));
    assert!(said.contains(words), "{name}: {said}");
    assert!(output.stdout.is_empty(), "{name}: there is a report");
}

const FENCES: &str = "--fence true --unfence true --dest-fence true";

#[test]
fn a_list_of_secondary_controllers_is_read_to_its_end() {
    // A page of it has 127 entries.
    let server = side("many", 132, true, &[]);
    let manager = at(&server, 0);
    for id in [2, 128, 129, 133] {
        let name = format!("controller {id}");
        let source = format!(
            "--source-manager {manager} --source-controller {id} --dest-manager embedded:b/1 --dest-controller 2 \
             --embedded b,size=8M {FENCES}"
        );
        refused(&name, &migrate(&source), "goes offline whenever");
    }
    let last = at(&server, 132);
    verified(
        "the last one as a destination",
        &format!(
            "--source-manager embedded:a/1 --source embedded:a/2 --embedded a,size=8M --compare --dest-manager {manager} \
             --dest {last} --virtualization --dest-controller 133"
        ),
    );
}

#[test]
fn neither_managing_controller_may_take_the_others_controller_offline() {
    // Controllers 2 and 3 are secondary ones of 1; 8 and 9 manage, too.
    let rows = [
        (
            "the source is somebody else's",
            "--source-manager EIGHT --source-controller 2 --dest-manager ONE --dest-controller 9 FENCES",
        ),
        (
            "the destination is somebody else's",
            "--source-manager ONE --source-controller 9 --dest-manager EIGHT --dest-controller 2 FENCES",
        ),
        ("the source is ours", "--source-manager EIGHT --source TWO --dest-manager ONE --dest NINE"),
    ];
    for (name, arguments) in rows {
        let server = side("one", 2, true, &[8, 9]);
        let one = at(&server, 0);
        let mut arguments = format!("{arguments} --data shared").replace("FENCES", FENCES);
        for (word, function) in [("ONE", 0), ("TWO", 1), ("EIGHT", 3), ("NINE", 4)] {
            arguments = arguments.replace(word, &at(&server, function));
        }
        refused(name, &migrate(&arguments), &format!("is a secondary controller of {one} and goes offline"));
    }
}

#[test]
fn an_identifier_is_compared_with_the_controller_that_is_brought_online() {
    let server = side("there", 2, false, &[]);
    let [manager, two, three] = [0, 1, 2].map(|function| at(&server, function));
    let there = format!(
        "--source-manager embedded:a/1 --source embedded:a/2 --embedded a,size=8M --compare --virtualization \
         --dest-manager {manager} --dest"
    );
    let here = format!(
        "--dest-manager embedded:b/1 --dest embedded:b/2 --embedded b,size=8M --compare --source-manager {manager} --source"
    );
    let rows = [
        (
            "the destination is another one",
            format!("{there} {two} --dest-controller 3"),
            "at --dest is another controller",
        ),
        (
            "the other way round",
            format!("{there} {three} --dest-controller 2"),
            "at --dest is another controller",
        ),
        (
            "of another subsystem",
            format!("{there} embedded:c/2 --dest-controller 2"),
            "at --dest is a controller of another subsystem",
        ),
        (
            "the source is another one",
            format!("{here} {two} --source-controller 3"),
            "at --source is another controller",
        ),
        (
            "the source is of another subsystem",
            format!("{here} embedded:c/2 --source-controller 2"),
            "is a controller of another subsystem",
        ),
        (
            "no such secondary controller",
            format!("{here} {two} --source-controller 9"),
            "no primary one of controller 9",
        ),
        ("nobody says which", format!("{here} {two}"), "is offline, or has failed"),
        (
            "nobody brings it online",
            format!("{there} {two}").replace("--virtualization ", ""),
            "is offline, or has failed",
        ),
    ];
    for (name, arguments, words) in rows {
        refused(name, &migrate(&arguments), words);
    }
    verified("the right one", &format!("{there} {two} --dest-controller 2"));
}

#[test]
fn a_source_that_is_offline_is_brought_online_as_often_as_it_is_named() {
    let server = side("here", 1, true, &[]);
    let [manager, source] = [0, 1].map(|function| at(&server, function));
    let rest = "--dest-manager embedded:b/1 --dest embedded:b/2 --embedded b,size=8M --compare";
    let plain = format!("--source-manager {manager} --source {source} {rest}");
    verified("online, and asked", &plain);
    refused("offline", &migrate(&plain), "give its identifier by --source-controller");
    for name in ["offline, and told", "once more"] {
        verified(name, &format!("{plain} --source-controller 2"));
    }
    refused(
        "with a fence",
        &migrate(&format!("{plain} --source-controller 2 --fence true --unfence true")),
        "for a source that somebody else drives",
    );
}

#[test]
fn a_secondary_controller_gets_what_its_guest_uses() {
    let server = side("there", 1, false, &[]);
    let [manager, destination] = [0, 1].map(|function| at(&server, function));
    let base = format!(
        "--source-manager embedded:a/1 --source embedded:a/2 --embedded a,size=8M --compare --io-queues 4 --dest-manager \
         {manager} --dest {destination} --virtualization --dest-controller 2"
    );
    for (name, more, words) in [
        ("one queue too few", "--virtual-queues 4", "--virtual-queues 4 is too few"),
        ("no vector", "--virtual-interrupts 0", "--virtual-interrupts 0 is too few"),
    ] {
        refused(name, &migrate(&format!("{base} {more}")), words);
    }
    for (name, more) in [
        ("as many queues as it needs", "--virtual-queues 5"),
        ("fewer vectors than queues", "--virtual-interrupts 2"),
        ("one vector for all", "--virtual-queues 9 --virtual-interrupts 1"),
    ] {
        verified(name, &format!("{base} {more}"));
    }
}

#[test]
fn commands_about_a_secondary_controller_of_the_managing_one_are_refused() {
    let commands = [
        "suspend MANAGER --controller 2",
        "resume MANAGER --controller 2 --if-suspended",
        "state get MANAGER --controller 2 --suspend --output /dev/null",
        "state get MANAGER --controller 2 --output /dev/null",
        "cdq create MANAGER --controller 2",
        "cdq watch MANAGER --controller 2 --count 0",
        "track start MANAGER --controller 2",
        "track stop MANAGER --controller 2",
        "track memory MANAGER --controller 2 --range 0+4K",
    ];
    // Name, whether it is online until its primary one is left, and words.
    for (name, online, words) in [
        ("online", true, "goes offline when this program leaves"),
        ("offline", false, "has taken it offline"),
    ] {
        for command in commands {
            let server = side("one", 1, online, &[8]);
            let name = format!("{name}: {command}");
            let output = run(&command.replace("MANAGER", &at(&server, 0)));
            refused(&name, &output, words);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("--force goes on"), "{name}: {said}");
        }
    }
    let server = side("one", 1, true, &[8]);
    let [primary, other] = [0, 2].map(|function| at(&server, function));
    // Nothing is taken offline by a managing controller that is not its primary one, nor by force that is asked for.
    for command in ["suspend MANAGER --controller 2", "cdq create MANAGER --controller 2"] {
        for (name, line) in [
            ("another manager", command.replace("MANAGER", &other)),
            ("forced", format!("{} --force", command.replace("MANAGER", &primary))),
        ] {
            let output = run(&line);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{name}, {line}: {said}");
        }
    }
}
