// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controllers that fail, by the rules of `nvme_controller::fault`: whatever fails is told, and all memory and all mappings
//! come back, unless the controller cannot be disabled.

use std::time::Duration;

use nvme_controller::fault::{FaultRule, FaultSlot, FaultTable, HeldSlot};
use nvme_core::admin::CallError;
use nvme_core::controller::{Fault, Link};
use nvme_core::wire::Lba;
use nvme_host_uefi::arena::{ArenaSlot, PciArena};
use nvme_host_uefi::commands::words::parse;
use nvme_host_uefi::registers::PciRegisters;
use nvme_host_uefi::session::{MOST_NAMESPACES, MOST_UNLISTED, Session, SessionError, Storage};

use crate::sys::{self, Manners, PAGE};
use crate::world::{NAMESPACE, Own, Side, Time, lent, open};

const NOTHING: [(usize, usize); 2] = [(0, 0); 2];

/// Lets the controllers of `side` misbehave, by rules with `;` between them.
pub(crate) fn misbehave(side: &Side, rules: &str) -> &'static [FaultSlot] {
    let rules = rules.split(';').map(|rule| FaultSlot::new(FaultRule::parse(rule).expect("a rule")));
    let slots: &'static [FaultSlot] = Box::leak(rules.collect());
    side.device.borrow_mut().set_faults(FaultTable::new(slots, lent(4, HeldSlot::new)));
    slots
}

fn read(session: &mut Own) -> Result<(), SessionError> {
    session.read(NAMESPACE, Lba::new(0), 8, |_| Ok(()))
}

fn shape(session: &mut Own) -> Result<(), SessionError> {
    session.shape(NAMESPACE).map(drop)
}

#[test]
fn what_fails_in_use_is_told_and_everything_comes_back() {
    type Use = fn(&mut Own) -> Result<(), SessionError>;
    type Expected = fn(&SessionError) -> bool;
    let rows: [(&str, &str, Use, Expected, bool); 8] = [
        (
            "an admin command is lost",
            "drop,queue=admin,opcode=06",
            shape,
            |error| is_admin_timeout(error),
            true,
        ),
        (
            "an admin command fails",
            "status=0/6,queue=admin,opcode=06",
            shape,
            |error| matches!(error, SessionError::Admin(_, CallError::Status(_))),
            true,
        ),
        (
            "a Read is lost",
            "drop,queue=io,opcode=02",
            read,
            |error| *error == SessionError::TimedOut("Read"),
            false,
        ),
        (
            "a Read fails",
            "status=2/81,queue=io,opcode=02",
            read,
            |error| matches!(error, SessionError::Io("Read", _)),
            true,
        ),
        (
            "no completion queue",
            "status=0/6,queue=admin,opcode=05",
            read,
            |error| matches!(error, SessionError::Admin(..)),
            true,
        ),
        (
            "no submission queue",
            "status=0/6,queue=admin,opcode=01",
            read,
            |error| matches!(error, SessionError::Admin(..)),
            true,
        ),
        (
            "the creation of a queue is lost",
            "drop,queue=admin,opcode=01",
            read,
            |error| is_admin_timeout(error) || matches!(error, SessionError::TimedOut(_)),
            true,
        ),
        (
            "it fails altogether",
            "fatal,queue=io,opcode=02",
            read,
            |error| matches!(error, SessionError::Fault(Fault::FatalStatus)),
            false,
        ),
    ];
    for (name, rule, run, expected, in_order) in rows {
        let side = Side::new(9, |_| 0);
        let time = Time::of(&[&side]);
        let (mut session, arena) = open(side.manager, &time);
        session.set_timeout(Duration::from_secs(1));
        let rules = misbehave(&side, rule);
        let error = run(&mut session).expect_err(name);
        assert!(expected(&error), "{name}: {error:?}");
        assert!(rules[0].fired() > 0, "{name}");
        side.device.borrow_mut().clear_faults();
        assert_ne!(side.live(), NOTHING, "{name}");
        assert_eq!(session.close().is_ok(), in_order, "{name}");
        assert_eq!((arena.live(), arena.lost(), side.live()), (0, 0, NOTHING), "{name}");
    }
}

fn is_admin_timeout(error: &SessionError) -> bool {
    matches!(error, SessionError::Admin(_, CallError::TimedOut))
}

