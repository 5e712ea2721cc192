// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of a migration as its beginning and its end find them: driven by somebody, by nobody, or not to be seen.

use std::cell::RefCell;

use nvme_controller::{Quirks, SubsystemConfig};
use nvme_core::wire::register::CC;
use nvme_host_uefi::commands::{self, BusMaster, CommandError};
use nvme_host_uefi::sys::PciStatus;
use nvme_host_uefi::sys::attributes::{BUS_MASTER, MEMORY};
use nvme_host_uefi::takeover::Seen;

use crate::calls::{Call, Which, refuse, refuse_none};
use crate::faults::misbehave;
use crate::migrate::{Bus, KEPT, MIGRATION, left};
use crate::world::{BLOCKS, Side, Time, open};

#[test]
fn functions_that_nobody_drives_are_told_from_those_of_other_controllers() {
    const UNTOUCHED: &str = "was not enabled, so that nothing shows whether it is controller 2: ";
    const RESET: &str =
        "the destination's controller (0000:01:02.3) is disabled and left without bus mastering";
    const HELD: &str =
        "controller 2 is suspended still: the destination's controller (0000:01:02.3) is another";
    // (name, attributes of source and destination, what the destination does wrong, how it ends, what is said)
    let refuses_state = "status=0/02,queue=admin,opcode=41,dw10=2/ff";
    type Row<'r> = (&'r str, [u64; 2], &'r str, CommandError, &'r [&'r str]);
    let rows: [Row<'_>; 6] = [
        (
            "the source has no bus mastering",
            [MEMORY, MEMORY],
            "status=0/02,queue=admin,opcode=41,dw10=1/ff",
            CommandError::NotMigrated,
            &[RESET, "the source's controller (0000:01:02.3) had no bus mastering before, and has none"],
        ),
        (
            "it refuses to resume",
            [MEMORY | BUS_MASTER, 0],
            "status=0/02,queue=admin,opcode=41,dw10=1/ff",
            CommandError::NotMigrated,
            &[RESET],
        ),
        (
            "it refuses the state",
            [MEMORY | BUS_MASTER, 0],
            refuses_state,
            CommandError::NotMigrated,
            &[RESET, UNTOUCHED],
        ),
        (
            "it refuses the state, with its memory on",
            [MEMORY | BUS_MASTER, MEMORY],
            refuses_state,
            CommandError::NotMigrated,
            &[RESET, UNTOUCHED],
        ),
        (
            "the completion of the state is lost",
            [MEMORY | BUS_MASTER, 0],
            "drop,queue=admin,opcode=41,dw10=2/ff",
            CommandError::NotMigrated,
            &[RESET],
        ),
        (
            "the state may have been set",
            [MEMORY | BUS_MASTER, 0],
            "status=0/06,queue=admin,opcode=41,dw10=2/ff",
            CommandError::DestinationSuspended,
            &[RESET, HELD],
        ),
    ];
    for (name, attributes, rule, expected, said) in rows {
        let (one, other) = (Side::new(9, |lba| lba as u8), Side::new(9, |_| 0));
        let time = Time::of(&[&one, &other]);
        let ((mut from, _), (mut to, _)) = (open(one.manager, &time), open(other.manager, &time));
        let _guest = open(one.guest, &time);
        for (function, attributes) in [one.guest, other.guest].into_iter().zip(attributes) {
            function.attributes.set(attributes);
        }
        let log = RefCell::default();
        let (source, destination) =
            (Bus::new(one.guest, "source", &log), Bus::new(other.guest, "destination", &log));
        let mut out = String::new();
        let sides = (
            commands::Side { session: &mut from, fence: &source },
            commands::Side { session: &mut to, fence: &destination },
        );
        misbehave(&other, rule);
        let ended = commands::migrate(sides.0, sides.1, &MIGRATION, &mut out, &mut || {});
        assert_eq!(ended, Err(expected), "{name}: {out}");
        for words in said {
            assert!(out.contains(words), "{name}: {words}: {out}");
        }
        assert!(log.borrow().contains(&("source", false)) || !said.contains(&"source"), "{name}");
        assert_eq!(one.guest.attributes.get(), attributes[0], "{name}: {out}");
        let [closes, other_closes] = expected.closes();
        assert_eq!((closes, from.close()), (true, Ok(())), "{name}");
        assert!(!other_closes || to.close() == Ok(()), "{name}");
        assert_eq!((left(other.guest), other.guest.may_run()), (KEPT, false), "{name}: {out}");
    }
}

#[test]
fn a_destination_that_nobody_drives_can_be_reached_when_it_runs() {
    use Which::{From, Only};
    // (name, its attributes, calls that fail, how it ends, attributes of source and destination, which of them run)
    const BOTH: u64 = MEMORY | BUS_MASTER;
    type Row<'r> = (&'r str, u64, &'r [(Call, Which)], Result<(), CommandError>, [u64; 2], [bool; 2]);
    let failed = Err(CommandError::NotMigrated);
    let rows: [Row<'_>; 7] = [
        ("it has nothing", 0, &[], Ok(()), [MEMORY, BOTH], [false, true]),
        ("it has its memory space", MEMORY, &[], Ok(()), [MEMORY, BOTH], [false, true]),
        ("it has bus mastering", BUS_MASTER, &[], Ok(()), [MEMORY, BOTH], [false, true]),
        ("it has both", BOTH, &[], Ok(()), [MEMORY, BOTH], [false, true]),
        (
            "its memory space is not enabled at once",
            0,
            &[(Call::EnableAttributes, Only(0))],
            failed,
            [BOTH, MEMORY],
            [true, false],
        ),
        (
            "its memory space is not enabled again",
            0,
            &[(Call::EnableAttributes, From(3))],
            Ok(()),
            [MEMORY, BOTH],
            [false, true],
        ),
        (
            "it is not given bus mastering",
            0,
            &[(Call::EnableAttributes, Only(1))],
            failed,
            [BOTH, MEMORY],
            [true, false],
        ),
    ];
    for (name, attributes, calls, expected, after, run) in rows {
        let (one, other) = (Side::new(9, |lba| lba as u8), Side::new(9, |_| 0));
        let time = Time::of(&[&one, &other]);
        let ((mut from, _), (mut to, _)) = (open(one.manager, &time), open(other.manager, &time));
        let _guest = open(one.guest, &time);
        other.guest.attributes.set(attributes);
        let mut out = String::new();
        let sides = (
            commands::Side { session: &mut from, fence: &BusMaster(Some(&one.guest.io)) },
            commands::Side { session: &mut to, fence: &BusMaster(Some(&other.guest.io)) },
        );
        refuse(calls);
        let ended = commands::migrate(sides.0, sides.1, &MIGRATION, &mut out, &mut || {});
        let refused = refuse_none();
        assert_eq!((ended, refused.contains(&0)), (expected, false), "{name}: {out}");
        assert_eq!((from.close(), to.close()), (Ok(()), Ok(())), "{name}");
        assert_eq!([&one, &other].map(|side| side.guest.attributes.get()), after, "{name}: {out}");
        assert_eq!([&one, &other].map(|side| side.guest.runs()), run, "{name}: {out}");
    }
}

#[test]
fn a_source_that_is_not_in_use_is_refused() {
    let seen = |enabled, ready| Ok(Seen::Registers { enabled, ready });
    type Row<'r> = (&'r str, u32, bool, &'r str, Result<Seen, PciStatus>, &'r str);
    let rows: [Row<'_>; 5] = [
        ("disabled", 0, true, "", seen(false, false), "is not in use: CC.EN is 0, CSTS.RDY is 0; "),
        (
            "enabled and not ready",
            1,
            true,
            "never-ready,controller=2",
            seen(true, false),
            "is not in use: CC.EN is 1, CSTS.RDY is 0; ",
        ),
        ("without memory space", 1, false, "", Ok(Seen::AllOnes), "reads all ones in its registers: "),
        ("gone", 1, true, "all-ones,controller=2", Ok(Seen::AllOnes), "reads all ones in its registers: "),
        ("not to be read", 1, true, "", Err(PciStatus::DEVICE_ERROR), "does not let its registers be read: "),
    ];
    for (name, enabled, memory, rule, expected, said) in rows {
        let (one, other) = (Side::new(9, |lba| lba as u8), Side::new(9, |_| 0));
        let time = Time::of(&[&one, &other]);
        let ((mut from, _), (mut to, _)) = (open(one.manager, &time), open(other.manager, &time));
        if !rule.is_empty() {
            misbehave(&one, rule);
        }
        one.guest.set_register(CC, enabled);
        (0..100).for_each(|_| one.guest.work());
        let attributes = [if memory { MEMORY | BUS_MASTER } else { BUS_MASTER }, MEMORY];
        for (function, attributes) in [one.guest, other.guest].into_iter().zip(attributes) {
            function.attributes.set(attributes);
        }
        let log = RefCell::default();
        let (source, destination) =
            (Bus::new(one.guest, "source", &log), Bus::new(other.guest, "destination", &log));
        let mut out = String::new();
        let sides = (
            commands::Side { session: &mut from, fence: &source },
            commands::Side { session: &mut to, fence: &destination },
        );
        let unread = [(Call::ReadRegister, Which::From(0))];
        refuse(if expected.is_err() { &unread } else { &[] });
        let ended = commands::migrate(sides.0, sides.1, &MIGRATION, &mut out, &mut || {});
        refuse_none();
        let error = CommandError::SourceNotInUse(Some([0, 1, 2, 3]), expected);
        assert_eq!((ended, out.as_str()), (Err(error), ""), "{name}");
        let words = error.to_string();
        let place = "the source's function (0000:01:02.3) ";
        assert!(words.strip_prefix(place).is_some_and(|words| words.starts_with(said)), "{name}: {words}");
        assert!(words.contains("connect -r HANDLE") && words.contains("--source"), "{name}: {words}");
        // Neither function was touched, and both managing controllers are free.
        assert_eq!([one, other].map(|side| side.guest.attributes.get()), attributes, "{name}");
        assert_eq!((log.borrow().len(), error.closes()), (0, [true; 2]), "{name}");
        assert_eq!((from.close(), to.close()), (Ok(()), Ok(())), "{name}");
    }
}

