// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every check of Migration Send, Migration Receive and Supported Controller State Formats, with its status.

mod harness;

use harness::lm::{receive_command, suspend_command};
use harness::{GUEST, MANAGER, NSID, Options, Rig, code, id_of};
use nvme_controller::state_format::FORMAT_UUID;
use nvme_controller::{Quirks, SubsystemConfig};
use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::identify::SupportedControllerStateFormats;
use nvme_core::wire::migration::{MigrationReceive, MigrationSend, SequenceIndicator, SuspendKind};
use nvme_core::wire::{Command, ControllerId, Status, SubmissionQueueEntry};

const UNKNOWN: ControllerId = ControllerId::new(0x7FFF);

fn with(options: Options) -> Rig {
    let mut rig = Rig::with(options);
    for controller in 0..rig.ports.len() {
        rig.enable(controller);
    }
    rig
}

fn rig() -> Rig {
    with(Options { second_manager: true, ..Options::default() })
}

fn suspended() -> Rig {
    let mut rig = rig();
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    rig
}

fn suspend_of(controller: ControllerId, kind: SuspendKind) -> MigrationSend {
    MigrationSend::Suspend { controller, kind, delete_queue: false, uuid_index: 0 }
}

#[test]
fn suspend_is_refused_with_the_status_of_its_violation() {
    let good = suspend_command(GUEST, false).encode();
    let rows: [(&str, SubmissionQueueEntry, u8, u8); 10] = [
        ("notification", suspend_of(id_of(GUEST), SuspendKind::Notification).encode(), 0, 0x00),
        (
            "notification, unknown controller",
            suspend_of(UNKNOWN, SuspendKind::Notification).encode(),
            1,
            0x1F,
        ),
        ("suspend", good, 0, 0x00),
        ("unknown controller", suspend_of(UNKNOWN, SuspendKind::Suspend).encode(), 1, 0x1F),
        ("the manager itself", suspend_of(id_of(MANAGER), SuspendKind::Suspend).encode(), 1, 0x1F),
        ("another manager", suspend_of(id_of(3), SuspendKind::Suspend).encode(), 1, 0x1F),
        ("reserved type", good.with_dwords([0, 0x2_0013, 0, 0, 0, 0]), 0, 0x02),
        ("reserved select", good.with_dwords([3, 0x13, 0, 0, 0, 0]), 0, 0x02),
        ("namespace", good.with_namespace(NSID), 0, 0x02),
        ("UUID index", good.with_dwords([0, 0x1_0013, 0, 0, 1, 0]), 0, 0x02),
    ];
    for (name, entry, kind, status) in rows {
        let mut rig = rig();
        assert_eq!(rig.command(MANAGER, 0, entry).status().code(), code(kind, status), "{name}");
    }
}

#[test]
fn a_notification_changes_nothing_and_repeating_a_suspend_is_no_error() {
    let mut rig = rig();
    let notification = suspend_of(id_of(GUEST), SuspendKind::Notification);
    assert_eq!(rig.admin(MANAGER, &notification).status(), Status::SUCCESS);
    assert_eq!(rig.resume(GUEST).status().code(), code(1, 0x3A), "still running");
    for _ in 0..2 {
        assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    }
    assert_eq!(rig.resume(GUEST).status(), Status::SUCCESS);
}

#[test]
fn resume_is_refused_with_the_status_of_its_violation() {
    let resume = |controller| MigrationSend::Resume { controller, uuid_index: 0 };
    let mut rig = suspended();
    for (name, controller, kind, status) in [
        ("not suspended", id_of(GUEST + 1), 1, 0x3A),
        ("unknown controller", UNKNOWN, 1, 0x1F),
        ("the manager itself", id_of(MANAGER), 1, 0x1F),
        ("suspended", id_of(GUEST), 0, 0x00),
        ("resumed before", id_of(GUEST), 1, 0x3A),
    ] {
        assert_eq!(rig.admin(MANAGER, &resume(controller)).status().code(), code(kind, status), "{name}");
    }
}

