// SPDX-License-Identifier: MIT OR Apache-2.0
//! Set Controller State: every status, every field of an image, and what a committed state does. NVMe Base 2.1
//! §5.1.17.1.3, Set Controller State.

use crate::harness::image::{CompletionState, HEADER, Image, SubmissionState};
use crate::harness::sqe;
use crate::harness::status::*;
use crate::harness::*;

/// The version index of NVMe Controller State v0, without a vendor part.
const V0: (u8, u8) = (1, 0);

/// The guest enabled and suspended, without I/O queues.
fn ready_to_receive() -> World {
    let mut world = World::new();
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    world
}

/// A right image with one queue pair in the guest's memory.
fn good(world: &World) -> Image {
    let guest = &world.hosts[GUEST];
    Image::one_pair(guest.allocate(1024), guest.allocate(256))
}

fn set(world: &mut World, image: &Image) -> Completion {
    world.set_image(MANAGER, GUEST_ID, V0, &image.bytes())
}

fn changed(world: &mut World, change: impl FnOnce(&mut Image)) -> Completion {
    let mut image = good(world);
    change(&mut image);
    set(world, &image)
}

fn part(world: &mut World, sequence: u32, bytes: &[u8], offset: u64) -> Completion {
    let command = world.state_part(MANAGER, GUEST_ID, sequence, V0, offset, bytes);
    world.admin(MANAGER, command)
}

