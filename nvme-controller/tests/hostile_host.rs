// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hosts that send anything: no access and no command panics, hangs, or lets a suspended controller touch memory.

mod harness;

use harness::{GUEST, MANAGER, Options, PAGE, Rig};
use nvme_core::wire::{BusAddr, CommandId, NamespaceId, SubmissionQueueEntry};
use proptest::prelude::*;
use zerocopy::FromBytes;

/// Opcodes that do something, on the admin queue and on I/O queues.
const OPCODES: [u8; 29] = [
    0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0A, 0x0C, 0x19, 0x1C, 0x3D, 0x3E, 0x41, 0x42, 0x45,
    0x86, 0x3D, 0x41, 0x42, 0x45, 0x41, 0x02, 0x01, 0x08, 0x09, 0x05, 0xFF,
];

#[derive(Clone, Debug)]
enum Act {
    /// An entry with a known opcode and dwords that are mostly small.
    Likely {
        controller: usize,
        queue: u16,
        opcode: usize,
        dwords: [u32; 6],
        page: u64,
        offset: u64,
        nsid: u32,
    },
    /// Sixty-four bytes of anything.
    Anything {
        controller: usize,
        queue: u16,
        bytes: [u8; 64],
    },
    Write {
        controller: usize,
        offset: u32,
        value: u32,
    },
    Poll {
        budget: u32,
    },
    Consume {
        controller: usize,
        queue: u16,
    },
    Unmap {
        controller: usize,
        page: u64,
    },
    Fill {
        controller: usize,
        page: u64,
        value: u64,
    },
}

