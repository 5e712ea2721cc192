// SPDX-License-Identifier: MIT OR Apache-2.0
//! `migrate`: what moves, what is refused, and how each end leaves the two controllers that are migrated between.

use std::cell::{Cell, RefCell};

use nvme_core::wire::register::{CC, CSTS};
use nvme_core::wire::{ControllerId, Lba};
use nvme_host_uefi::commands::{self, BusMaster, CommandError, Fence, Migration};
use nvme_host_uefi::sys::attributes::{BUS_MASTER, MEMORY};
use nvme_host_uefi::sys::{PciStatus, attributes};
use nvme_host_uefi::takeover::Seen;

use crate::calls::{Call, Which, refuse, refuse_none};
use crate::faults::misbehave;
use crate::sys::Function;
use crate::world::{BLOCKS, GUEST, NAMESPACE, Side, Time, open};

const NOTHING: [(usize, usize); 2] = [(0, 0); 2];

/// Bus mastering of a function, and who changed it.
pub(crate) struct Bus<'l> {
    function: BusMaster<'static>,
    name: &'static str,
    log: &'l RefCell<Vec<(&'static str, bool)>>,
    /// Called when it is given bus mastering.
    given: Option<&'l dyn Fn()>,
}

impl<'l> Bus<'l> {
    pub(crate) fn new(
        function: &'static Function,
        name: &'static str,
        log: &'l RefCell<Vec<(&'static str, bool)>>,
    ) -> Self {
        Self { function: BusMaster(Some(&function.io)), name, log, given: None }
    }
}

impl Fence for Bus<'_> {
    fn let_through(&self, on: bool) -> Result<(), PciStatus> {
        self.log.borrow_mut().push((self.name, on));
        if let Some(given) = self.given.filter(|_| on) {
            given();
        }
        self.function.let_through(on)
    }

    fn is_through(&self) -> Result<bool, PciStatus> {
        self.function.is_through()
    }

    fn open_registers(&self) -> Result<(), PciStatus> {
        self.function.open_registers()
    }

    fn disable(&self) -> Result<(), PciStatus> {
        self.function.disable()
    }

    fn look(&self) -> Result<Seen, PciStatus> {
        self.function.look()
    }

    fn location(&self) -> Result<[usize; 4], PciStatus> {
        self.function.location()
    }
}

pub(crate) const MIGRATION: Migration = Migration { source: GUEST, destination: GUEST, namespace: NAMESPACE };

#[test]
fn a_controller_with_its_namespace_moves_while_it_is_written_to() {
    let (one, other) = (Side::new(9, |lba| lba as u8), Side::new(9, |_| 0));
    let time = Time::of(&[&one, &other]);
    let ((mut from, _), (mut to, _), (mut guest, guest_arena)) =
        (open(one.manager, &time), open(other.manager, &time), open(one.guest, &time));
    one.guest.attributes.set(attributes::MEMORY | attributes::BUS_MASTER);
    let log = RefCell::default();
    let source = Bus::new(one.guest, "source", &log);
    let destination = Bus::new(other.guest, "destination", &log);
    let (mut out, mut written) = (String::new(), 0);
    let mut meanwhile = || {
        // Early, before it is suspended.
        if written < 5 {
            guest.write(NAMESPACE, Lba::new(written * 100), &[0xA0 + written as u8; 512]).expect("a write");
            written += 1;
        }
    };
    let sides = (
        commands::Side { session: &mut from, fence: &source },
        commands::Side { session: &mut to, fence: &destination },
    );
    let migrated = commands::migrate(sides.0, sides.1, &MIGRATION, &mut out, &mut meanwhile);
    assert_eq!((migrated, written), (Ok(()), 5), "{out}");
    assert!(out.contains("migrated: ") && out.contains("round 0: "), "{out}");
    assert_eq!(*one.media.bytes.borrow(), *other.media.bytes.borrow(), "block for block");
    assert_eq!(other.media.bytes.borrow()[400 * 512], 0xA4, "what was written meanwhile");
    let switched = [("destination", false), ("source", false), ("destination", true), ("source", false)];
    assert_eq!(*log.borrow(), switched, "taken from the source once more when it is disabled");
    assert_eq!(one.guest.attributes.get() & attributes::BUS_MASTER, 0, "the source reaches no memory");
    assert_eq!((from.close(), to.close()), (Ok(()), Ok(())));
    assert_eq!((one.manager.memory.live(), other.live()), ((0, 0), NOTHING));
    assert!(guest_arena.live() > 0, "the guest has what it had");
}