#[test]
fn every_check_of_the_command_has_its_status() {
    check(
        ready_to_receive,
        &[
            ("one part", SUCCESS, |w| changed(w, |_| {})),
            ("CNTLID that no controller has", INVALID_CONTROLLER, |w| {
                let bytes = good(w).bytes();
                w.set_image(MANAGER, NOBODY_ID, V0, &bytes)
            }),
            ("CNTLID of the managing controller itself", INVALID_CONTROLLER, |w| {
                let bytes = good(w).bytes();
                w.set_image(MANAGER, MANAGER_ID, V0, &bytes)
            }),
            ("CNTLID of another managing controller", INVALID_CONTROLLER, |w| {
                let bytes = good(w).bytes();
                w.set_image(MANAGER, OTHER_MANAGER_ID, V0, &bytes)
            }),
            ("target that is not enabled", INVALID_CONTROLLER, |w| {
                w.disable(GUEST);
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                changed(w, |_| {})
            }),
            ("middle part first", SEQUENCE_ERROR, |w| {
                let bytes = good(w).bytes();
                part(w, sqe::MIDDLE, &bytes, 0)
            }),
            ("last part first", SEQUENCE_ERROR, |w| {
                let bytes = good(w).bytes();
                part(w, sqe::LAST, &bytes, 0)
            }),
            ("last part after a state was committed", SEQUENCE_ERROR, |w| {
                set(w, &Image::empty()).ok();
                let bytes = good(w).bytes();
                part(w, sqe::LAST, &bytes, 0)
            }),
            ("middle part after a failed one", SEQUENCE_ERROR, |w| {
                let bytes = good(w).bytes();
                part(w, sqe::FIRST, &bytes[..48], 0).ok();
                assert_ne!(part(w, sqe::MIDDLE, &bytes[48..], 1 << 20).code, SUCCESS);
                part(w, sqe::LAST, &bytes[48..], 48)
            }),
            ("first part again discards the old one", SUCCESS, |w| {
                let bytes = good(w).bytes();
                part(w, sqe::FIRST, &[0xEE; 64], 0);
                part(w, sqe::FIRST, &bytes[..64], 0).ok();
                part(w, sqe::LAST, &bytes[64..], 64)
            }),
            ("only part discards an unfinished sequence", SUCCESS, |w| {
                let bytes = good(w).bytes();
                part(w, sqe::FIRST, &bytes[..64], 0).ok();
                part(w, sqe::ONLY, &bytes, 0)
            }),
            ("only part that does not begin at 0", INVALID_FIELD, |w| {
                let bytes = good(w).bytes();
                part(w, sqe::ONLY, &bytes, 4)
            }),
            ("last part that adds nothing", SUCCESS, |w| {
                let bytes = good(w).bytes();
                part(w, sqe::FIRST, &bytes, 0).ok();
                part(w, sqe::LAST, &[], bytes.len() as u64)
            }),
            ("CSO not dword aligned, 1", INVALID_FIELD, |w| {
                let bytes = good(w).bytes();
                part(w, sqe::FIRST, &bytes[..64], 0).ok();
                part(w, sqe::LAST, &bytes[64..], 65)
            }),
            ("CSO not dword aligned, 2", INVALID_FIELD, |w| {
                let bytes = good(w).bytes();
                part(w, sqe::FIRST, &bytes[..64], 0).ok();
                part(w, sqe::LAST, &bytes[64..], 62)
            }),
            ("CSO beyond the state", INVALID_FIELD, |w| {
                let bytes = good(w).bytes();
                part(w, sqe::FIRST, &bytes, 0).ok();
                part(w, sqe::LAST, &[0; 4], bytes.len() as u64)
            }),
            ("first part longer than the state", INVALID_FIELD, |w| {
                let mut bytes = good(w).bytes();
                bytes.extend([0; 4]);
                part(w, sqe::FIRST, &bytes, 0)
            }),
            ("middle part that runs beyond the state", INVALID_FIELD, |w| {
                let mut bytes = good(w).bytes();
                bytes.extend([0; 4]);
                part(w, sqe::FIRST, &bytes[..64], 0).ok();
                part(w, sqe::MIDDLE, &bytes[64..], 64)
            }),
            ("CSO far beyond the state", INVALID_FIELD, |w| {
                let bytes = good(w).bytes();
                part(w, sqe::FIRST, &bytes[..64], 0).ok();
                part(w, sqe::LAST, &bytes[64..], 1 << 40)
            }),
            ("CSO that leaves a gap", INVALID_FIELD, |w| {
                let bytes = good(w).bytes();
                part(w, sqe::FIRST, &bytes[..64], 0).ok();
                part(w, sqe::LAST, &bytes[68..], 68)
            }),
            ("CSVI 2 is not in the list", INVALID_FIELD, |w| {
                let bytes = good(w).bytes();
                w.set_image(MANAGER, GUEST_ID, (2, 0), &bytes)
            }),
            ("CSVI FFh is not in the list", INVALID_FIELD, |w| {
                let bytes = good(w).bytes();
                w.set_image(MANAGER, GUEST_ID, (0xFF, 0), &bytes)
            }),
            ("CSUUIDI 2 is not in the list", INVALID_FIELD, |w| {
                let bytes = good(w).bytes();
                w.set_image(MANAGER, GUEST_ID, (1, 2), &bytes)
            }),
            ("CSUUIDI FFh is not in the list", INVALID_FIELD, |w| {
                let bytes = good(w).bytes();
                w.set_image(MANAGER, GUEST_ID, (1, 0xFF), &bytes)
            }),
            ("CSVI 0 with an NVMe state", INVALID_FIELD, |w| {
                let bytes = good(w).bytes();
                w.set_image(MANAGER, GUEST_ID, (0, 1), &bytes)
            }),
            ("CSUUIDI 0 with a vendor part", INVALID_FIELD, |w| {
                changed(w, |image| image.vendor = vec![0; 96])
            }),
            ("CSVI 0 and CSUUIDI 0", INVALID_FIELD, |w| {
                let mut image = Image::empty();
                image.nvme = false;
                w.set_image(MANAGER, GUEST_ID, (0, 0), &image.bytes())
            }),
            ("target has an I/O queue pair", INVALID_FIELD, |w| {
                set(w, &good(w)).ok();
                changed(w, |image| {
                    image.submission[0].id = 2;
                    image.completion[0].id = 2;
                    image.submission[0].completion = 2;
                })
            }),
            ("target has an I/O completion queue", INVALID_FIELD, |w| {
                w.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
                w.create_completion(GUEST, 3, 16, 0);
                w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
                changed(w, |_| {})
            }),
            ("data in memory that is not there", DATA_TRANSFER_ERROR, |w| {
                let bytes = good(w).bytes();
                let (prp1, _) = w.hosts[MANAGER].data(&bytes);
                w.memory(MANAGER).unmap(prp1, 4096);
                let len = bytes.len() as u32;
                w.admin(MANAGER, sqe::set_state(GUEST_ID, sqe::ONLY, V0, 0, len, (prp1, 0)))
            }),
            ("NSID 1", INVALID_FIELD, |w| {
                let bytes = good(w).bytes();
                let command = w.state_part(MANAGER, GUEST_ID, sqe::ONLY, V0, 0, &bytes);
                w.admin(MANAGER, command.namespace(1))
            }),
            ("UIDX 1 without UUID selection", INVALID_FIELD, |w| {
                let bytes = good(w).bytes();
                let command = w.state_part(MANAGER, GUEST_ID, sqe::ONLY, V0, 0, &bytes);
                w.admin(MANAGER, command.dword(14, 1))
            }),
        ],
    );
}