#[test]
fn a_deletion_that_fails_is_told_and_everything_comes_back() {
    for (name, rule) in [
        ("the submission queue is not deleted", "status=0/6,queue=admin,opcode=00"),
        ("the completion queue is not deleted", "status=0/6,queue=admin,opcode=04"),
        ("the deletion is lost", "drop,queue=admin,opcode=00"),
    ] {
        let side = Side::new(9, |_| 0);
        let time = Time::of(&[&side]);
        let (mut session, arena) = open(side.manager, &time);
        session.set_timeout(Duration::from_secs(1));
        assert_eq!(read(&mut session), Ok(()), "{name}");
        let rules = misbehave(&side, rule);
        let closed = session.close();
        assert!(
            matches!(closed, Err(SessionError::Admin(..) | SessionError::TimedOut(_))),
            "{name}: {closed:?}"
        );
        assert!(rules[0].fired() > 0, "{name}");
        assert_eq!((arena.live(), arena.lost(), side.live()), (0, 0, NOTHING), "{name}");
    }
}

#[test]
fn one_that_is_gone_is_told_and_keeps_what_it_may_still_reach() {
    let side = Side::new(9, |_| 0);
    let time = Time::of(&[&side]);
    let (mut session, arena) = open(side.manager, &time);
    assert_eq!(read(&mut session), Ok(()));
    misbehave(&side, "all-ones");
    // The core looks at the controller from time to time, not for each command.
    (0..50_000).for_each(|_| session.nap());
    let gone = Err(SessionError::Fault(Fault::Removed));
    assert_eq!(read(&mut session), gone);
    // Nothing shows that it has let go of queues and buffers: perhaps only a link has failed.
    let (live, mapped) = (arena.live(), side.live());
    assert_eq!(session.close(), gone);
    assert_eq!((arena.live(), arena.lost(), side.live()), (live, 0, mapped));
    assert_ne!(mapped, NOTHING);
}

#[test]
fn one_that_does_not_come_up_is_told_and_everything_comes_back() {
    type Expected = fn(&SessionError) -> bool;
    let rows: [(&str, &str, Expected); 3] = [
        ("never ready", "never-ready", |error| *error == SessionError::Fault(Fault::NotReadyInTime)),
        ("Identify is lost", "drop,queue=admin,opcode=06", |error| is_admin_timeout(error)),
        ("Identify fails", "status=0/6,queue=admin,opcode=06", |error| {
            matches!(error, SessionError::Admin("Identify Controller", CallError::Status(_)))
        }),
    ];
    for (name, rule, expected) in rows {
        let side = Side::new(9, |_| 0);
        let time = Time::of(&[&side]);
        let rules = misbehave(&side, rule);
        let mut slots = [const { ArenaSlot::new() }; 16];
        let (registers, mut storage, link) =
            (PciRegisters::new(&side.manager.io), Storage::new(), Link::new());
        let arena = PciArena::new(&side.manager.io, &mut slots);
        let disabling = sys::begin(&registers, &arena, &link);
        let error = Session::open(disabling, &arena, &mut storage, &time).expect_err(name);
        assert!(expected(&error), "{name}: {error:?}");
        assert!(rules[0].fired() > 0, "{name}");
        assert_eq!((arena.live(), arena.lost(), side.live()), (0, 0, NOTHING), "{name}");
    }
}

#[test]
fn a_controller_that_names_namespaces_without_end_is_left() {
    fn is_identity(page: &[u8; PAGE]) -> bool {
        // VER; no other page has anything there.
        page[80..84] != [0; 4]
    }
    fn ancient(page: &mut [u8; PAGE]) {
        if is_identity(page) {
            page[80..84].fill(0);
            // NN
            page[516..520].fill(0xFF);
        }
    }
    fn endless(page: &mut [u8; PAGE]) {
        thread_local! {
            static LAST: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
        }
        if !is_identity(page) {
            for place in page.as_chunks_mut::<4>().0 {
                LAST.set(LAST.get() + 1);
                *place = LAST.get().to_le_bytes();
            }
        }
    }
    type Alters = fn(&mut [u8; PAGE]);
    let rows: [(&str, Alters, u32); 2] =
        [("one that has no list", ancient, MOST_UNLISTED), ("lists without end", endless, MOST_NAMESPACES)];
    for (name, alters, most) in rows {
        let side = Side::new(9, |_| 0);
        let time = Time::of(&[&side]);
        side.manager.memory.manners.set(Manners { alters: Some(alters), ..Manners::default() });
        let (mut session, _) = open(side.manager, &time);
        let (mut seen, mut last) = (0, 0);
        let ended = session.for_each_namespace(|_, namespace| {
            seen += 1;
            last = namespace.get();
            if seen > most { Err(SessionError::NoQueues) } else { Ok(()) }
        });
        assert_eq!((ended, seen, last), (Err(SessionError::TooManyNamespaces(most)), most, most), "{name}");
        // What it names can be said.
        let words = SessionError::TooManyNamespaces(most).to_string();
        let hint = words.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).expect("a hint");
        let line = hint.replace("LBA", "0").replace("COUNT", "1").replace("ID", "5");
        assert!(parse(line.split(' ')).is_ok() && line.contains("--namespace 5"), "{words}");
        assert_eq!(session.close(), Ok(()), "{name}");
    }
}