#[test]
fn a_destination_that_loses_its_memory_space_on_the_way_has_it_again() {
    let (one, other) = (Side::new(9, |lba| lba as u8), Side::new(9, |_| 0));
    let time = Time::of(&[&one, &other]);
    let ((mut from, _), (mut to, _)) = (open(one.manager, &time), open(other.manager, &time));
    let _guest = open(one.guest, &time);
    let log = RefCell::default();
    let source = Bus::new(one.guest, "source", &log);
    let mut destination = Bus::new(other.guest, "destination", &log);
    let lose = || other.guest.attributes.set(0);
    destination.given = Some(&lose);
    let mut out = String::new();
    let sides = (
        commands::Side { session: &mut from, fence: &source },
        commands::Side { session: &mut to, fence: &destination },
    );
    let ended = commands::migrate(sides.0, sides.1, &MIGRATION, &mut out, &mut || {});
    assert_eq!((ended, other.guest.attributes.get()), (Ok(()), MEMORY | BUS_MASTER), "{out}");
    assert_eq!([one.guest.may_run(), other.guest.runs()], [false, true], "{out}");
    assert_eq!((from.close(), to.close()), (Ok(()), Ok(())));
}

#[test]
fn a_migration_that_cannot_be_is_refused_or_rolled_back() {
    let nobody = Migration { destination: ControllerId::new(9), ..MIGRATION };
    let itself = Migration { source: ControllerId::new(1), ..MIGRATION };
    for (name, shift, migration, expected) in [
        ("to itself", 9, itself, CommandError::TargetIsManager(1)),
        ("namespaces of other blocks", 12, MIGRATION, CommandError::Unlike),
        ("to nobody", 9, nobody, CommandError::NotMigrated),
    ] {
        let (one, other) = (Side::new(9, |lba| lba as u8), Side::new(shift, |_| 0));
        let time = Time::of(&[&one, &other]);
        let ((mut from, _), (mut to, _)) = (open(one.manager, &time), open(other.manager, &time));
        let guest = open(one.guest, &time).0;
        let log = RefCell::default();
        other.guest.attributes.set(attributes::MEMORY | attributes::BUS_MASTER);
        let source = Bus::new(one.guest, "source", &log);
        let destination = Bus::new(other.guest, "destination", &log);
        let mut out = String::new();
        let sides = (
            commands::Side { session: &mut from, fence: &source },
            commands::Side { session: &mut to, fence: &destination },
        );
        let ended = commands::migrate(sides.0, sides.1, &migration, &mut out, &mut || {});
        assert_eq!(ended, Err(expected), "{name}: {out}");
        // Whoever uses the destination's function goes on.
        let expected: &[_] =
            if name == "to nobody" { &[("destination", false), ("destination", true)] } else { &[] };
        assert_eq!(*log.borrow(), expected, "{name}");
        let both = attributes::MEMORY | attributes::BUS_MASTER;
        assert_eq!(other.guest.attributes.get(), both, "{name}");
        assert_eq!((from.close(), to.close(), guest.close()), (Ok(()), Ok(()), Ok(())), "{name}");
        assert_eq!((one.live(), other.live()), (NOTHING, NOTHING), "{name}");
    }
}