#[test]
fn r10_a_running_controller_takes_no_state() {
    for (name, action) in [
        ("never suspended", (|_| {}) as fn(&mut World)),
        ("notified", |w| _ = w.admin(MANAGER, sqe::notify_suspend(GUEST_ID)).ok()),
        ("resumed", |w| {
            w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
            w.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
        }),
        ("reset", |w| {
            w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
            w.reset(GUEST);
        }),
        ("its manager reset", |w| {
            w.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
            w.reset(MANAGER);
        }),
        ("another suspended", |w| _ = w.admin(MANAGER, sqe::suspend(OTHER_GUEST_ID)).ok()),
    ] {
        let mut world = World::new();
        action(&mut world);
        let image = good(&world);
        assert_eq!(set(&mut world, &image).code, INVALID_CONTROLLER, "{name}");
        for sequence in [sqe::FIRST, sqe::MIDDLE, sqe::LAST] {
            let code = part(&mut world, sequence, &image.bytes(), 0).code;
            assert_eq!(code, INVALID_CONTROLLER, "{name}, sequence indicator {sequence}");
        }
    }
}

#[test]
fn r10_a_committed_state_runs_only_after_resume() {
    let mut world = ready_to_receive();
    let mut image = good(&world);
    let guest = &world.hosts[GUEST];
    let command = sqe::read(NSID, 0, 1, guest.buffer(512).1).bytes(0x42);
    guest.memory.fill(image.submission[0].base, &command);
    image.submission[0].tail = 1;
    set(&mut world, &image).ok();
    let accesses = world.memory(GUEST).device_accesses();
    world.run();
    assert_eq!(world.memory(GUEST).device_accesses(), accesses, "both sides never run at once");
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    let completion = world.memory(GUEST).bytes(image.completion[0].base, 16);
    assert_eq!(completion[12..16], [0x42, 0, 1, 0], "identifier, phase and success");
}

