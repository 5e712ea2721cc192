// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every quirk: off, the specification's behaviour; on, the deviation that is known of another model.

use nvme_controller::Quirks;

use crate::harness::image::Image;
use crate::harness::sqe;
use crate::harness::*;

/// What a host sees, as text.
type Observe = fn(&mut World) -> String;

fn deallocate(world: &mut World, ranges: &[(u64, u32)]) {
    let bytes: Vec<u8> = ranges
        .iter()
        .flat_map(|(start, blocks)| {
            [[0; 4], blocks.to_le_bytes()].concat().into_iter().chain(start.to_le_bytes())
        })
        .collect();
    let prps = world.hosts[GUEST].data(&bytes);
    world.exec(GUEST, 1, sqe::deallocate(NSID, ranges.len() as u32, prps)).ok();
}

fn event(world: &mut World) -> String {
    let request = world.submit(MANAGER, 0, sqe::event_request());
    match world.event(MANAGER, request) {
        Some((dword0, _)) => format!("{dword0:x}"),
        None => {
            world.admin(MANAGER, sqe::abort(0, request)).ok();
            "none".to_owned()
        }
    }
}

/// How many bytes of a page filled with EEh a command wrote.
fn written(world: &mut World, command: sqe::Sqe) -> usize {
    let buffer = world.hosts[MANAGER].allocate(4096);
    world.memory(MANAGER).fill(buffer, &[0xEE; 4096]);
    world.admin(MANAGER, command.prp(buffer)).ok();
    let bytes = world.memory(MANAGER).bytes(buffer, 4096);
    4096 - bytes.iter().rev().take_while(|byte| **byte == 0xEE).count()
}

/// A queue of four slots that was full and is drained.
fn drained(world: &mut World) -> cdq::Cdq {
    let mut queue = world.logged_guest(4);
    world.change_blocks(3);
    assert!(queue.texts().last().unwrap().starts_with("111b"));
    world.publish(&queue);
    queue
}