#[test]
fn a_namespace_is_not_copied_onto_itself() {
    let nqn = |name: &str| format!("nqn.2014-08.org.nvmexpress:uefi:{name}");
    for (name, names, serials, expected) in [
        ("one name", [nqn("a"), nqn("a")], ["1", "2"], Err(CommandError::OneSubsystem)),
        ("two names", [nqn("a"), nqn("b")], ["1", "1"], Ok(())),
        ("no names, one number", [String::new(), String::new()], ["1", "1"], Err(CommandError::OneSubsystem)),
        ("no names, two numbers", [String::new(), String::new()], ["1", "2"], Ok(())),
    ] {
        let [one_name, other_name] = names;
        let one = Side::named(one_name, serials[0], 9, BLOCKS, |lba| lba as u8);
        let other = Side::named(other_name, serials[1], 9, BLOCKS, |_| 0);
        let time = Time::of(&[&one, &other]);
        let ((mut from, _), (mut to, _)) = (open(one.manager, &time), open(other.manager, &time));
        let _guest = open(one.guest, &time);
        let log = RefCell::default();
        let (source, destination) =
            (Bus::new(one.guest, "source", &log), Bus::new(other.guest, "destination", &log));
        let mut out = String::new();
        let sides = (
            commands::Side { session: &mut from, fence: &source },
            commands::Side { session: &mut to, fence: &destination },
        );
        let ended = commands::migrate(sides.0, sides.1, &MIGRATION, &mut out, &mut || {});
        assert_eq!(ended, expected, "{name}: {out}");
        assert_eq!(log.borrow().is_empty(), expected.is_err(), "{name}");
        assert_eq!((from.close(), to.close()), (Ok(()), Ok(())), "{name}");
    }
}

fn is_disabled(function: &Function) -> bool {
    function.register(CC) & 1 == 0 && function.register(CSTS) & 1 == 0
}

/// How a controller that is migrated is left: whether it has bus mastering, and whether it is enabled.
pub(crate) fn left(function: &Function) -> (bool, bool) {
    (function.attributes.get() & BUS_MASTER != 0, !is_disabled(function))
}

pub(crate) const KEPT: (bool, bool) = (false, false);
const RUNS: (bool, bool) = (true, true);

