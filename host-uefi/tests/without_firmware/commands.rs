// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions and commands against controllers that have everything.

use std::cell::RefCell;
use std::time::Duration;

use nvme_core::wire::identify::{AnnouncingField, NotAnnounced};
use nvme_core::wire::log::LogPageId;
use nvme_core::wire::{Lba, NamespaceId};
use nvme_host_uefi::commands::{self, CommandError, Waiting, Watch};
use nvme_host_uefi::registers::PciRegisters;
use nvme_host_uefi::session::SessionError;

use crate::faults::misbehave;
use crate::migrate::{Bus, MIGRATION};
use crate::sys::{Manners, PAGE};
use crate::world::{BLOCKS, NAMESPACE, Side, Time, open};

const NOTHING: [(usize, usize); 2] = [(0, 0); 2];

#[test]
fn blocks_are_read_and_written_wherever_memory_is_on_the_bus() {
    let pieces = |piece| Manners { piece, ..Manners::default() };
    for (name, shift, manners) in [
        ("blocks of 512 bytes", 9, pieces(None)),
        ("blocks of 4 KiB", 12, pieces(None)),
        // Queues are contiguous: no memory of theirs is longer than sixteen pages.
        ("memory in pieces of sixteen pages", 12, pieces(Some(16 * PAGE))),
    ] {
        let side = Side::new(shift, |lba| lba as u8);
        side.manager.memory.manners.set(manners);
        let time = Time::of(&[&side]);
        let (mut session, arena) = open(side.manager, &time);
        let shape = session.shape(NAMESPACE).expect(name);
        assert_eq!((shape.blocks, shape.block_bytes), (BLOCKS, 1 << shift), "{name}");
        let ours: Vec<u8> = (0..300 << shift).map(|n: usize| (n % 251) as u8).collect();
        session.write(NAMESPACE, Lba::new(5), &ours).expect(name);
        session.flush(NAMESPACE).expect(name);
        let mut read = Vec::new();
        let each = |bytes: &[u8]| {
            read.extend_from_slice(bytes);
            Ok::<(), SessionError>(())
        };
        session.read(NAMESPACE, Lba::new(0), BLOCKS, each).expect(name);
        assert!(read == *side.media.bytes.borrow() && read[5 << shift..305 << shift] == ours, "{name}");
        session.write_zeroes(NAMESPACE, Lba::new(0), 8).expect(name);
        assert!(side.media.bytes.borrow()[..8 << shift].iter().all(|byte| *byte == 0), "{name}");
        let part = session.write(NAMESPACE, Lba::new(0), &[0; 100]);
        assert_eq!(part, Err(SessionError::NotWhole(100, 1 << shift)), "{name}");
        let other = NamespaceId::new(9);
        assert_eq!(session.shape(other), Err(SessionError::NoNamespace(other)), "{name}");
        let last = session.read(NAMESPACE, Lba::new(BLOCKS), 1, |_| Ok::<(), SessionError>(()));
        assert!(matches!(last, Err(SessionError::Io("Read", _))), "{name}: {last:?}");
        assert_eq!(session.close(), Ok(()), "{name}");
        assert_eq!((arena.live(), arena.lost(), side.live()), (0, 0, NOTHING), "{name}");
    }
}

#[test]
fn commands_tell_what_there_is() {
    let side = Side::new(9, |lba| if lba == 3 { b'x' } else { 0 });
    let time = Time::of(&[&side]);
    let (mut session, _) = open(side.manager, &time);
    type Run = fn(&mut crate::world::Own, &mut String) -> Result<(), CommandError>;
    let rows: [(&str, Run, &[&str]); 6] = [
        (
            "identify",
            |session, out| commands::identify(session, out),
            &[
                "controller         1\n",
                "TRATTR             0x03",
                "namespace 1        1024 blocks of 512 bytes",
            ],
        ),
        (
            "read",
            |session, out| commands::read(session, NAMESPACE, 3, 1, out),
            &["0000000600  78 78", "00000007f0  78", "xxxxxxxxxxxxxxxx\n"],
        ),
        ("health", |session, out| commands::log(session, LogPageId::new(2), out), &["temperature"]),
        ("errors", |session, out| commands::log(session, LogPageId::new(1), out), &["no errors"]),
        (
            "firmware",
            |session, out| commands::log(session, LogPageId::new(3), out),
            &["active slot 1", "slot 1 1"],
        ),
        ("bytes", |session, out| commands::log(session, LogPageId::new(5), out), &["00000001f0  "]),
    ];
    for (name, run, expected) in rows {
        let mut out = String::new();
        assert_eq!(run(&mut session, &mut out), Ok(()), "{name}");
        for words in expected {
            assert!(out.contains(words), "{name}: {words:?} is not in {out}");
        }
    }
    let mut out = String::new();
    commands::registers(&PciRegisters::new(&side.manager.io), &mut out).expect("registers");
    assert!(out.starts_with("0000  CAP") && out.contains("001c  CSTS     0x00000001"), "{out}");
    let beyond = CommandError::BeyondEnd { start: BLOCKS - 1, count: 2, blocks: BLOCKS };
    assert_eq!(commands::read(&mut session, NAMESPACE, BLOCKS - 1, 2, &mut out), Err(beyond));
    assert_eq!(session.close(), Ok(()));
    assert_eq!(side.live(), NOTHING);
}

const WATCH: Watch = Watch { controller: 2, entries: 64, time: Duration::from_millis(20) };