fn rows() -> Vec<(Quirks, Observe, &'static str, &'static str)> {
    vec![
        (
            Quirks::DATASET_LENGTH_ONE_BASED,
            |w| {
                let mut queue = w.logged_guest(16);
                deallocate(w, &[(40, 8)]);
                queue.texts().join(", ")
            },
            "000b 1:40+8-",
            "000b 1:40+9",
        ),
        (
            Quirks::DATASET_RANGE_DROPPED,
            |w| {
                let mut queue = w.logged_guest(16);
                deallocate(w, &[(40, 8), (100, 1)]);
                queue.texts().join(", ")
            },
            "000b 1:40+8-, 000b 1:100+1-",
            "000b 1:100+1-",
        ),
        (
            Quirks::TRIGGER_AFTER_INCREMENT,
            |w| {
                let queue = w.logged_guest(8);
                w.admin(MANAGER, sqe::set_head_and_trigger(queue.id, 1, 3)).ok();
                w.change_blocks(2);
                let early = event(w);
                w.change_blocks(1);
                format!("{early}, {}", event(w))
            },
            "none, 4",
            "4, none",
        ),
        (
            Quirks::SUSPENDED_NOT_REPORTED,
            |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                let (address, prps) = w.hosts[MANAGER].buffer(48);
                let done = w.admin(MANAGER, sqe::get_state(GUEST_ID, (1, 0), 0, 48, prps)).ok();
                format!("CSUP {}, CSATTR {}", done.dword0, w.memory(MANAGER).bytes(address, 3)[2])
            },
            "CSUP 1, CSATTR 1",
            "CSUP 0, CSATTR 1",
        ),
        (Quirks::FORMATS_FOUR_BYTES, |w| written(w, sqe::identify(0x20, 0, 0, 0)).to_string(), "4096", "4"),
        (
            Quirks::CDQ_FEATURE_EIGHT_BYTES,
            |w| {
                let queue = w.create_cdq(MANAGER, GUEST_ID, 8);
                written(w, sqe::get_head(queue.id, 0)).to_string()
            },
            "512",
            "8",
        ),
        (
            Quirks::SLOT_ZERO_IS_NEXT_PHASE,
            |w| {
                w.create_pair(GUEST, 1, 4);
                let mut phases = Vec::new();
                for _ in 0..9 {
                    let image = Image::parse(&w.get_image(MANAGER, GUEST_ID, (1, 0)));
                    phases.push((image.completion[0].attributes >> 2 & 1).to_string());
                    w.exec(GUEST, 1, sqe::flush(NSID)).ok();
                }
                phases.concat()
            },
            "011110000",
            "111100001",
        ),
        (
            Quirks::LOGGING_RESUMES_AFTER_FULL,
            |w| {
                let mut queue = drained(w);
                w.change_blocks(1);
                let resumed = queue.texts().join(", ");
                let started = w.admin(MANAGER, sqe::start_log(queue.id)).code;
                format!("{resumed}; {started:?} {}", queue.texts().join(", "))
            },
            "; 0/00h 001b",
            "000b 1:1000+1; 0/00h ",
        ),
        (
            Quirks::BAD_SELECT_ONLY_DO_NOT_RETRY,
            |w| {
                let done = w.admin(MANAGER, sqe::Sqe::new(0x45).dword(10, 2));
                format!("{:?}, DNR {}", done.code, done.do_not_retry)
            },
            "0/02h, DNR true",
            "0/00h, DNR true",
        ),
        (
            Quirks::INVALID_CONTROLLER_IS_INVALID_FIELD,
            |w| {
                let base = w.hosts[MANAGER].allocate(4096);
                let prps = w.hosts[MANAGER].buffer(48).1;
                let image = Image::empty().bytes();
                [
                    w.admin(MANAGER, sqe::create_cdq(NOBODY_ID, 64, base)),
                    w.admin(MANAGER, sqe::suspend(NOBODY_ID)),
                    w.admin(MANAGER, sqe::resume(NOBODY_ID)),
                    w.set_image(MANAGER, NOBODY_ID, (1, 0), &image),
                    w.admin(MANAGER, sqe::get_state(NOBODY_ID, (1, 0), 0, 48, prps)),
                ]
                .map(|done| format!("{:?}", done.code))
                .join(", ")
            },
            "1/1Fh, 1/1Fh, 1/1Fh, 1/1Fh, 1/1Fh",
            "0/02h, 0/02h, 0/02h, 0/02h, 1/37h",
        ),
        (
            Quirks::NO_FIRST_ENTRY_AFTER_FULL,
            |w| {
                let mut queue = drained(w);
                w.admin(MANAGER, sqe::start_log(queue.id)).ok();
                w.change_blocks(1);
                queue.texts().join(", ")
            },
            "001b, 000b 1:1000+1",
            "000b 1:1000+1",
        ),
        (
            Quirks::LOGGING_ACTIVE_AFTER_RESET,
            |w| {
                w.reset(MANAGER);
                w.create_pair(GUEST, 1, 64);
                let mut queue = w.create_cdq(MANAGER, GUEST_ID, 16);
                w.admin(MANAGER, sqe::start_log(queue.id)).ok();
                w.change_blocks(1);
                w.admin(MANAGER, sqe::stop_log(queue.id)).ok();
                w.admin(MANAGER, sqe::start_log(queue.id)).ok();
                queue.texts().join(", ")
            },
            "001b, 000b 1:1000+1, 010b, 001b",
            "000b 1:1000+1, 010b, 001b",
        ),
        (
            Quirks::COPY_NOT_LOGGED,
            |w| {
                let mut queue = w.logged_guest(16);
                let prps = w.hosts[GUEST].data(&[0; 32]);
                w.exec(GUEST, 1, sqe::copy(NSID, 300, 1, prps)).ok();
                w.write_blocks(GUEST, NSID, 7, 1, 1);
                queue.texts().join(", ")
            },
            "000b 1:300+1, 000b 1:7+1",
            "000b 1:7+1",
        ),
        (
            Quirks::LIMITS_READ_ZERO,
            |w| {
                let identity = w.identify(MANAGER, 0x01, 0, 0);
                let limits = [578, 580, 582, 584, 586];
                let zero = limits.iter().all(|at| identity[*at..at + 2] == [0, 0]);
                w.create_cdq(MANAGER, GUEST_ID, 8);
                format!("zero {zero}")
            },
            "zero false",
            "zero true",
        ),
        (
            Quirks::ONE_SHOT_EVENTS_MASKED,
            |w| {
                let mut queue = w.logged_guest(8);
                let mut events = Vec::new();
                for _ in 0..3 {
                    w.admin(MANAGER, sqe::set_head_and_trigger(queue.id, queue.head, queue.head)).ok();
                    w.change_blocks(1);
                    queue.take();
                    events.push(event(w));
                }
                events.join(", ")
            },
            "4, 4, 4",
            "4, none, none",
        ),
        (
            Quirks::QUEUE_SIZE_ROUNDED_DOWN,
            |w| {
                let base = w.hosts[MANAGER].allocate(4096);
                let sizes = [7, 8 * 8 + 3];
                sizes
                    .map(|dwords| {
                        format!("{:?}", w.admin(MANAGER, sqe::create_cdq(GUEST_ID, dwords, base)).code)
                    })
                    .join(", ")
            },
            "0/02h, 0/02h",
            "0/02h, 0/00h",
        ),
        (
            Quirks::HEAD_NOT_CHECKED,
            |w| {
                let queue = w.logged_guest(8);
                w.change_blocks(3);
                // Slots 1 to 3 are filled; one back, one past the tail, the size and more.
                [3, 2, 5, 9]
                    .map(|head| format!("{:?}", w.admin(MANAGER, sqe::set_head(queue.id, head)).code))
                    .join(", ")
            },
            "0/00h, 0/02h, 0/02h, 0/02h",
            "0/00h, 0/00h, 0/02h, 0/02h",
        ),
        (
            Quirks::STATE_IN_ONE_COMMAND,
            |w| {
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                let bytes = Image::empty().bytes();
                let part = w.state_part(MANAGER, GUEST_ID, sqe::FIRST, (1, 0), 0, &bytes[..32]);
                format!("{:?}", w.admin(MANAGER, part).code)
            },
            "0/00h",
            "0/06h",
        ),
        (
            Quirks::LISTED_QUEUES_NOT_FILLED,
            |w| {
                w.create_pair(GUEST, 1, 64);
                let mut queue = w.create_listed_cdq(MANAGER, GUEST_ID, 128);
                w.admin(MANAGER, sqe::start_log(queue.id)).ok();
                w.change_blocks(1);
                queue.texts().join(", ")
            },
            "001b, 000b 1:1000+1",
            "",
        ),
    ]
}

