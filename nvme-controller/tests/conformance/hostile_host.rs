// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whatever a host writes, every command gets one completion, nothing panics, and other controllers go on.

use nvme_core::wire::SubmissionQueueEntry;
use nvme_core::wire::{BusAddr, CommandId, NamespaceId};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use crate::harness::sqe::{self, Sqe};
use crate::harness::status::*;
use crate::harness::*;

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    /// A number that is small, near a power of two, or anything.
    fn number(&mut self) -> u32 {
        match self.below(5) {
            0 => self.below(4) as u32,
            1 => self.below(300) as u32,
            2 => (1_u32 << self.below(32)).wrapping_sub(self.below(2) as u32),
            3 => {
                (u32::from([GUEST_ID, OTHER_GUEST_ID, MANAGER_ID][self.below(3) as usize])
                    << (16 * self.below(2)))
                    | self.below(4) as u32
            }
            _ => self.roll() as u32,
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

const ADMIN: [u8; 20] = [
    0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0A, 0x18, 0x1C, 0x3D, 0x3E, 0x41, 0x42, 0x45, 0x45,
    0x86, 0x80, 0xFF,
];
const IO: [u8; 11] = [0x00, 0x01, 0x02, 0x04, 0x05, 0x08, 0x09, 0x0C, 0x19, 0x7F, 0x03];

/// A command that is right in its opcode and little else; `places` are addresses worth naming.
fn command(dice: &mut Dice, opcodes: &[u8], places: &[u64]) -> Sqe {
    let mut command = Sqe::new(dice.pick(opcodes));
    if dice.below(3) == 0 {
        command = command.namespace(dice.number());
    } else if opcodes.len() == IO.len() {
        command = command.namespace(NSID);
    }
    let address = |dice: &mut Dice| {
        let offset = dice.pick(&[0, 0, 0, 4, 8, 512, 4088, 1]);
        if dice.below(8) == 0 { dice.roll() } else { dice.pick(places) + offset }
    };
    let (prp1, prp2) = (address(dice), address(dice));
    command = command.prps((prp1, prp2));
    for dword in 10..16 {
        if dice.below(2) == 0 {
            command = command.dword(dword, dice.number());
        }
    }
    if dice.below(20) == 0 {
        command = command.or(0, (dice.roll() as u32) & 0xFF00);
    }
    command
}

/// Pages that the commands name: data, lists that name each other, and images that are nearly right.
fn places(world: &World, host: usize, dice: &mut Dice) -> Vec<u64> {
    let host = &world.hosts[host];
    let places: Vec<u64> = (0..6).map(|_| host.allocate(4 * 4096)).collect();
    for place in &places {
        for word in 0..2048_u64 {
            let value = match dice.below(4) {
                0 => dice.pick(&places),
                1 => u64::from(dice.number()),
                2 => 0,
                _ => dice.roll(),
            };
            host.memory.fill_addresses(place + word * 8, &[value]);
        }
    }
    let image = image::Image::one_pair(places[0], places[1]);
    host.memory.fill(places[2], &image.bytes());
    places
}

#[test]
fn every_admin_command_of_a_hostile_manager_is_answered_once() {
    for seed in 1..=12 {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
        let mut world = World::new();
        world.create_pair(OTHER_GUEST, 1, 16);
        let places = places(&world, MANAGER, &mut dice);
        for round in 0..1500 {
            let command = command(&mut dice, &ADMIN, &places);
            let id = world.submit(MANAGER, 0, command);
            world.run();
            if world.is_fatal(MANAGER) {
                // A host may make its own controller fail, by a doorbell or a queue over something else.
                world.reset(MANAGER);
                continue;
            }
            let done = world.hosts[MANAGER].take(0, id);
            assert!(done.is_some(), "seed {seed}, round {round}: {:#x?} is not answered", command.0);
            world.hosts[MANAGER].done.clear();
            if round % 50 == 0 {
                // The others go on, unless the manager suspended them.
                world.admin(OTHER_MANAGER, sqe::get_features(0x01, 0)).ok();
                world.admin(OTHER_MANAGER, sqe::resume(OTHER_GUEST_ID));
                world.exec(OTHER_GUEST, 1, sqe::flush(NSID)).ok();
            }
        }
    }
}

#[test]
fn every_command_of_a_hostile_guest_is_answered_once() {
    for seed in 1..=12 {
        let mut dice = Dice(0xD1B5_4A32_D192_ED03_u64.wrapping_mul(seed));
        let mut world = World::new();
        world.create_pair(OTHER_GUEST, 1, 16);
        world.create_pair(GUEST, 1, 32);
        let mut queue = world.create_cdq(MANAGER, GUEST_ID, 512);
        world.admin(MANAGER, sqe::start_log(queue.id)).ok();
        let places = places(&world, GUEST, &mut dice);
        for round in 0..1500 {
            let id = world.submit(GUEST, 1, command(&mut dice, &IO, &places));
            world.run();
            // A fused half may wait for the other.
            if world.hosts[GUEST].take(1, id).is_none() {
                world.exec(GUEST, 1, sqe::flush(NSID));
                assert!(
                    world.hosts[GUEST].take(1, id).is_some(),
                    "seed {seed}, round {round} is not answered"
                );
            }
            world.hosts[GUEST].done.clear();
            assert!(!world.is_fatal(GUEST));
            // Entries stay well formed; parsing checks that.
            queue.take();
            let published = world.admin(MANAGER, sqe::set_head(queue.id, queue.head));
            assert_eq!(published.code, SUCCESS, "seed {seed}, round {round}");
        }
        world.exec(OTHER_GUEST, 1, sqe::flush(NSID)).ok();
    }
}

#[test]
fn every_register_write_of_a_hostile_guest_is_survived() {
    for seed in 1..=12 {
        let mut dice = Dice(0xA076_1D64_78BD_642F_u64.wrapping_mul(seed));
        let mut world = World::new();
        world.create_pair(OTHER_GUEST, 1, 16);
        for round in 0..2000 {
            let offset = match dice.below(4) {
                0 => dice.pick(&[0x14, 0x1C, 0x24, 0x28, 0x2C, 0x30, 0x34, 0x0C, 0x10]),
                1 => 0x1000 + dice.below(20) as u32 * 4,
                2 => dice.below(0x40) as u32 * 4,
                _ => dice.number() & !3,
            };
            let value = if offset == CC && dice.below(2) == 0 { ENABLE } else { dice.number() };
            world.write32(GUEST, offset, value);
            world.settle();
            if round % 100 == 0 {
                world.exec(OTHER_GUEST, 1, sqe::flush(NSID)).ok();
                world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                let image = world.get_image(MANAGER, GUEST_ID, (1, 1));
                assert!(image.len() >= 48);
                world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
            }
        }
        world.write32(GUEST, CC, 0);
        world.settle();
        world.enable(GUEST);
        world.create_pair(GUEST, 1, 16);
        world.exec(GUEST, 1, sqe::flush(NSID)).ok();
    }
}

#[test]
fn r19_no_image_from_another_machine_harms_the_subsystem() {
    let mut dice = Dice(0x5851_F42D_4C95_7F2D);
    let mut source = World::new();
    source.create_pair(GUEST, 1, 8);
    source.create_pair(GUEST, 4, 8);
    source.leave(GUEST, 0, sqe::event_request());
    source.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    let right = source.get_image(MANAGER, GUEST_ID, (1, 1));
    let mut world = World::with(|setup| setup.memories[GUEST] = source.memory(GUEST));
    let mut taken = 0;
    for round in 0..3000 {
        let mut image = right.clone();
        for _ in 0..=dice.below(4) {
            let at = dice.below(image.len() as u64) as usize;
            image[at] = match dice.below(3) {
                0 => image[at] ^ (1 << dice.below(8)),
                1 => 0xFF,
                _ => dice.roll() as u8,
            };
        }
        world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        let before = world.get_image(MANAGER, GUEST_ID, (1, 1));
        let code = world.set_image(MANAGER, GUEST_ID, (1, 1), &image).code;
        let after = world.get_image(MANAGER, GUEST_ID, (1, 1));
        if code == SUCCESS {
            assert_eq!(after[48..], image[48..], "round {round}: taken whole");
        } else {
            assert_eq!(after, before, "round {round}: refused whole");
        }
        taken += usize::from(code == SUCCESS);
        let resumed = if code == SUCCESS { SUCCESS } else { SEQUENCE_ERROR };
        assert_eq!(world.admin(MANAGER, sqe::resume(GUEST_ID)).code, resumed, "round {round}");
        world.settle();
        // What was taken is a state: it can be read again.
        world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        assert!(world.get_image(MANAGER, GUEST_ID, (1, 1)).len() >= 48, "round {round}");
        assert_eq!(world.admin(MANAGER, sqe::resume(GUEST_ID)).code, resumed, "round {round}");
        world.admin(OTHER_GUEST, sqe::get_features(0x01, 0)).ok();
        world.write32(GUEST, CC, 1);
        world.write32(GUEST, CC, 0);
        world.settle();
    }
    assert!(taken > 0, "some changes are harmless");
}

/// Opcodes that do something, on the admin queue and on I/O queues.
const OPCODES: [u8; 29] = [
    0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0A, 0x0C, 0x19, 0x1C, 0x3D, 0x3E, 0x41, 0x42, 0x45,
    0x86, 0x3D, 0x41, 0x42, 0x45, 0x41, 0x02, 0x01, 0x08, 0x09, 0x05, 0xFF,
];
/// Sixteen pages that commands and queues use, at the same place for every controller.
const POOL: u64 = 0x7000_0000;
const PAGE: u64 = 4096;

/// Something that one of the hosts does, or the subsystem.
#[derive(Clone, Debug)]
enum Act {
    /// An entry with a known opcode and dwords that are mostly small.
    Likely {
        host: usize,
        queue: u16,
        opcode: usize,
        dwords: [u32; 6],
        page: u64,
        offset: u64,
        nsid: u32,
    },
    /// Sixty-four bytes of anything.
    Anything {
        host: usize,
        queue: u16,
        bytes: [u8; 64],
    },
    Write {
        host: usize,
        offset: u32,
        value: u32,
    },
    Poll {
        budget: u32,
    },
    Consume {
        host: usize,
        queue: u16,
    },
    Unmap {
        host: usize,
        page: u64,
    },
    Fill {
        host: usize,
        page: u64,
        value: u64,
    },
}

/// Numbers as hosts use them: small, controller identifiers in either half, or anything.
fn dword() -> impl Strategy<Value = u32> {
    let guest = u32::from(GUEST_ID);
    let other = u32::from(OTHER_GUEST_ID);
    prop_oneof![
        3 => 0_u32..4,
        2 => prop::sample::select(vec![
            guest, other, guest << 16 | 1, other << 16 | 1, 1 << 16 | guest, 0x8001_0000 | guest
        ]),
        2 => prop::sample::select(vec![
            0x1_0000, 0x1_0001, 0x3_0002, 0x1_0002, 0x2_0002, 0x0007_0001, 0x0101_0000 | guest
        ]),
        1 => 0_u32..4096,
        1 => any::<u32>(),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let host = prop::sample::select(vec![MANAGER, GUEST, OTHER_GUEST]);
    let offsets =
        vec![0x0C, 0x10, 0x14, 0x1C, 0x24, 0x28, 0x30, 0x1000, 0x1004, 0x1008, 0x100C, 0x1010, 0x1ABC];
    prop_oneof![
        6 => (
            host.clone(), 0..3_u16, 0..OPCODES.len(), prop::array::uniform6(dword()), 0..16_u64,
            prop::sample::select(vec![0, 0, 0, 8, 512, 2]),
            prop::sample::select(vec![0, 0, 1, 1, 2, u32::MAX]),
        ).prop_map(|(host, queue, opcode, dwords, page, offset, nsid)| {
            Act::Likely { host, queue, opcode, dwords, page, offset, nsid }
        }),
        1 => (host.clone(), 0..3_u16, prop::array::uniform32(any::<[u8; 2]>())).prop_map(
            |(host, queue, bytes)| Act::Anything { host, queue, bytes: bytes.concat().try_into().unwrap() }
        ),
        1 => (host.clone(), prop::sample::select(offsets), dword())
            .prop_map(|(host, offset, value)| Act::Write { host, offset, value }),
        3 => (0..9_u32).prop_map(|budget| Act::Poll { budget }),
        2 => (host.clone(), 0..3_u16).prop_map(|(host, queue)| Act::Consume { host, queue }),
        1 => (host.clone(), 0..16_u64).prop_map(|(host, page)| Act::Unmap { host, page }),
        2 => (
            host, 0..16_u64,
            prop_oneof![(0..16_u64).prop_map(|page| POOL + page * PAGE), 0..100_u64, any::<u64>()],
        ).prop_map(|(host, page, value)| Act::Fill { host, page, value }),
    ]
}

/// Puts 64 bytes into a queue, full or not, and rings.
fn place(world: &mut World, host: usize, queue: u16, bytes: &[u8]) {
    let this = &mut world.hosts[host];
    let queue = if this.submission.contains_key(&queue) { queue } else { 0 };
    let submission = this.submission.get_mut(&queue).expect("the admin queue");
    let address = submission.area.at(u64::from(submission.tail) * 64);
    submission.tail = (submission.tail + 1) % submission.entries;
    this.memory.fill(address, bytes);
    world.ring(host, queue);
}

/// Takes what a completion queue holds, whatever it is about.
fn consume(world: &mut World, host: usize, queue: u16) {
    let this = &mut world.hosts[host];
    let Some(completion) = this.completion.get_mut(&queue) else { return };
    let before = completion.head;
    for _ in 0..completion.entries {
        let bytes = this.memory.bytes(completion.area.at(u64::from(completion.head) * 16), 16);
        if u16::from(bytes[14] & 1) != completion.phase {
            break;
        }
        completion.head = (completion.head + 1) % completion.entries;
        completion.phase ^= u16::from(completion.head == 0);
    }
    let head = completion.head;
    if head != before {
        world.ring_completion(host, queue, head);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_hosts_do_in_any_order_panics_or_hangs(acts in prop::collection::vec(act(), 1..120)) {
        let mut world = World::new();
        for host in [MANAGER, GUEST, OTHER_GUEST] {
            world.memory(host).map(POOL, 16 * PAGE);
            world.create_pair(host, 1, 16);
            world.create_pair(host, 2, 4);
        }
        world.create_cdq(MANAGER, GUEST_ID, 5);
        for (number, act) in acts.into_iter().enumerate() {
            match act {
                Act::Likely { host, queue, opcode, dwords, page, offset, nsid } => {
                    let prp = BusAddr::new(POOL + page * PAGE + offset);
                    let entry = SubmissionQueueEntry::new(OPCODES[opcode])
                        .with_dwords(dwords)
                        .with_namespace(NamespaceId::new(nsid))
                        .with_prps(prp, prp.plus(PAGE))
                        .with_command_id(CommandId::new(number as u16 | 0x4000));
                    place(&mut world, host, queue, entry.as_bytes());
                }
                Act::Anything { host, queue, bytes } => place(&mut world, host, queue, &bytes),
                Act::Write { host, offset, value } => world.write32(host, offset, value),
                Act::Poll { budget } => _ = world.subsystem.poll(budget),
                Act::Consume { host, queue } => {
                    if world.read32(host, CSTS) == 1 {
                        consume(&mut world, host, queue);
                    }
                }
                Act::Unmap { host, page } => world.memory(host).unmap(POOL + page * PAGE, PAGE),
                Act::Fill { host, page, value } => {
                    world.memory(host).map(POOL + page * PAGE, PAGE);
                    world.memory(host).fill_addresses(POOL + page * PAGE, &[value; 512]);
                }
            }
        }
        let mut polls = 0;
        while !world.subsystem.poll(64).is_idle() {
            polls += 1;
            prop_assert!(polls < 1000, "the subsystem comes to rest");
        }
        for host in [MANAGER, GUEST, OTHER_GUEST] {
            world.write32(host, CC, 0);
            prop_assert_eq!(world.read32(host, CSTS) & 3, 0, "a reset always helps");
            world.enable(host);
        }
    }
}