#[test]
fn a_suspension_that_only_the_state_tells_counts() {
    let config = SubsystemConfig {
        name: "nqn.2014-08.org.nvmexpress:uefi:untold",
        quirks: Quirks::SUSPENDED_NOT_REPORTED,
        ..SubsystemConfig::default()
    };
    let (one, other) = (Side::new(9, |lba| lba as u8), Side::with(config, 9, BLOCKS, |_| 0));
    let time = Time::of(&[&one, &other]);
    let ((mut from, _), (mut to, _)) = (open(one.manager, &time), open(other.manager, &time));
    let (_guest, _other_guest) = (open(one.guest, &time), open(other.guest, &time));
    let log = RefCell::default();
    let (source, destination) =
        (Bus::new(one.guest, "source", &log), Bus::new(other.guest, "destination", &log));
    let mut out = String::new();
    let sides = (
        commands::Side { session: &mut from, fence: &source },
        commands::Side { session: &mut to, fence: &destination },
    );
    misbehave(&other, "status=0/02,queue=admin,opcode=41,dw10=1/ff;all-ones,controller=2");
    let ended = commands::migrate(sides.0, sides.1, &MIGRATION, &mut out, &mut || {});
    assert_eq!(ended, Err(CommandError::DestinationSuspended), "{out}");
    assert!(out.contains("controller 2 is suspended still: "), "{out}");
    assert_eq!(from.close(), Ok(()));
    other.device.borrow_mut().clear_faults();
    assert_eq!([one.guest.runs(), other.guest.may_run()], [true, false], "{out}");
}