#[test]
fn r19_every_field_of_an_image_is_checked() {
    check(
        ready_to_receive,
        &[
            ("right", SUCCESS, |w| changed(w, |_| {})),
            ("no queues", SUCCESS, |w| set(w, &Image::empty())),
            ("completion queue without submission queue", SUCCESS, |w| {
                changed(w, |image| image.submission.clear())
            }),
            ("CSATTR suspended", SUCCESS, |w| changed(w, |image| image.attributes = 1)),
            ("VER 1", INVALID_FIELD, |w| changed(w, |image| image.version = 1)),
            ("VER FFFFh", INVALID_FIELD, |w| changed(w, |image| image.version = 0xFFFF)),
            ("state VER 1", INVALID_FIELD, |w| changed(w, |image| image.state_version = 1)),
            ("NVMECSS one dword less", INVALID_FIELD, |w| changed(w, |image| image.nvme_dwords = Some(13))),
            ("NVMECSS one dword more", INVALID_FIELD, |w| changed(w, |image| image.nvme_dwords = Some(15))),
            ("NVMECSS one queue less", INVALID_FIELD, |w| changed(w, |image| image.nvme_dwords = Some(8))),
            ("NVMECSS zero", INVALID_FIELD, |w| changed(w, |image| image.nvme_dwords = Some(0))),
            ("VSS without a vendor part", INVALID_FIELD, |w| {
                changed(w, |image| image.vendor_dwords = Some(1))
            }),
            ("NIOSQ one more", INVALID_FIELD, |w| changed(w, |image| image.submission_count = Some(2))),
            ("NIOSQ one less", INVALID_FIELD, |w| changed(w, |image| image.submission_count = Some(0))),
            ("NIOCQ one more", INVALID_FIELD, |w| changed(w, |image| image.completion_count = Some(2))),
            ("NIOCQ one less", INVALID_FIELD, |w| changed(w, |image| image.completion_count = Some(0))),
            ("NIOSQ FFFFh", INVALID_FIELD, |w| changed(w, |image| image.submission_count = Some(0xFFFF))),
            ("truncated by a dword", INVALID_FIELD, |w| {
                let bytes = good(w).bytes();
                w.set_image(MANAGER, GUEST_ID, V0, &bytes[..bytes.len() - 4])
            }),
            ("longer by a dword", INVALID_FIELD, |w| {
                let mut bytes = good(w).bytes();
                bytes.extend([0; 4]);
                w.set_image(MANAGER, GUEST_ID, V0, &bytes)
            }),
            ("header alone", INVALID_FIELD, |w| {
                let bytes = good(w).bytes();
                w.set_image(MANAGER, GUEST_ID, V0, &bytes[..HEADER])
            }),
            ("less than a header", INVALID_FIELD, |w| {
                let bytes = good(w).bytes();
                w.set_image(MANAGER, GUEST_ID, V0, &bytes[..HEADER - 4])
            }),
            ("nothing at all", INVALID_FIELD, |w| w.set_image(MANAGER, GUEST_ID, V0, &[])),
            ("submission queue 0", INVALID_FIELD, |w| changed(w, |image| image.submission[0].id = 0)),
            ("submission queue beyond the last", INVALID_FIELD, |w| {
                changed(w, |image| image.submission[0].id = 6)
            }),
            ("submission queue FFFFh", INVALID_FIELD, |w| {
                changed(w, |image| image.submission[0].id = 0xFFFF)
            }),
            ("completion queue 0", INVALID_FIELD, |w| {
                changed(w, |image| {
                    image.completion[0].id = 0;
                    image.submission[0].completion = 0;
                })
            }),
            ("completion queue beyond the last", INVALID_FIELD, |w| {
                changed(w, |image| {
                    image.completion[0].id = 6;
                    image.submission[0].completion = 6;
                })
            }),
            ("completion queue of a submission queue is not there", INVALID_FIELD, |w| {
                changed(w, |image| image.submission[0].completion = 2)
            }),
            ("submission queue on the admin completion queue", INVALID_FIELD, |w| {
                changed(w, |image| image.submission[0].completion = 0)
            }),
            ("submission queues twice", INVALID_FIELD, |w| {
                changed(w, |image| image.submission.push(image.submission[0]))
            }),
            ("submission queues falling", INVALID_FIELD, |w| {
                changed(w, |image| {
                    let mut other = image.submission[0];
                    other.id = 3;
                    image.submission.insert(0, other);
                })
            }),
            ("completion queues twice", INVALID_FIELD, |w| {
                changed(w, |image| image.completion.push(image.completion[0]))
            }),
            ("completion queues falling", INVALID_FIELD, |w| {
                changed(w, |image| {
                    let mut other = image.completion[0];
                    other.id = 3;
                    image.completion.insert(0, other);
                })
            }),
            ("two submission queues on one completion queue", SUCCESS, |w| {
                changed(w, |image| {
                    let mut other = image.submission[0];
                    other.id = 4;
                    image.submission.push(other);
                })
            }),
            ("submission QSIZE 0", INVALID_FIELD, |w| changed(w, |image| image.submission[0].size = 0)),
            ("completion QSIZE 0", INVALID_FIELD, |w| changed(w, |image| image.completion[0].size = 0)),
            ("submission head is the size", INVALID_FIELD, |w| {
                changed(w, |image| image.submission[0].head = 16)
            }),
            ("submission tail is the size", INVALID_FIELD, |w| {
                changed(w, |image| image.submission[0].tail = 16)
            }),
            ("submission tail FFFFh", INVALID_FIELD, |w| {
                changed(w, |image| image.submission[0].tail = 0xFFFF)
            }),
            ("completion head is the size", INVALID_FIELD, |w| {
                changed(w, |image| image.completion[0].head = 16)
            }),
            ("completion tail is the size", INVALID_FIELD, |w| {
                changed(w, |image| image.completion[0].tail = 16)
            }),
            ("last slots are heads and tails", SUCCESS, |w| {
                changed(w, |image| {
                    image.submission[0].head = 15;
                    image.submission[0].tail = 15;
                    image.completion[0].head = 15;
                    image.completion[0].tail = 15;
                })
            }),
            ("submission base with offset", INVALID_FIELD, |w| {
                changed(w, |image| image.submission[0].base += 64)
            }),
            ("completion base with offset", INVALID_FIELD, |w| {
                changed(w, |image| image.completion[0].base += 16)
            }),
            ("interrupt vector beyond the last", INVALID_FIELD, |w| {
                changed(w, |image| image.completion[0].attributes |= 64 << 16)
            }),
            ("last interrupt vector", SUCCESS, |w| {
                changed(w, |image| image.completion[0].attributes |= 63 << 16)
            }),
            ("reserved header bytes", INVALID_FIELD, |w| changed(w, |image| image.reserved[0] = 1)),
            ("reserved CSATTR bits", INVALID_FIELD, |w| changed(w, |image| image.attributes = 2)),
            ("reserved state bytes", INVALID_FIELD, |w| changed(w, |image| image.state_reserved = 1)),
            ("reserved submission bytes", INVALID_FIELD, |w| {
                changed(w, |image| image.submission[0].reserved = 1)
            }),
            ("reserved completion bytes", INVALID_FIELD, |w| {
                changed(w, |image| image.completion[0].reserved = 1)
            }),
            ("reserved submission attributes", INVALID_FIELD, |w| {
                changed(w, |image| image.submission[0].attributes |= 8)
            }),
            ("reserved completion attributes", INVALID_FIELD, |w| {
                changed(w, |image| image.completion[0].attributes |= 8)
            }),
            ("more submission queues than the controller has", NOT_ENOUGH_RESOURCES, |w| {
                changed(w, |image| {
                    let queue = image.submission[0];
                    image.submission = (1..=6).map(|id| SubmissionState { id, ..queue }).collect();
                })
            }),
            ("more completion queues than the controller has", NOT_ENOUGH_RESOURCES, |w| {
                changed(w, |image| {
                    let queue = image.completion[0];
                    image.completion = (1..=6).map(|id| CompletionState { id, ..queue }).collect();
                })
            }),
            ("NVMECSS 2^32", NOT_ENOUGH_RESOURCES, |w| changed(w, |image| image.nvme_dwords = Some(1 << 32))),
            ("NVMECSS 2^64", NOT_ENOUGH_RESOURCES, |w| changed(w, |image| image.nvme_dwords = Some(1 << 64))),
            ("NVMECSS 2^126", NOT_ENOUGH_RESOURCES, |w| {
                changed(w, |image| image.nvme_dwords = Some(1 << 126))
            }),
            ("NVMECSS all ones", NOT_ENOUGH_RESOURCES, |w| {
                changed(w, |image| image.nvme_dwords = Some(u128::MAX))
            }),
            ("VSS all ones", NOT_ENOUGH_RESOURCES, |w| {
                changed(w, |image| image.vendor_dwords = Some(u128::MAX))
            }),
        ],
    );
}