/// Numbers as hosts use them: small, controller identifiers in either half, or anything.
fn dword() -> impl Strategy<Value = u32> {
    prop_oneof![
        3 => 0_u32..4,
        2 => prop::sample::select(vec![0x10, 0x13, 0x16, 0x0013_0001, 0x0016_0001, 0x0001_0013, 0x8001_0013]),
        2 => prop::sample::select(vec![0x1_0000, 0x1_0001, 0x3_0002, 0x1_0002, 0x2_0002, 0x0007_0001, 0x0101_0013]),
        1 => 0_u32..4096,
        1 => any::<u32>(),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let controller = 0..3_usize;
    prop_oneof![
        6 => (controller.clone(), 0..3_u16, 0..OPCODES.len(), prop::array::uniform6(dword()), 0..16_u64,
              prop::sample::select(vec![0, 0, 0, 8, 512, 2]), prop::sample::select(vec![0, 0, 1, 1, 2, u32::MAX]))
            .prop_map(|(controller, queue, opcode, dwords, page, offset, nsid)| Act::Likely {
                controller, queue, opcode, dwords, page, offset, nsid
            }),
        1 => (controller.clone(), 0..3_u16, prop::array::uniform32(any::<[u8; 2]>()))
            .prop_map(|(controller, queue, bytes)| Act::Anything {
                controller, queue, bytes: bytes.concat().try_into().unwrap()
            }),
        1 => (controller.clone(), prop::sample::select(vec![0x0C, 0x10, 0x14, 0x1C, 0x24, 0x28, 0x30, 0x1000, 0x1004, 0x1008, 0x100C, 0x1010, 0x1ABC]), dword())
            .prop_map(|(controller, offset, value)| Act::Write { controller, offset, value }),
        3 => (0..9_u32).prop_map(|budget| Act::Poll { budget }),
        2 => (controller.clone(), 0..3_u16).prop_map(|(controller, queue)| Act::Consume { controller, queue }),
        1 => (controller.clone(), 0..16_u64).prop_map(|(controller, page)| Act::Unmap { controller, page }),
        2 => (controller, 0..16_u64, prop_oneof![
                (0..16_u64).prop_map(|page| POOL + page * PAGE), 0..100_u64, any::<u64>()
            ]).prop_map(|(controller, page, value)| Act::Fill { controller, page, value }),
    ]
}

/// Sixteen pages that commands and queues use, at the same place for every controller.
const POOL: u64 = 0x7000_0000;

fn place(rig: &mut Rig, controller: usize, queue: u16, entry: SubmissionQueueEntry) {
    let queue = if rig.pairs[controller].contains_key(&queue) { queue } else { 0 };
    let memory = rig.memories[controller].clone();
    let Some(pair) = rig.pairs[controller].get_mut(&queue) else { return };
    // The host's own queue memory may have been taken away by now.
    let address = pair.submission.plus(u64::from(pair.tail) * 64);
    if nvme_controller::host::HostMemory::write(&memory, address, zerocopy::IntoBytes::as_bytes(&entry))
        .is_ok()
    {
        pair.tail = (pair.tail + 1) % pair.submission_entries;
        rig.ring(controller, queue);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_a_host_does_panics_or_hangs(acts in prop::collection::vec(act(), 1..120)) {
        let mut rig = Rig::with(Options { namespaces: vec![1, 2], secondary: false, ..Options::default() });
        for controller in 0..3 {
            rig.memories[controller].map(POOL, 16 * PAGE);
            rig.enable(controller);
            rig.create_pair(controller, 1, 16);
            rig.create_pair(controller, 2, 4);
        }
        let _queue = rig.data_queue(GUEST, 5);
        for (number, act) in acts.into_iter().enumerate() {
            match act {
                Act::Likely { controller, queue, opcode, dwords, page, offset, nsid } => {
                    let prp = BusAddr::new(POOL + page * PAGE + offset);
                    let entry = SubmissionQueueEntry::new(OPCODES[opcode])
                        .with_dwords(dwords)
                        .with_namespace(NamespaceId::new(nsid))
                        .with_prps(prp, prp.plus(PAGE))
                        .with_command_id(CommandId::new(number as u16 | 0x4000));
                    place(&mut rig, controller, queue, entry);
                }
                Act::Anything { controller, queue, bytes } => {
                    place(&mut rig, controller, queue, SubmissionQueueEntry::read_from_bytes(&bytes).unwrap());
                }
                Act::Write { controller, offset, value } => rig.write32(controller, offset, value),
                Act::Poll { budget } => {
                    rig.subsystem.poll(budget);
                }
                Act::Consume { controller, queue } => {
                    if rig.read32(controller, 0x1C) == 1 && rig.pairs[controller].contains_key(&queue) {
                        rig.try_collect(controller, queue);
                    }
                }
                Act::Unmap { controller, page } => {
                    rig.memories[controller].unmap(BusAddr::new(POOL + page * PAGE), PAGE);
                }
                Act::Fill { controller, page, value } => {
                    let base = POOL + page * PAGE;
                    rig.memories[controller].map(base, PAGE);
                    rig.memories[controller].put_list(BusAddr::new(base), &[value; 512]);
                }
            }
        }
        let mut polls = 0;
        while !rig.subsystem.poll(64).is_idle() {
            polls += 1;
            prop_assert!(polls < 1000, "the subsystem comes to rest");
        }
        for controller in [MANAGER, GUEST] {
            let _ = rig.read32(controller, 0x1C);
            rig.write32(controller, 0x14, 0);
            prop_assert_eq!(rig.read32(controller, 0x1C) & 3, 0, "a reset always helps");
            rig.enable(controller);
        }
    }

    /// Whatever bytes are set as a state, the target takes all of it or nothing, and can be resumed and reset.
    #[test]
    fn states_from_another_machine_are_refused_or_taken_whole(
        spoils in prop::collection::vec((0_usize..300, any::<u8>()), 0..6),
        cut in 0_usize..80,
        vendor: bool,
    ) {
        let mut source = Rig::new();
        source.enable(MANAGER);
        source.enable(GUEST);
        source.create_pair(GUEST, 1, 8);
        source.create_pair(GUEST, 2, 16);
        source.suspend(GUEST, false);
        let mut image = source.state(GUEST, vendor);
        for (at, value) in spoils {
            let len = image.len();
            image[at % len] = value;
        }
        image.truncate(image.len() - cut / 10 * 4);
        let mut target = Rig::new();
        target.enable(MANAGER);
        target.enable(GUEST);
        target.suspend(GUEST, false);
        let before = target.state(GUEST, true);
        let entry = target.set_state(GUEST, &image, vendor);
        let after = target.state(GUEST, true);
        if entry.status().is_success() {
            let taken = target.state(GUEST, vendor);
            prop_assert_eq!(&taken[48..], &image[48..], "taken whole");
        } else {
            prop_assert_eq!(before, after, "refused whole");
        }
        let resumed = target.resume(GUEST).status().is_success();
        prop_assert_eq!(resumed, entry.status().is_success(), "runs only with a whole state");
        target.write32(GUEST, 0x14, 0);
        target.enable(GUEST);
    }
}