#[test]
fn r18_resume_waits_for_a_state_that_was_begun_to_be_committed() {
    let mut rig = suspended();
    let image = rig.state(GUEST, false);
    let (first, last) = image.split_at(52);
    let parts = [(first, 0, SequenceIndicator::First), (last, 52, SequenceIndicator::Last)];
    let (part, offset, sequence) = parts[0];
    assert_eq!(rig.send_part(GUEST, part, offset, sequence, false).status(), Status::SUCCESS);
    assert_eq!(rig.resume(GUEST).status().code(), code(0, 0x0C));
    let (part, offset, sequence) = parts[1];
    assert_eq!(rig.send_part(GUEST, part, offset, sequence, false).status(), Status::SUCCESS);
    assert_eq!(rig.resume(GUEST).status(), Status::SUCCESS);
}

/// What is done to a good image and its command before it is sent.
struct Change {
    name: &'static str,
    image: fn(&mut Vec<u8>),
    command: fn([u32; 6]) -> [u32; 6],
    status: (u8, u8),
}

const SAME: fn([u32; 6]) -> [u32; 6] = |dwords| dwords;
const WHOLE: fn(&mut Vec<u8>) = |_| {};

const CHANGES: &[Change] = &[
    Change { name: "as it is", image: WHOLE, command: SAME, status: (0, 0x00) },
    Change { name: "structure version", image: |image| image[0] = 1, command: SAME, status: (0, 0x02) },
    Change { name: "reserved attribute", image: |image| image[2] = 0x81, command: SAME, status: (0, 0x02) },
    Change {
        name: "reserved byte of the header",
        image: |image| image[9] = 1,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "state larger than it is",
        image: |image| image[16] += 1,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "state too large to stage",
        image: |image| image[30] = 1,
        command: SAME,
        status: (1, 0x38),
    },
    Change {
        name: "state smaller than what is sent",
        image: |image| image[16] -= 1,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "vendor part without its index",
        image: |image| {
            image[32] = 1;
            image.extend([0; 4]);
        },
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "state without its index",
        image: WHOLE,
        command: |[a, b, c, d, e, f]| [a, (b & !0xFF_0000) | 0x0100_0000, c, d, e, f],
        status: (0, 0x02),
    },
    Change {
        name: "neither index",
        image: WHOLE,
        command: |[a, b, c, d, e, f]| [a, b & 0xFFFF, c, d, e, f],
        status: (0, 0x02),
    },
    Change {
        name: "unknown version index",
        image: WHOLE,
        command: |[a, b, c, d, e, f]| [a, b + 0x1_0000, c, d, e, f],
        status: (0, 0x02),
    },
    Change {
        name: "unknown vendor index",
        image: WHOLE,
        command: |[a, b, c, d, e, f]| [a, b + 0x0200_0000, c, d, e, f],
        status: (0, 0x02),
    },
    Change {
        name: "UUID index",
        image: WHOLE,
        command: |[a, b, c, d, _, f]| [a, b, c, d, 1, f],
        status: (0, 0x02),
    },
    Change {
        name: "offset not a multiple of four",
        image: WHOLE,
        command: |[a, b, _, d, e, f]| [a, b, 2, d, e, f],
        status: (0, 0x02),
    },
    Change {
        name: "offset leaves a gap",
        image: WHOLE,
        command: |[a, b, _, d, e, f]| [a, b, 4, d, e, f],
        status: (0, 0x02),
    },
    Change {
        name: "offset outside everything",
        image: WHOLE,
        command: |[a, b, c, _, e, f]| [a, b, c, 1, e, f],
        status: (0, 0x02),
    },
    Change {
        name: "less than the image",
        image: WHOLE,
        command: |[a, b, c, d, e, f]| [a, b, c, d, e, f - 1],
        status: (0, 0x02),
    },
    Change {
        name: "middle without a first",
        image: WHOLE,
        command: |[_, b, c, d, e, f]| [2, b, c, d, e, f],
        status: (0, 0x0C),
    },
    Change {
        name: "last without a first",
        image: WHOLE,
        command: |[_, b, c, d, e, f]| [0x2_0002, b, c, d, e, f],
        status: (0, 0x0C),
    },
    Change {
        name: "unknown controller",
        image: WHOLE,
        command: |[a, b, c, d, e, f]| [a, b | 0x7FFF, c, d, e, f],
        status: (1, 0x1F),
    },
    Change {
        name: "controller that is not suspended",
        image: WHOLE,
        command: |[a, b, c, d, e, f]| [a, (b & !0xFFFF) | 0x16, c, d, e, f],
        status: (1, 0x1F),
    },
    Change {
        name: "the manager itself",
        image: WHOLE,
        command: |[a, b, c, d, e, f]| [a, (b & !0xFFFF) | 0x10, c, d, e, f],
        status: (1, 0x1F),
    },
    Change { name: "queue state version", image: |image| image[48] = 1, command: SAME, status: (0, 0x02) },
    Change {
        name: "reserved field of the queue state",
        image: |image| image[54] = 1,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "fewer submission queues than bytes",
        image: |image| image[50] = 1,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "more completion queues than bytes",
        image: |image| image[52] = 3,
        command: SAME,
        status: (0, 0x02),
    },
    Change { name: "submission queue 0", image: |image| image[66] = 0, command: SAME, status: (0, 0x02) },
    Change {
        name: "submission queue too high",
        image: |image| image[90] = 9,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "submission queues do not ascend",
        image: |image| image[90] = 1,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "submission queue of one entry",
        image: |image| image[64] = 0,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "submission queue too large",
        image: |image| image[65] = 8,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "submission queue base offset",
        image: |image| image[57] = 1,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "submission queue without completion queue",
        image: |image| image[68] = 3,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "submission queue attribute",
        image: |image| image[70] |= 8,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "submission head outside",
        image: |image| image[72] = 16,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "submission tail outside",
        image: |image| image[74] = 16,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "submission queue reserved field",
        image: |image| image[76] = 1,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "submission queue list that is not there",
        image: |image| image[70] &= !1,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "completion queues do not ascend",
        image: |image| image[138] = 1,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "completion queue base offset",
        image: |image| image[105] = 1,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "completion head outside",
        image: |image| image[116] = 16,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "completion tail outside",
        image: |image| image[118] = 16,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "completion queue attribute",
        image: |image| image[120] |= 8,
        command: SAME,
        status: (0, 0x02),
    },
    Change {
        name: "completion vector too high",
        image: |image| image[122] = 8,
        command: SAME,
        status: (0, 0x02),
    },
];