#[test]
fn r19_limits_of_the_controller_apply_to_images() {
    let suspended = |change: fn(&mut Setup)| {
        let mut world = World::with(change);
        world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        world
    };
    let mut world = suspended(|setup| setup.config.contiguous_queues_required = true);
    let code = changed(&mut world, |image| image.submission[0].attributes &= !1).code;
    assert_eq!(code, INVALID_FIELD, "PC=0 although queues must be contiguous (submission)");
    let code = changed(&mut world, |image| image.completion[0].attributes &= !1).code;
    assert_eq!(code, INVALID_FIELD, "PC=0 although queues must be contiguous (completion)");

    for (size, expected) in [(15, SUCCESS), (16, INVALID_FIELD), (0xFFFF, INVALID_FIELD)] {
        let mut world = suspended(|setup| setup.config.max_queue_entries = 16);
        let code = changed(&mut world, |image| image.submission[0].size = size).code;
        assert_eq!(code, expected, "QSIZE {size} with at most 16 entries (submission)");
        let mut world = suspended(|setup| setup.config.max_queue_entries = 16);
        let code = changed(&mut world, |image| image.completion[0].size = size).code;
        assert_eq!(code, expected, "QSIZE {size} with at most 16 entries (completion)");
    }

    let mut world = suspended(|setup| setup.page_shift = 14);
    let code = changed(&mut world, |image| image.submission[0].base += 4096).code;
    assert_eq!(code, INVALID_FIELD, "aligned to 4 KiB with pages of 16 KiB");

    let mut world = suspended(|setup| setup.state_bytes = 100);
    let code = changed(&mut world, |_| {}).code;
    assert_eq!(code, NOT_ENOUGH_RESOURCES, "104 bytes do not fit into 100");
}