#[test]
fn changes_of_a_guest_are_shown_as_they_come() {
    for (name, writes, entries, overflow) in
        [("a few", 3, 64, false), ("more than the queue holds", 200, 4, true)]
    {
        let side = Side::new(9, |_| 0);
        let time = Time::of(&[&side]);
        let (mut manager, _) = open(side.manager, &time);
        let (mut guest, _) = open(side.guest, &time);
        let (mut out, mut written) = (String::new(), 0);
        let mut meanwhile = |_| {
            // In batches that nobody reads in between.
            for _ in 0..10 {
                if written < writes {
                    guest.write(NAMESPACE, Lba::new(written * 4), &[1; 1024]).expect(name);
                    written += 1;
                }
            }
            false
        };
        let watch = Watch { entries, ..WATCH };
        let watched = commands::watch(&mut manager, &watch, &mut out, &mut meanwhile);
        assert_eq!((watched, written), (Ok(()), writes), "{name}: {out}");
        assert!(
            out.contains("watching controller 2 through queue") && out.contains("log started"),
            "{name}: {out}"
        );
        assert_eq!(out.contains("OVERFLOW"), overflow, "{name}: {out}");
        if !overflow {
            assert!(out.contains("changed namespace 1, 2 blocks from 8 on"), "{name}: {out}");
            assert!(
                out.contains("log stopped") && out.contains(", 0 overflows, 0 violations"),
                "{name}: {out}"
            );
        }
        assert_eq!((manager.close(), guest.close()), (Ok(()), Ok(())), "{name}");
        assert_eq!(side.live(), NOTHING, "{name}");
    }
}

#[test]
fn a_log_that_goes_on_behind_its_end_is_left() {
    for entries in [8, 64] {
        let side = Side::new(9, |_| 0);
        let time = Time::of(&[&side]);
        let ((mut manager, _), (mut guest, _)) = (open(side.manager, &time), open(side.guest, &time));
        // It claims to have stopped, and the guest writes on.
        let rules = misbehave(&side, "status=0/00,queue=admin,opcode=3d,nth=2");
        let (mut out, mut written) = (String::new(), 0);
        let mut over = |waiting| {
            if waiting == Waiting::End {
                guest.write(NAMESPACE, Lba::new(written % BLOCKS), &[1; 512]).expect("a write");
                written += 1;
            }
            false
        };
        let watch = Watch { entries, ..WATCH };
        let watched = commands::watch(&mut manager, &watch, &mut out, &mut over);
        assert_eq!((watched, rules[0].fired()), (Err(CommandError::LogGoesOn(entries)), 1), "{out}");
        assert_eq!(written, u64::from(entries) + 2, "{out}");
        assert_eq!((manager.close(), guest.close()), (Ok(()), Ok(())), "{entries}");
        assert_eq!(side.live(), NOTHING, "{entries}");
    }
}

#[test]
fn a_queue_that_cannot_be_made_leaves_nothing() {
    let side = Side::new(9, |_| 0);
    let time = Time::of(&[&side]);
    let (mut manager, _) = open(side.manager, &time);
    let mut out = String::new();
    type Expected = fn(CommandError) -> bool;
    let rows: [(&str, Watch, Expected); 3] = [
        ("itself", Watch { controller: 1, ..WATCH }, |error| error == CommandError::TargetIsManager(1)),
        ("one slot", Watch { entries: 1, ..WATCH }, |error| matches!(error, CommandError::Queue(_))),
        ("nobody", Watch { controller: 9, ..WATCH }, |error| matches!(error, CommandError::QueueCommand(..))),
    ];
    for (name, watch, expected) in rows {
        let error = commands::watch(&mut manager, &watch, &mut out, &mut |_| false).expect_err(name);
        assert!(expected(error), "{name}: {error}");
    }
    assert_eq!(manager.close(), Ok(()));
    assert_eq!(side.live(), NOTHING);
}

#[test]
fn what_is_not_announced_is_not_sent() {
    // A guest's controller manages nothing.
    let side = Side::new(9, |_| 0);
    let time = Time::of(&[&side]);
    let ((mut guest, _), (mut manager, _)) = (open(side.guest, &time), open(side.manager, &time));
    let rings = side.guest.rings.get();
    let expected = |error: Result<(), CommandError>| {
        let error = error.expect_err("not supported");
        let CommandError::Unsupported(NotAnnounced {
            field: AnnouncingField::OptionalAdminCommands,
            bit: Some(11),
            ..
        }) = error
        else {
            panic!("{error}");
        };
        let text = error.to_string();
        assert!(
            text.starts_with("Host Managed Live Migration is not supported by this controller: OACS")
                && text.ends_with("bit 11 clear; nothing was sent"),
            "{text}"
        );
    };
    let mut out = String::new();
    expected(commands::watch(&mut guest, &WATCH, &mut out, &mut |_| false));
    let log = RefCell::default();
    let fence = Bus::new(side.guest, "any", &log);
    let sides = (
        commands::Side { session: &mut guest, fence: &fence },
        commands::Side { session: &mut manager, fence: &fence },
    );
    expected(commands::migrate(sides.0, sides.1, &MIGRATION, &mut out, &mut || {}));
    assert_eq!((side.guest.rings.get(), log.borrow().len(), out.len()), (rings, 0, 0));
    assert_eq!((guest.close(), manager.close()), (Ok(()), Ok(())));
    assert_eq!(side.live(), NOTHING);
}