/// The guest's image with two queue pairs of 16 entries and one suspended, empty receiver.
fn image_and_receiver(vendor: bool) -> (Vec<u8>, Rig) {
    let mut source = rig();
    for queue in [1, 2] {
        source.create_pair(GUEST, queue, 16);
    }
    assert_eq!(source.suspend(GUEST, false).status(), Status::SUCCESS);
    let image = source.state(GUEST, vendor);
    (image, suspended())
}

#[test]
fn r19_every_field_of_a_state_is_checked() {
    for change in CHANGES {
        let (mut image, mut rig) = image_and_receiver(false);
        (change.image)(&mut image);
        let command = MigrationSend::SetControllerState {
            controller: id_of(GUEST),
            sequence: SequenceIndicator::Only,
            version_index: 1,
            vendor_index: 0,
            offset: 0,
            dwords: image.len() as u32 / 4,
            uuid_index: 0,
        };
        let (prp1, prp2, _) = rig.buffer(MANAGER, &image);
        let entry = command.encode();
        let entry = entry.with_dwords((change.command)(entry.dwords())).with_prps(prp1, prp2);
        let (kind, status) = change.status;
        assert_eq!(rig.command(MANAGER, 0, entry).status().code(), code(kind, status), "{}", change.name);
        let after = rig.state(GUEST, false);
        let queues = after[50] + after[52];
        assert_eq!(queues, if status == 0 { 4 } else { 0 }, "{}: all or nothing", change.name);
        // A command that is refused before its data is looked at leaves no sequence behind.
        let resumed = rig.resume(GUEST).status().code();
        let allowed = resumed == Status::SUCCESS.code() || (status != 0 && resumed == code(0, 0x0C));
        assert!(allowed, "{}: {resumed} for Resume", change.name);
    }
}