#[test]
fn r19_queues_over_page_lists_are_checked() {
    let mut world = ready_to_receive();
    let guest = world.hosts[GUEST].clone();
    let page = guest.allocate(4096);
    for (name, entry, expected) in [("a page", page, SUCCESS), ("a page with offset", page + 64, PRP_OFFSET)]
    {
        let list = guest.page_list(&[entry]);
        let mut image = good(&world);
        image.submission[0].attributes &= !1;
        image.submission[0].base = list;
        let code = set(&mut world, &image).code;
        // A bad list entry may be reported as what it is or as an invalid field of the state.
        assert!(code == expected || (expected != SUCCESS && code == INVALID_FIELD), "{name}: {code:?}");
        if code == SUCCESS {
            world.reset(GUEST);
            world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
        }
    }
    let mut image = good(&world);
    image.completion[0].attributes &= !1;
    image.completion[0].base = guest.allocate(4096);
    world.memory(GUEST).unmap(image.completion[0].base, 4096);
    assert_ne!(set(&mut world, &image).code, SUCCESS, "a list that cannot be read");
}

#[test]
fn a_refused_state_leaves_nothing_behind() {
    let mut world = ready_to_receive();
    for round in 0..3 {
        let mut image = good(&world);
        image.submission[0].head = 99;
        assert_eq!(set(&mut world, &image).code, INVALID_FIELD, "round {round}");
        let state = world.get_image(MANAGER, GUEST_ID, V0);
        let state = Image::parse(&state);
        assert_eq!((state.submission.len(), state.completion.len()), (0, 0), "no queue was made");
    }
    assert_eq!(world.admin(MANAGER, sqe::resume(GUEST_ID)).code, SEQUENCE_ERROR, "nothing was committed");
    world.reset(GUEST);
    world.create_pair(GUEST, 1, 16);
}

#[test]
fn r18_a_state_may_be_cut_anywhere() {
    let whole = {
        let world = ready_to_receive();
        good(&world).bytes()
    };
    let dwords = whole.len() / 4;
    for first in 0..=dwords {
        let mut world = ready_to_receive();
        let bytes = good(&world).bytes();
        let cut = first * 4;
        part(&mut world, sqe::FIRST, &bytes[..cut], 0).ok();
        part(&mut world, sqe::LAST, &bytes[cut..], cut as u64).ok();
        assert_eq!(world.get_image(MANAGER, GUEST_ID, V0)[HEADER..], bytes[HEADER..], "cut at byte {cut}");
    }
    let mut world = ready_to_receive();
    let bytes = good(&world).bytes();
    for (index, dword) in bytes.chunks(4).enumerate() {
        let sequence = match index {
            0 => sqe::FIRST,
            index if index == dwords - 1 => sqe::LAST,
            _ => sqe::MIDDLE,
        };
        part(&mut world, sequence, dword, index as u64 * 4).ok();
    }
    assert_eq!(world.get_image(MANAGER, GUEST_ID, V0)[HEADER..], bytes[HEADER..], "dword by dword");
}

