// SPDX-License-Identifier: MIT OR Apache-2.0
//! Completions that come after their command was given up.

use std::time::Duration;

use nvme_core::wire::Lba;
use nvme_host_uefi::commands::{self, BusMaster, Migration};
use nvme_host_uefi::session::SessionError;

use crate::world::{GUEST, NAMESPACE, Side, Time, open};

#[test]
fn a_late_completion_is_not_taken_for_that_of_the_next_command() {
    for (name, wait, expected) in [
        ("it comes meanwhile", 100_000, Ok(())),
        ("it does not come", 1, Err(SessionError::TimedOut("an I/O command that was given up before"))),
    ] {
        let side = Side::new(9, |lba| lba as u8);
        let time = Time::of(&[&side]);
        let (mut session, arena) = open(side.manager, &time);
        let read = |session: &mut crate::world::Own, lba| {
            let mut seen = Vec::new();
            let done = session.read(NAMESPACE, Lba::new(lba), 1, |bytes| {
                seen.extend_from_slice(bytes);
                Ok::<(), SessionError>(())
            });
            (done, seen)
        };
        // The queue pair is there before the controller stops.
        assert_eq!(read(&mut session, 7), (Ok(()), vec![7; 512]), "{name}");
        time.stop_for(u64::MAX);
        session.set_timeout(Duration::from_micros(500));
        assert_eq!(read(&mut session, 8), (Err(SessionError::TimedOut("Read")), vec![]), "{name}");
        time.stop_for(if expected.is_ok() { 0 } else { u64::MAX });
        session.set_timeout(Duration::from_micros(wait));
        let (done, seen) = read(&mut session, 9);
        assert_eq!(done, expected, "{name}");
        assert_eq!(seen, if expected.is_ok() { vec![9; 512] } else { vec![] }, "{name}");
        time.stop_for(0);
        session.set_timeout(Duration::from_secs(30));
        let (flushed, again) = (session.flush(NAMESPACE), read(&mut session, 10));
        assert_eq!((flushed, again), (Ok(()), (Ok(()), vec![10; 512])), "{name}");
        assert_eq!(session.close(), Ok(()), "{name}");
        assert_eq!((arena.live(), side.live()), (0, [(0, 0); 2]), "{name}");
    }
}

#[test]
fn a_migration_waits_for_the_blocks_that_it_gave_up() {
    let mut rolled_back = 0;
    for step in [5, 10, 20, 40, 80, 160] {
        let (one, other) = (Side::new(9, |lba| lba as u8), Side::new(9, |_| 0));
        let time = Time::of(&[&one, &other]);
        let ((mut from, _), (mut to, _)) = (open(one.manager, &time), open(other.manager, &time));
        let _guest = open(one.guest, &time);
        let (mut out, mut steps) = (String::new(), 0);
        from.set_timeout(Duration::from_micros(500));
        let mut meanwhile = || {
            steps += 1;
            if steps == step {
                time.stop_for(800);
            }
        };
        let what = Migration { source: GUEST, destination: GUEST, namespace: NAMESPACE };
        let sides = (
            commands::Side { session: &mut from, fence: &BusMaster(Some(&one.guest.io)) },
            commands::Side { session: &mut to, fence: &BusMaster(Some(&other.guest.io)) },
        );
        let ended = commands::migrate(sides.0, sides.1, &what, &mut out, &mut meanwhile);
        rolled_back += u32::from(out.contains("rolled back, the source runs"));
        assert_eq!(ended.is_ok(), out.contains("migrated: "), "{step}: {out}");
        from.set_timeout(Duration::from_secs(30));
        // Nothing is outstanding any more, and nobody's completion is left.
        let flushed = [from.flush(NAMESPACE), to.flush(NAMESPACE)];
        assert_eq!(flushed, [Ok(()), Ok(())], "{step}: {out}");
        assert_eq!((from.close(), to.close()), (Ok(()), Ok(())), "{step}: {out}");
        assert_eq!((one.manager.memory.live(), other.live()), ((0, 0), [(0, 0); 2]), "{step}: {out}");
    }
    assert_ne!(rolled_back, 0, "no command was given up");
}