#[test]
fn at_most_one_of_the_two_ever_runs_again() {
    const REFUSED: &str = "status=0/02,queue=admin,opcode=41,dw10=1/ff";
    const LOST: &str = "drop,queue=admin,opcode=41,dw10=1/ff";
    use Which::{From, Only};
    struct Row {
        name: &'static str,
        /// What the source's, and the destination's, controllers do wrong.
        rules: [&'static str; 2],
        /// What the source's do wrong from the switch on.
        late: &'static str,
        calls: &'static [(Call, Which)],
        ended: Result<(), CommandError>,
        said: &'static [&'static str],
        /// Source and destination once the sessions are closed.
        left: [(bool, bool); 2],
    }
    let failed = Err(CommandError::NotMigrated);
    let no_fence: &[_] = &[(Call::DisableAttributes, Only(1))];
    let rows = [
        Row {
            name: "it completes",
            rules: ["", ""],
            late: "",
            calls: &[],
            ended: Ok(()),
            said: &[
                "migrated: ",
                "the source's controller (0000:01:02.3) is disabled and left without bus mastering",
            ],
            left: [KEPT, RUNS],
        },
        Row {
            name: "it completes, and the source answers no register",
            rules: ["all-ones,controller=2,nth=3", ""],
            late: "",
            calls: &[],
            ended: Err(CommandError::SourceSuspended),
            said: &[
                "migrated: ",
                "the source's controller (0000:01:02.3) does not let itself be disabled: it is left without",
                "controller 2 is suspended still: the source's controller (0000:01:02.3) is another one, or is not reset",
            ],
            left: [(false, true), RUNS],
        },
        Row {
            name: "it completes, and the source does not let itself be disabled",
            rules: ["all-ones=4reads,controller=2,nth=3", ""],
            late: "",
            calls: &[],
            ended: Err(CommandError::SourceSuspended),
            said: &[
                "migrated: ",
                "the source's controller (0000:01:02.3) does not let itself be disabled: it is left without",
                "controller 2 is suspended still: the source's controller (0000:01:02.3) is another one, or is not reset",
            ],
            left: [(false, true), RUNS],
        },
        Row {
            name: "it completes, and nobody says whether the source is suspended",
            rules: ["", ""],
            late: "drop,queue=admin,opcode=42",
            calls: &[],
            ended: Err(CommandError::SourceSuspended),
            said: &[
                "migrated: ",
                "the source's controller (0000:01:02.3) is disabled and left",
                "nothing shows whether controller 2 is suspended still (",
            ],
            left: [KEPT, RUNS],
        },
        Row {
            name: "it completes, and the source is not told of once it is disabled",
            rules: ["", ""],
            late: "status=1/1f,queue=admin,opcode=42,nth=2",
            calls: &[],
            ended: Ok(()),
            said: &["migrated: ", "the source's controller (0000:01:02.3) is disabled and left"],
            left: [KEPT, RUNS],
        },
        Row {
            name: "it completes, and the source is not told of before either",
            rules: ["", ""],
            late: "status=1/1f,queue=admin,opcode=42",
            calls: &[],
            ended: Err(CommandError::SourceSuspended),
            said: &["migrated: ", "nothing shows whether controller 2 is suspended still ("],
            left: [KEPT, RUNS],
        },
        Row {
            name: "it completes, and an error that is no refusal comes once the source is disabled",
            rules: ["", ""],
            late: "status=0/06,queue=admin,opcode=42,nth=2",
            calls: &[],
            ended: Err(CommandError::SourceSuspended),
            said: &["migrated: ", "nothing shows whether controller 2 is suspended still ("],
            left: [KEPT, RUNS],
        },
        Row {
            name: "it completes, and the answer is lost once the source is disabled",
            rules: ["", ""],
            late: "drop,queue=admin,opcode=42,nth=2",
            calls: &[],
            ended: Err(CommandError::SourceSuspended),
            said: &["migrated: ", "nothing shows whether controller 2 is suspended still ("],
            left: [KEPT, RUNS],
        },
        Row {
            name: "it completes, the source is not told of afterwards, and is not seen to be disabled",
            rules: ["", ""],
            late: "status=1/1f,queue=admin,opcode=42,nth=2;all-ones=4reads,controller=2",
            calls: &[],
            ended: Err(CommandError::SourceSuspended),
            said: &["migrated: ", "nothing shows whether controller 2 is suspended still ("],
            left: [(false, true), RUNS],
        },
        Row {
            name: "it completes, the source is not told of afterwards, and was not seen to be in use before",
            rules: ["", ""],
            late: "status=1/1f,queue=admin,opcode=42,nth=2;all-ones=2reads,controller=2,nth=1",
            calls: &[],
            ended: Err(CommandError::SourceSuspended),
            said: &["migrated: ", "nothing shows whether controller 2 is suspended still ("],
            left: [KEPT, RUNS],
        },
        Row {
            name: "the destination refuses to resume, and is not told of once it is disabled",
            rules: [
                "",
                "status=0/02,queue=admin,opcode=41,dw10=1/ff;status=1/1f,queue=admin,opcode=42,nth=2",
            ],
            late: "",
            calls: &[],
            ended: failed,
            said: &[
                "rolled back, the source runs: ",
                "the destination's controller (0000:01:02.3) is disabled and left",
            ],
            left: [RUNS, KEPT],
        },
        Row {
            name: "the destination does not say that it runs, nor anybody whether the source is suspended",
            rules: ["", LOST],
            late: "drop,queue=admin,opcode=42",
            calls: &[],
            ended: Err(CommandError::SourceSuspended),
            said: &[
                "it runs by the reset of its managing controller",
                "the source's controller (0000:01:02.3) is disabled and left",
                "nothing shows whether controller 2 is suspended still (",
            ],
            left: [KEPT, RUNS],
        },
        Row {
            name: "the destination refuses to resume and to be disabled",
            rules: ["", "status=0/02,queue=admin,opcode=41,dw10=1/ff;all-ones=4reads,controller=2"],
            late: "",
            calls: &[],
            ended: Err(CommandError::DestinationSuspended),
            said: &[
                "rolled back, the source runs: ",
                "the destination's controller (0000:01:02.3) does not let itself be disabled: it is left without",
                "controller 2 is suspended still: the destination's controller (0000:01:02.3) is another one, or is not reset",
            ],
            left: [RUNS, (false, true)],
        },
        Row {
            name: "the destination refuses to resume, and nobody says whether it is suspended",
            rules: ["", "status=0/02,queue=admin,opcode=41,dw10=1/ff;drop,queue=admin,opcode=42"],
            late: "",
            calls: &[],
            ended: Err(CommandError::DestinationSuspended),
            said: &[
                "rolled back, the source runs: ",
                "the destination's controller (0000:01:02.3) is disabled and left",
                "nothing shows whether controller 2 is suspended still (",
            ],
            left: [RUNS, KEPT],
        },
        Row {
            name: "the state is lost, and nobody says whether the destination is suspended",
            rules: ["", "drop,queue=admin,opcode=41,dw10=2/ff;drop,queue=admin,opcode=42"],
            late: "",
            calls: &[],
            ended: Err(CommandError::DestinationSuspended),
            said: &[
                "rolled back, the source runs: ",
                "the destination's controller (0000:01:02.3) is disabled and left",
                "nothing shows whether controller 2 is suspended still (",
            ],
            left: [RUNS, KEPT],
        },
        Row {
            name: "the destination is told nothing",
            rules: ["status=0/02,queue=admin,opcode=42", ""],
            late: "",
            calls: &[],
            ended: failed,
            said: &["rolled back, the source runs: "],
            left: [RUNS, RUNS],
        },
        Row {
            name: "the destination refuses the state",
            rules: ["", "status=0/02,queue=admin,opcode=41,dw10=2/ff"],
            late: "",
            calls: &[],
            ended: failed,
            said: &[
                "rolled back, the source runs: ",
                "the destination's controller (0000:01:02.3) is disabled and left",
            ],
            left: [RUNS, KEPT],
        },
        Row {
            name: "the destination refuses to resume",
            rules: ["", REFUSED],
            late: "",
            calls: &[],
            ended: failed,
            said: &[
                "rolled back, the source runs: ",
                "the destination's controller (0000:01:02.3) is disabled and left",
            ],
            left: [RUNS, KEPT],
        },
        Row {
            name: "the source is not fenced",
            rules: ["", ""],
            late: "",
            calls: no_fence,
            ended: failed,
            said: &[
                "rolled back, the source runs: ",
                "the destination's controller (0000:01:02.3) is disabled and left",
            ],
            left: [RUNS, KEPT],
        },
        Row {
            name: "the source is not given its memory at once",
            rules: ["", REFUSED],
            late: "",
            calls: &[(Call::EnableAttributes, Only(2))],
            ended: failed,
            said: &[
                "rolled back to the source: ",
                "the source's controller (0000:01:02.3) has bus mastering again",
                "the destination's controller (0000:01:02.3) is disabled and left",
            ],
            left: [RUNS, KEPT],
        },
        Row {
            name: "the source is not given its memory",
            rules: ["", REFUSED],
            late: "",
            calls: &[(Call::EnableAttributes, From(2))],
            ended: failed,
            said: &[
                "rolled back to the source: ",
                "the destination's controller (0000:01:02.3) is disabled and left",
                "the source's controller (0000:01:02.3) has no bus mastering, and cannot be given it",
                "(connect -r HANDLE in the shell), gives it bus mastering, but resets it, and what the guest had there \
                 is lost",
            ],
            left: [(false, true), KEPT],
        },
        Row {
            name: "the source is not resumed",
            rules: [REFUSED, ""],
            late: "",
            calls: no_fence,
            ended: failed,
            said: &[
                "rolled back; the source could not be resumed (",
                "destination's controller (0000:01:02.3) is disabled",
            ],
            left: [RUNS, KEPT],
        },
        Row {
            name: "the destination is not made to forget",
            rules: ["", ""],
            late: "",
            calls: &[(Call::DisableAttributes, Only(1)), (Call::DisableAttributes, Only(2))],
            ended: failed,
            said: &[
                "was never let run, and the source runs again by the reset",
                "destination's controller (0000:01:02.3) is disabled",
            ],
            left: [RUNS, KEPT],
        },
        Row {
            name: "the destination does not say that it runs",
            rules: ["", LOST],
            late: "",
            calls: &[],
            ended: failed,
            said: &[
                "it runs by the reset of its managing controller",
                "without bus mastering, until its driver resets it, which its next use does: use none of its block devices",
            ],
            left: [KEPT, RUNS],
        },
    ];
    for Row { name, rules, late, calls, ended, said, left: expected } in rows {
        let (one, other) = (Side::new(9, |lba| lba as u8), Side::new(9, |_| 0));
        let time = Time::of(&[&one, &other]);
        let ((mut from, _), (mut to, _)) = (open(one.manager, &time), open(other.manager, &time));
        // Both are in use.
        let (_guest, _other_guest) = (open(one.guest, &time), open(other.guest, &time));
        for function in [one.guest, other.guest] {
            function.attributes.set(MEMORY | BUS_MASTER);
            assert_eq!(left(function), RUNS, "{name}");
        }
        let log = RefCell::default();
        let (source, mut destination) =
            (Bus::new(one.guest, "source", &log), Bus::new(other.guest, "destination", &log));
        let worse = Cell::new(None);
        let worsen = || worse.set(worse.get().or_else(|| Some(misbehave(&one, late))));
        if !late.is_empty() {
            destination.given = Some(&worsen);
        }
        let fired = [&one, &other].into_iter().zip(rules).filter(|(_, rule)| !rule.is_empty());
        let fired: Vec<_> = fired.flat_map(|(side, rule)| misbehave(side, rule)).collect();
        let mut out = String::new();
        let sides = (
            commands::Side { session: &mut from, fence: &source },
            commands::Side { session: &mut to, fence: &destination },
        );
        refuse(calls);
        let result = commands::migrate(sides.0, sides.1, &MIGRATION, &mut out, &mut || {});
        let refused = refuse_none();
        assert_eq!(result, ended, "{name}: {out}");
        if let Err(error @ CommandError::SourceSuspended) = result {
            // It may not have said that it runs.
            let words = error.to_string();
            assert!(
                words.starts_with("the guest runs at the destination, or is to, but nothing shows"),
                "{words}"
            );
        }
        let worse = worse.get().unwrap_or_default();
        assert_eq!(worse.is_empty(), late.is_empty(), "{name}");
        assert!(fired.into_iter().chain(worse).all(|rule| rule.fired() > 0), "{name}: {out}");
        assert!(refused.iter().all(|failed| *failed > 0), "{name}: {refused:?} {out}");
        for words in said {
            assert!(out.contains(words), "{name}: {words:?} is not in {out}");
        }
        for side in [&one, &other] {
            side.device.borrow_mut().clear_faults();
        }
        let closes = result.map_or_else(|error| error.closes(), |()| [true; 2]);
        for (session, closes) in [(from, closes[0]), (to, closes[1])] {
            assert!(!closes || session.close() == Ok(()), "{name}");
        }
        assert_eq!([left(one.guest), left(other.guest)], expected, "{name}: {out}");
        // Both only where nothing was given to the destination, which goes on with what it had.
        let both = one.guest.may_run() && other.guest.may_run();
        assert_eq!(both, expected == [RUNS, RUNS], "{name}: {out}");
    }
}