#[test]
fn r18_commands_go_on_between_parts_and_nothing_takes_effect_before_the_last() {
    let mut world = ready_to_receive();
    let bytes = good(&world).bytes();
    part(&mut world, sqe::FIRST, &bytes[..60], 0).ok();
    world.identify(MANAGER, 0x01, 0, 0);
    part(&mut world, sqe::MIDDLE, &bytes[60..80], 60).ok();
    let state = Image::parse(&world.get_image(MANAGER, GUEST_ID, V0));
    assert!(state.submission.is_empty() && state.completion.is_empty());
    part(&mut world, sqe::LAST, &bytes[80..], 80).ok();
    let state = Image::parse(&world.get_image(MANAGER, GUEST_ID, V0));
    assert_eq!((state.submission.len(), state.completion.len()), (1, 1));
}

#[test]
fn r21_addresses_of_an_image_are_the_guests() {
    let mut world = ready_to_receive();
    let image = good(&world);
    let (submission, completion) = (image.submission[0].base, image.completion[0].base);
    // The same bus addresses in every other space hold a pattern that nobody may touch.
    for host in [MANAGER, OTHER_MANAGER, OTHER_GUEST] {
        for base in [submission, completion] {
            world.memory(host).map(base, 4096);
            world.memory(host).fill(base, &[0x5A; 4096]);
        }
    }
    set(&mut world, &image).ok();
    world.hosts[GUEST].add_submission(1, submission, 16);
    world.hosts[GUEST].add_completion(1, completion, 16);
    world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
    let prps = world.hosts[GUEST].buffer(512).1;
    world.exec(GUEST, 1, sqe::read(NSID, 0, 1, prps)).ok();
    for host in [MANAGER, OTHER_MANAGER, OTHER_GUEST] {
        for base in [submission, completion] {
            assert_eq!(world.memory(host).bytes(base, 4096), [0x5A; 4096], "space of controller {host}");
        }
    }
}

#[test]
fn heads_tails_and_phases_of_an_image_take_effect() {
    // Completion tail, phase stored in slot 0, and the phase the next completion must carry.
    for (name, tail, slot_zero, next) in [
        ("first lap, slot 0", 0, 0, 1),
        ("first lap, middle", 5, 1, 1),
        ("first lap, last slot", 15, 1, 1),
        ("second lap, slot 0", 0, 1, 0),
        ("second lap, middle", 5, 0, 0),
        ("second lap, last slot", 15, 0, 0),
    ] {
        for head in [0_u16, 3, 15] {
            let mut world = ready_to_receive();
            let mut image = good(&world);
            let guest = world.hosts[GUEST].clone();
            let (submission, completion) = (image.submission[0].base, image.completion[0].base);
            let command = sqe::read(NSID, 0, 1, guest.buffer(512).1).bytes(0x77);
            guest.memory.fill(submission + u64::from(head) * 64, &command);
            image.submission[0].head = head;
            image.submission[0].tail = (head + 1) % 16;
            image.completion[0].head = tail;
            image.completion[0].tail = tail;
            image.completion[0].attributes |= slot_zero << 2;
            set(&mut world, &image).ok();
            world.admin(MANAGER, sqe::resume(GUEST_ID)).ok();
            let entry = world.memory(GUEST).bytes(completion + u64::from(tail) * 16, 16);
            assert_eq!(entry[12..14], [0x77, 0], "{name}, head {head}: posted in the slot of the tail");
            assert_eq!(u16::from(entry[14]), next, "{name}, head {head}: phase and success");
            assert_eq!(entry[8..10], ((head + 1) % 16).to_le_bytes(), "{name}, head {head}: SQHD");
        }
    }
}

#[test]
fn a_committed_state_does_not_survive_a_reset_of_its_controller() {
    let mut world = ready_to_receive();
    changed(&mut world, |_| {}).ok();
    world.reset(GUEST);
    world.admin(MANAGER, sqe::suspend(GUEST_ID)).ok();
    let state = Image::parse(&world.get_image(MANAGER, GUEST_ID, V0));
    assert!(state.submission.is_empty() && state.completion.is_empty());
}