#[test]
fn set_needs_a_target_in_a_condition_to_take_a_state() {
    let (image, mut rig) = image_and_receiver(false);
    assert_eq!(rig.set_state(GUEST + 1, &image, false).status().code(), code(1, 0x1F), "running");
    assert_eq!(rig.set_state(GUEST, &image, false).status(), Status::SUCCESS);
    assert_eq!(rig.set_state(GUEST, &image, false).status().code(), code(0, 0x02), "has I/O queues");

    let (image, _) = image_and_receiver(false);
    let mut rig = Rig::new();
    rig.enable(MANAGER);
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS, "a disabled controller can be suspended");
    assert_eq!(
        rig.set_state(GUEST, &image, false).status().code(),
        code(1, 0x1F),
        "disabled, no vendor part"
    );
}

#[test]
fn staging_memory_bounds_what_can_be_set() {
    let (image, _) = image_and_receiver(false);
    let mut rig = with(Options { state: Some(100), ..Options::default() });
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    assert_eq!(rig.set_state(GUEST, &image, false).status().code(), code(1, 0x38));
}

#[test]
fn r18_a_state_arrives_in_any_number_of_parts() {
    for size in [4, 8, 48, 52, 100] {
        let (image, mut rig) = image_and_receiver(true);
        let parts: Vec<_> = image.chunks(size).collect();
        for (at, part) in parts.iter().enumerate() {
            let sequence = match at {
                0 => SequenceIndicator::First,
                _ if at + 1 == parts.len() => SequenceIndicator::Last,
                _ => SequenceIndicator::Middle,
            };
            let entry = rig.send_part(GUEST, part, (at * size) as u64, sequence, true);
            assert_eq!(entry.status(), Status::SUCCESS, "part {at} of {size} bytes");
        }
        assert_eq!(rig.state(GUEST, true), image, "parts of {size} bytes");
    }
}