#[test]
fn every_quirk_is_off_by_default_and_does_what_it_says() {
    assert_eq!(Setup::new().config.quirks, Quirks::empty());
    let mut covered = Quirks::empty();
    for (quirk, observe, off, on) in rows() {
        let name = quirk.iter_names().map(|(name, _)| name).collect::<String>();
        println!("row: {name}");
        assert_eq!(observe(&mut World::new()), off, "{name} off");
        let mut world = World::with(|setup| setup.config.quirks = quirk);
        assert_eq!(observe(&mut world), on, "{name} on");
        assert!(!covered.intersects(quirk), "{name} twice");
        covered |= quirk;
    }
    assert_eq!(covered, Quirks::all(), "a quirk without a row");
}

#[test]
fn r20_a_quirk_changes_nothing_but_what_it_says() {
    // Pairs where the row of one sees what the other changes.
    let related = [
        Quirks::DATASET_LENGTH_ONE_BASED | Quirks::DATASET_RANGE_DROPPED,
        Quirks::LOGGING_RESUMES_AFTER_FULL | Quirks::NO_FIRST_ENTRY_AFTER_FULL,
        Quirks::TRIGGER_AFTER_INCREMENT | Quirks::ONE_SHOT_EVENTS_MASKED,
    ];
    let name = |quirk: Quirks| quirk.iter_names().map(|(name, _)| name).collect::<String>();
    for (quirk, _, _, _) in rows() {
        for (other, observe, off, _) in rows() {
            if quirk != other && !related.contains(&(quirk | other)) {
                let mut world = World::with(|setup| setup.config.quirks = quirk);
                assert_eq!(observe(&mut world), off, "{} with {}", name(other), name(quirk));
            }
        }
    }
}