#[test]
fn r18_sequences_and_what_breaks_them() {
    use SequenceIndicator::{First, Last, Middle, Only};
    let (image, _) = image_and_receiver(false);
    type Step<'a> = (&'a [u8], u64, SequenceIndicator, u8, u8);
    let head = &image[..48];
    let rest = &image[48..];
    let rows: [(&str, &[Step<'_>]); 7] = [
        ("last part empty", &[(head, 0, First, 0, 0), (rest, 48, Middle, 0, 0), (&[], 152, Last, 0, 0)]),
        (
            "a new first drops what was begun",
            &[(rest, 0, First, 0, 2), (head, 0, First, 0, 0), (rest, 48, Last, 0, 0)],
        ),
        ("an only one drops what was begun", &[(head, 0, First, 0, 0), (&image, 0, Only, 0, 0)]),
        (
            "a failure drops what was begun",
            &[
                (head, 0, First, 0, 0),
                (rest, 52, Middle, 0, 0x02),
                (rest, 48, Last, 0, 0x0C),
                (&image, 0, Only, 0, 0),
            ],
        ),
        ("after the last comes nothing", &[(&image, 0, Only, 0, 0), (rest, 48, Middle, 0, 0x02)]),
        (
            "parts may overlap",
            &[(head, 0, First, 0, 0), (&image[16..100], 16, Middle, 0, 0), (&image[48..], 48, Last, 0, 0)],
        ),
        (
            "more than the image",
            &[(head, 0, First, 0, 0), (rest, 48, Middle, 0, 0), (&[0; 4], 152, Last, 0, 0x02)],
        ),
    ];
    for (name, steps) in rows {
        let mut rig = suspended();
        for (at, (part, offset, sequence, kind, status)) in steps.iter().enumerate() {
            let entry = rig.send_part(GUEST, part, *offset, *sequence, false);
            if name == "a new first drops what was begun" && at == 0 {
                // Bytes that are no header: refused as soon as they can be judged.
                assert!(!entry.status().is_success(), "{name}");
                continue;
            }
            assert_eq!(entry.status().code(), code(*kind, *status), "{name}, step {at}");
        }
    }
}

#[test]
fn receive_is_refused_with_the_status_of_its_violation() {
    let good = receive_command(GUEST, false, 0, 4096);
    let total = 56_u64;
    let rows: [(&str, MigrationReceive, u8, u8); 12] = [
        ("suspended", good, 0, 0x00),
        ("running", MigrationReceive { controller: id_of(GUEST + 1), ..good }, 0, 0x00),
        ("no NVMe state", MigrationReceive { version_index: 0, ..good }, 0, 0x00),
        ("with vendor part", MigrationReceive { vendor_index: 1, vendor_parameter: 9, ..good }, 0, 0x00),
        ("unknown controller", MigrationReceive { controller: UNKNOWN, ..good }, 1, 0x1F),
        ("the manager itself", MigrationReceive { controller: id_of(MANAGER), ..good }, 1, 0x1F),
        ("unknown version index", MigrationReceive { version_index: 2, ..good }, 0, 0x02),
        ("unknown vendor index", MigrationReceive { vendor_index: 2, ..good }, 0, 0x02),
        ("UUID index", MigrationReceive { uuid_index: 1, ..good }, 0, 0x02),
        ("offset inside", MigrationReceive { offset: total - 4, ..good }, 0, 0x00),
        ("offset outside", MigrationReceive { offset: total + 4, ..good }, 0, 0x02),
        ("longer than the largest transfer", MigrationReceive { dwords: 1 << 30, ..good }, 0, 0x02),
    ];
    let mut rig = suspended();
    for (name, command, kind, status) in rows {
        let (entry, _) = rig.admin_data(MANAGER, &command, &[0; 4096]);
        assert_eq!(entry.status().code(), code(kind, status), "{name}");
        if status == 0 {
            assert_eq!(MigrationReceive::was_suspended(&entry), name != "running", "{name}: CSUP");
        }
    }
    let unaligned = good.encode().with_dwords([0x1_0000, 0x13, 2, 0, 0, 7]);
    assert_eq!(
        rig.command(MANAGER, 0, unaligned).status().code(),
        code(0, 0x02),
        "offset not a multiple of four"
    );
    let select = good.encode().with_dwords([1, 0x13, 0, 0, 0, 7]);
    assert_eq!(rig.command(MANAGER, 0, select).status().code(), code(0, 0x02), "reserved select");
    assert_eq!(rig.command(MANAGER, 0, good.encode().with_namespace(NSID)).status().code(), code(0, 0x02));
}

#[test]
fn r18_a_state_can_be_read_in_pieces() {
    let mut rig = rig();
    rig.create_pair(GUEST, 1, 16);
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    let whole = rig.state(GUEST, true);
    for size in [4, 20, 48, 100] {
        let mut image = Vec::new();
        while image.len() < whole.len() {
            let command = receive_command(GUEST, true, image.len() as u64, size);
            let (entry, piece) = rig.admin_data(MANAGER, &command, &vec![0xEE; size as usize]);
            assert_eq!(entry.status(), Status::SUCCESS);
            image.extend(piece);
        }
        assert!(image[whole.len()..].iter().all(|byte| *byte == 0), "padded");
        assert_eq!(image[..whole.len()], whole, "pieces of {size}");
    }
}

#[test]
fn r17_formats_are_listed_by_managers_only() {
    let command = Identify::new(IdentifyStructure::SUPPORTED_CONTROLLER_STATE_FORMATS);
    let mut rig = rig();
    let (entry, page) = rig.admin_data(MANAGER, &command, &[0xEE; 4096]);
    assert_eq!(entry.status(), Status::SUCCESS);
    let formats = SupportedControllerStateFormats::parse(&page).unwrap();
    assert_eq!(formats.version_index(0), Some(1));
    assert_eq!(formats.vendor_index(&FORMAT_UUID), Some(1));
    assert!(page[20..].iter().all(|byte| *byte == 0), "the rest of the page is zero");
    assert_eq!(rig.admin(GUEST, &command).status().code(), code(0, 0x02));
    let erratum = Identify::new(IdentifyStructure::SUPPORTED_CONTROLLER_STATE_FORMATS_ERRATUM);
    assert_eq!(rig.admin(MANAGER, &erratum).status().code(), code(0, 0x02));

    let subsystem = SubsystemConfig { vendor_state_format: false, ..Options::default().subsystem };
    let mut rig = with(Options { subsystem, ..Options::default() });
    let (_, page) = rig.admin_data(MANAGER, &command, &[0xEE; 4096]);
    assert_eq!(SupportedControllerStateFormats::parse(&page).unwrap().vendors().count(), 0);
    let receive = receive_command(GUEST, true, 0, 4096);
    assert_eq!(rig.admin(MANAGER, &receive).status().code(), code(0, 0x02));
}

#[test]
fn r1_migratable_controllers_have_none_of_the_commands() {
    let mut rig = rig();
    for opcode in [0x3D, 0x3E, 0x41, 0x42, 0x45] {
        let entry = SubmissionQueueEntry::new(opcode);
        assert_eq!(rig.command(GUEST, 0, entry).status().code(), code(0, 0x01), "opcode {opcode:#x}");
    }
}

#[test]
fn quirks_of_known_models() {
    let with_quirks = |quirks| {
        let subsystem = SubsystemConfig { quirks, ..Options::default().subsystem };
        with(Options { subsystem, ..Options::default() })
    };
    let mut rig = with_quirks(Quirks::INVALID_CONTROLLER_IS_INVALID_FIELD);
    let suspend = suspend_of(UNKNOWN, SuspendKind::Suspend);
    assert_eq!(rig.admin(MANAGER, &suspend).status().code(), code(0, 0x02));
    let receive = MigrationReceive { controller: UNKNOWN, ..receive_command(GUEST, false, 0, 64) };
    assert_eq!(rig.admin(MANAGER, &receive).status().code(), code(1, 0x37));

    let mut rig = with_quirks(Quirks::SUSPENDED_NOT_REPORTED);
    assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
    let (entry, image) = rig.admin_data(MANAGER, &receive_command(GUEST, false, 0, 64), &[0; 64]);
    assert_eq!((entry.dw0(), image[2]), (0, 1), "only the header says so");

    let mut rig = with_quirks(Quirks::FORMATS_FOUR_BYTES);
    let command = Identify::new(IdentifyStructure::SUPPORTED_CONTROLLER_STATE_FORMATS);
    let (_, page) = rig.admin_data(MANAGER, &command, &[0xEE; 4096]);
    assert_eq!((&page[..4], page[4]), (&[1, 0, 0, 0][..], 0xEE));

    for (quirks, expected) in [(Quirks::empty(), 0), (Quirks::SLOT_ZERO_IS_NEXT_PHASE, 4)] {
        let mut rig = with_quirks(quirks);
        rig.create_pair(GUEST, 1, 16);
        assert_eq!(rig.suspend(GUEST, false).status(), Status::SUCCESS);
        let image = rig.state(GUEST, false);
        assert_eq!(image[56 + 24 + 16] & 4, expected, "S0PT of an empty queue, {quirks:?}");
    }
}
