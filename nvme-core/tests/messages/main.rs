// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole text of every error: what is wrong, the value, and what to do about it.

use std::fmt::Display;

use nvme_core::admin::{CallError, InitializeError, SubmitError};
use nvme_core::cdq::{CdqFailure, CdqMemoryError, HeadUpdateFailed, LogState, LogViolation};
use nvme_core::controller::{AttachError, EnableError, Fault};
use nvme_core::dirty::{DirtyMapError, MarkError, OutOfRange};
use nvme_core::dma::{DmaError, Pool};
use nvme_core::io::IoQueueError;
use nvme_core::migration::{
    CommandFailed, DestinationFailure, Failure, ManagerError, MigrationCommand, NoCommonFormat,
};
use nvme_core::mmio::MmioError;
use nvme_core::prp::PrpError;
use nvme_core::queue::{BadHead, RingFull, UnknownCommand};
use nvme_core::recovery::Cause;
use nvme_core::register::Offset;
use nvme_core::ring::InvalidHead;
use nvme_core::wire::controller_state::{QueueKind, StateError};
use nvme_core::wire::identify::IdentifyError;
use nvme_core::wire::lba_migration::EntryError;
use nvme_core::wire::register::CommandSetSelection;
use nvme_core::wire::track::{MemoryRange, TrackError};
use nvme_core::wire::{
    BusAddr, CommandId, ControllerId, InvalidField, Lba, NamespaceId, QueueId, Status, StatusCode,
    TargetIsManager, TooShort,
};

mod migration;

type Row<'a> = (&'a str, &'a dyn Display, &'a str);

fn check(rows: &[Row<'_>]) {
    for (name, error, text) in rows {
        assert_eq!(error.to_string(), *text, "{name}");
    }
    let texts: std::collections::BTreeSet<_> = rows.iter().map(|row| row.2).collect();
    assert_eq!(texts.len(), rows.len(), "no two errors read the same");
}

const REFUSED: CallError = CallError::Status(StatusCode::INVALID_FIELD.status());
const FAILED: CommandFailed = CommandFailed { command: MigrationCommand::Suspend, error: REFUSED };
const NO_MEMORY: DmaError = DmaError::Exhausted { pool: Pool::Data, bytes: 8192 };
const FIELD: InvalidField = InvalidField::in_dword("SEL", 10, 8, 0x7F);

#[test]
fn of_memory() {
    check(&[
        ("exhausted", &NO_MEMORY, "the pool Data cannot give 8192 bytes: lend the arena more memory"),
        (
            "alignment",
            &DmaError::Alignment { bytes: 3 },
            "an alignment of 3 bytes cannot be given: ask for a power of two that the arena can give",
        ),
        ("empty", &DmaError::Empty, "zero bytes were asked for: ask for one at least"),
        (
            "out of range",
            &DmaError::OutOfRange { offset: 60, len: 8, region: 64 },
            "8 bytes at offset 60 are no part of a region of 64: stay inside, words aligned",
        ),
        ("no pages", &PrpError::Empty, "data of zero bytes has no pages; submit the command without data"),
        (
            "no address",
            &PrpError::from(DmaError::Empty),
            "the arena has no address for the memory: zero bytes were asked for: ask for one at least",
        ),
        (
            "page size",
            &PrpError::PageSize { bytes: 5000 },
            "page size 5000 is not a power of two of at least 4096; choose one",
        ),
        (
            "arena page",
            &PrpError::ArenaPage { arena: 4096, controller: 16384 },
            "scattered memory in pages of 4096 bytes cannot back controller pages of 16384 bytes; \
             allocate it contiguous",
        ),
        (
            "misaligned",
            &PrpError::Misaligned { address: BusAddr::new(0x1001), needed: 4 },
            "address 0x1001 is not a multiple of 4; align it",
        ),
        (
            "list too small",
            &PrpError::ListTooSmall { needed: 8192, available: 4096 },
            "the PRP list takes 8192 bytes and 4096 are lent; transfer less at once",
        ),
        (
            "entries of a data queue",
            &CdqMemoryError::Entries { entries: 1, limit: 9 },
            "a queue of 1 entries is not possible: choose 2 to 9",
        ),
        (
            "pages of a data queue",
            &CdqMemoryError::TooManyPages { pages: 4, limit: 2 },
            "a queue over 4 pages where the controller takes 2: make it smaller or contiguous",
        ),
        (
            "no memory for a data queue",
            &CdqMemoryError::Arena(NO_MEMORY),
            "no memory for the queue: the pool Data cannot give 8192 bytes: lend the arena more memory",
        ),
        (
            "no list for a data queue",
            &CdqMemoryError::List(PrpError::Empty),
            "no PRP list for the queue: data of zero bytes has no pages; submit the command without data",
        ),
        (
            "map of nothing",
            &DirtyMapError::Empty,
            "a dirty map for a namespace of no blocks: give the namespace's size",
        ),
        (
            "small map",
            &DirtyMapError::Storage { needed: Some(8), lent: 7 },
            "a dirty map needs 8 words and was lent 7: lend more or coarsen it",
        ),
        (
            "map beyond memory",
            &DirtyMapError::Storage { needed: None, lent: 7 },
            "a dirty map needs more words than can be addressed and was lent 7: coarsen it",
        ),
    ]);
}

#[test]
fn of_registers_and_queues() {
    let at = Offset::new(0x1004);
    check(&[
        (
            "misaligned",
            &MmioError::Misaligned(Offset::new(3)),
            "register offset 0x3 is not a multiple of four",
        ),
        (
            "outside",
            &MmioError::OutOfBounds { offset: at, len: 0x1000 },
            "register 0x1004 lies outside the 0x1000 bytes mapped; map more of BAR0",
        ),
        ("no property", &MmioError::NoProperty(at), "there is no property at 0x1004"),
        ("read-only", &MmioError::ReadOnly(at), "the property at 0x1004 is read-only"),
        ("write-only", &MmioError::WriteOnly(at), "the doorbell at 0x1004 is write-only"),
        (
            "call",
            &MmioError::Call { offset: at, code: 19 },
            "register 0x1004 is not mapped, and the call that should reach it failed with error 19; look whether the \
             function is still there",
        ),
        ("full", &RingFull, "the submission queue is full; take completions, then submit again"),
        (
            "head of a submission queue",
            &BadHead(9),
            "a completion reports submission queue head 9, which cannot be; reset the controller",
        ),
        (
            "unknown command",
            &UnknownCommand(CommandId::new(7)),
            "a completion names command 0x0007, which is not outstanding; reset the controller",
        ),
        (
            "head of a ring",
            &InvalidHead { value: 9, head: 2, tail: 4 },
            "head 9 is not between the last head 2 and the tail 4; set a slot in that range",
        ),
        ("queue 0", &IoQueueError::Id(QueueId::ADMIN), "queue 0 is not an I/O queue; choose 1 or higher"),
        (
            "entries",
            &IoQueueError::Entries { entries: 1, max: 64 },
            "a queue of 1 entries is not possible; choose 2 to 64",
        ),
        ("slots", &IoQueueError::NoSlots, "a queue pair without slots takes no command; lend at least one"),
        ("transfer", &IoQueueError::MaxTransfer, "the longest transfer is zero bytes; choose at least 4096"),
        (
            "memory",
            &IoQueueError::Dma(NO_MEMORY),
            "no memory for the queue pair: the pool Data cannot give 8192 bytes: lend the arena more memory",
        ),
    ]);
}

#[test]
fn of_controllers() {
    check(&[
        (
            "unknown command",
            &Fault::from(UnknownCommand(CommandId::new(0x12))),
            "a completion names command 0x0012, which is not outstanding; reset the controller",
        ),
        (
            "wrong queue",
            &Fault::WrongSubmissionQueue(QueueId::new(3)),
            "a completion names submission queue 3, which does not use its completion queue; reset the controller",
        ),
        (
            "bad head",
            &Fault::from(BadHead(5)),
            "a completion reports submission queue head 5, which cannot be; reset the controller",
        ),
        ("fatal", &Fault::FatalStatus, "the controller reports a fatal status; reset it"),
        (
            "removed",
            &Fault::Removed,
            "the device is gone: its status reads as all ones; look for it on its bus",
        ),
        (
            "register",
            &Fault::RegisterAccess(Offset::new(0x14)),
            "register 0x14 cannot be accessed; map it, or reset the controller",
        ),
        (
            "not ready",
            &Fault::NotReadyInTime,
            "the controller did not become ready in the time it states; reset it",
        ),
        (
            "not disabled",
            &Fault::NotDisabledInTime,
            "the controller did not become disabled in the time it states; reset its function",
        ),
        (
            "shutdown",
            &Fault::ShutdownNotInTime,
            "the controller's shutdown did not end in time; disable it, or wait longer",
        ),
        ("ready lost", &Fault::ReadyLost, "the controller stopped being ready; disable and enable it"),
        ("reset", &Fault::Reset, "the controller was reset since this queue was made; make a new one"),
        ("link", &AttachError::LinkInUse, "the link is in use; give each controller its own"),
    ]);
    check(&[
        (
            "attach",
            &AttachError::Fault(Fault::FatalStatus),
            "the controller reports a fatal status; reset it",
        ),
        (
            "page size",
            &EnableError::PageSize { bytes: 2048, min: 4096, max: 65536 },
            "page size 2048 is not a power of two from 4096 to 65536; choose one",
        ),
        (
            "page limit",
            &EnableError::PageLimit { limit: 4096, min: 16384 },
            "the controller's smallest page is 16384 bytes, more than 4096; raise the limit, or choose the size",
        ),
        (
            "command sets",
            &EnableError::CommandSets(CommandSetSelection::ADMIN_ONLY),
            "the controller does not support admin command set only (07h); choose other command sets",
        ),
        (
            "entries",
            &EnableError::Entries(1),
            "an admin queue of 1 entries is not possible; choose 2 to 4096",
        ),
        ("slots", &EnableError::Slots { lent: 4, needed: 5 }, "4 admin slots are too few; lend at least 5"),
        ("transfer", &EnableError::MaxTransfer, "the longest transfer is zero bytes; choose at least 4096"),
        (
            "memory",
            &EnableError::Dma(DmaError::Alignment { bytes: 65536 }),
            "no memory for the admin queue: an alignment of 65536 bytes cannot be given: \
             ask for a power of two that the arena can give",
        ),
    ]);
}

#[test]
fn of_commands() {
    let initialize = InitializeError::Call { command: "Number of Queues", error: REFUSED };
    check(&[
        ("refused", &REFUSED, "completed with status Invalid Field in Command (0/02h)"),
        (
            "timed out",
            &CallError::TimedOut,
            "no completion in time, so its effect is unknown: reset the controller",
        ),
        (
            "lost",
            &CallError::Lost,
            "lost with a reset or failure of the controller, so its effect is unknown: look again",
        ),
        (
            "short buffer",
            &CallError::ShortBuffer { wanted: 64, held: 32 },
            "succeeded, but 64 bytes were to be read from a buffer of 32: lend a larger one",
        ),
        (
            "not submitted: busy",
            &CallError::NotSubmitted(SubmitError::Busy),
            "not submitted: no slot is free: poll, then submit again",
        ),
        (
            "not submitted: too long",
            &CallError::NotSubmitted(SubmitError::TooLong { bytes: 8192, limit: 4096 }),
            "not submitted: 8192 bytes are too many for one command: transfer at most 4096",
        ),
        (
            "not submitted: data pointer",
            &CallError::NotSubmitted(SubmitError::from(PrpError::PageSize { bytes: 1 })),
            "not submitted: page size 1 is not a power of two of at least 4096; choose one",
        ),
        (
            "not submitted: not ready",
            &CallError::NotSubmitted(SubmitError::NotReady),
            "not submitted: the controller is disabled, failed or gone: enable it first",
        ),
        (
            "not submitted: other controller",
            &CallError::NotSubmitted(SubmitError::OtherController),
            "not submitted: it is about something of another controller: submit it to that one",
        ),
        (
            "initialize: command",
            &initialize,
            "Number of Queues: completed with status Invalid Field in Command (0/02h)",
        ),
        (
            "initialize: identity",
            &InitializeError::Identity(IdentifyError::Field(FIELD)),
            "Identify Controller: field SEL at byte 41 bit 0 holds 0x7f, which is reserved or out of range",
        ),
        (
            "initialize: queues",
            &InitializeError::Queues(FIELD),
            "Number of Queues: field SEL at byte 41 bit 0 holds 0x7f, which is reserved or out of range",
        ),
        (
            "head of a data queue",
            &HeadUpdateFailed { head: 5, error: REFUSED },
            "setting head 5 of a Controller Data Queue: completed with status Invalid Field in Command (0/02h)",
        ),
        (
            "data queue",
            &CdqFailure { error: REFUSED, quarantined: None },
            "Controller Data Queue command: completed with status Invalid Field in Command (0/02h)",
        ),
    ]);
}

#[test]
fn of_recovery() {
    let queue = QueueId::new(2);
    check(&[
        ("fault", &Cause::Fault(Fault::FatalStatus), "the controller reports a fatal status; reset it"),
        (
            "I/O",
            &Cause::TimedOut { queue, command: CommandId::new(0x1F) },
            "command 0x001f of queue 2 was not completed in time",
        ),
        ("admin", &Cause::AdminTimedOut, "an admin command was not completed in time"),
        (
            "enable",
            &Cause::Enable(EnableError::Entries(9999)),
            "an admin queue of 9999 entries is not possible; choose 2 to 4096",
        ),
        (
            "initialize",
            &Cause::Initialize(InitializeError::Call { command: "Identify Controller", error: REFUSED }),
            "Identify Controller: completed with status Invalid Field in Command (0/02h)",
        ),
        (
            "too few queues",
            &Cause::TooFewQueues { needed: 3, granted: 1 },
            "the controller grants 1 I/O queues where 3 are needed: use fewer",
        ),
        (
            "options",
            &Cause::QueueOptions { queue, error: IoQueueError::NoSlots },
            "queue pair 2: a queue pair without slots takes no command; lend at least one",
        ),
        (
            "queue",
            &Cause::Queue { queue, error: REFUSED },
            "creation or deletion of queue pair 2: completed with status Invalid Field in Command (0/02h)",
        ),
        ("asked", &Cause::Asked, "the host asked for a reset"),
    ]);
}

#[test]
fn of_structures_and_logs() {
    let short = TooShort { structure: "Identify Controller", needed: 4096, given: 12 };
    let range = MemoryRange { start: BusAddr::new(0x1000), granules: 3 };
    let blocks = OutOfRange { start: Lba::new(0x60), blocks: 8, size: 100 };
    check(&[
        ("short", &short, "Identify Controller needs 4096 bytes, only 12 are there"),
        ("field", &FIELD, "field SEL at byte 41 bit 0 holds 0x7f, which is reserved or out of range"),
        (
            "not ascending",
            &IdentifyError::NotAscending { previous: 9, found: 4 },
            "0x4 follows 0x9 in a list that must ascend",
        ),
        ("reserved sequence", &EntryError::ReservedSequence(6), "Entry Sequence Attribute 0x6 is reserved"),
        ("reserved change", &EntryError::ReservedChange, "LBA Change Information 11b is reserved"),
        (
            "namespace",
            &EntryError::InvalidNamespace(NamespaceId::ALL),
            "namespace 0xffffffff cannot have changed: 0x1 to 0xfffffffe can",
        ),
        (
            "overflow",
            &EntryError::RangeOverflow { start: Lba::new(u64::MAX), blocks: 2 },
            "2 blocks from 0xffffffffffffffff run past the last possible block",
        ),
        ("count", &EntryError::BlockCount(0), "0 blocks do not fit an entry: 1 to 2^32 do"),
        ("no range", &EntryError::OrdinaryWithoutRange, "an ordinary entry must report a range of blocks"),
        (
            "malformed",
            &LogViolation::Malformed(EntryError::ReservedChange),
            "a log entry is malformed: LBA Change Information 11b is reserved; copy every block again",
        ),
        (
            "outside",
            &LogViolation::ChangeOutsideLog(LogState::Stopped),
            "a change was reported while the log was Stopped: copy every block again",
        ),
        (
            "inside",
            &LogViolation::StartInsideLog,
            "a log that had already started started again: copy every block again",
        ),
        (
            "map",
            &MarkError::UnknownNamespace(NamespaceId::new(3)),
            "a change in namespace 0x3, for which no dirty map is kept: lend one",
        ),
        (
            "range",
            &MarkError::OutOfRange(blocks),
            "8 blocks from 0x60 on reach past the 100 blocks of the namespace",
        ),
        (
            "tracking: short",
            &TrackError::Short { needed: 32, found: 16 },
            "16 bytes are too few: 32 are needed",
        ),
        ("tracking: version", &TrackError::Version(1), "structure version 1 is unknown: only 0 is defined"),
        (
            "tracking: granularity",
            &TrackError::Granularity(52),
            "granularity 2^52 x 4 KiB exceeds the address space: choose an exponent up to 51",
        ),
        (
            "tracking: range",
            &TrackError::Range(range),
            "3 granules from 0x1000 are no legal range: align it, and end inside the address space",
        ),
        ("tracking: more", &TrackError::MoreWithoutChanges, "more changes are announced but none reported"),
        (
            "tracking: count",
            &TrackError::TooMany(5_000_000_000),
            "5000000000 descriptors do not fit a 32-bit count: give at most 4294967295",
        ),
    ]);
    assert_eq!(IdentifyError::from(short).to_string(), short.to_string());
    assert_eq!(IdentifyError::from(FIELD), IdentifyError::Field(FIELD));
    assert_eq!(Status::from(FIELD), StatusCode::INVALID_FIELD.status());
}

#[test]
fn of_controller_state() {
    let (kind, queue) = (QueueKind::Submission, QueueId::new(3));
    let completion = QueueKind::Completion;
    check(&[
        (
            "short",
            &StateError::Short { needed: 56, found: 8 },
            "the state needs 56 bytes and has 8: read it to its end",
        ),
        (
            "too large",
            &StateError::TooLarge { nvme_dwords: 9, vendor_dwords: 4, limit: 32 },
            "9 dwords of NVMe state and 4 of vendor state exceed the limit of 32 bytes: \
             raise it, or refuse the source",
        ),
        (
            "version",
            &StateError::HeaderVersion(2),
            "controller state version 2 is unknown: only 0 is supported",
        ),
        (
            "NVMe version",
            &StateError::StateVersion(2),
            "NVMe controller state version 2 is unknown: only 0 is supported",
        ),
        (
            "size",
            &StateError::SizeDisagrees { submission_queues: 1, completion_queues: 2, bytes: 24 },
            "1 submission and 2 completion queues do not make 24 bytes: read it again",
        ),
        (
            "index without state",
            &StateError::IndexWithoutState,
            "the version index names an NVMe state, but the image has none: use version index 0",
        ),
        (
            "state without index",
            &StateError::StateWithoutIndex,
            "an NVMe state is there, but the version index is 0: use the index of its version",
        ),
        (
            "vendor without index",
            &StateError::VendorWithoutIndex,
            "a vendor part is there, but the vendor index is 0: use the index of its format",
        ),
        (
            "reserved header",
            &StateError::ReservedHeader,
            "reserved bits of the controller state header are set: they must be zero",
        ),
        (
            "reserved NVMe header",
            &StateError::ReservedStateHeader,
            "reserved bits of the NVMe state header are set: they must be zero",
        ),
        (
            "reserved queue",
            &StateError::ReservedQueue(kind, queue),
            "reserved bits of submission queue 3 are set: they must be zero",
        ),
        (
            "too many",
            &StateError::TooManyQueues { kind: completion, count: 9, limit: 4 },
            "9 entries in the completion queue list, the controller has 4: choose one with more queues",
        ),
        (
            "identifier",
            &StateError::QueueIdentifier(completion, QueueId::ADMIN),
            "completion queue 0 is not an I/O queue of the controller: they start at 1",
        ),
        (
            "order",
            &StateError::Order { kind, previous: QueueId::new(4), queue },
            "submission queue 3 follows 4: identifiers must ascend",
        ),
        (
            "entries",
            &StateError::QueueSize { kind, queue, entries: 1, limit: 64 },
            "submission queue 3 has 1 entries, 2 to 64 are supported",
        ),
        (
            "head",
            &StateError::Head { kind, queue, head: 64, entries: 64 },
            "head 64 of submission queue 3 is not below its 64 entries",
        ),
        (
            "tail",
            &StateError::Tail { kind: completion, queue, tail: 65, entries: 64 },
            "tail 65 of completion queue 3 is not below its 64 entries",
        ),
        (
            "base",
            &StateError::Base { kind, queue, base: BusAddr::new(0x1008) },
            "base 0x1008 of submission queue 3 is not aligned to a memory page: align it",
        ),
        (
            "contiguous",
            &StateError::NotContiguous(kind, queue),
            "submission queue 3 is not contiguous, which the controller requires: create it so",
        ),
        (
            "completion queue",
            &StateError::NoCompletionQueue { queue, completion_queue: QueueId::new(5) },
            "submission queue 3 names completion queue 5, which is not there: add that queue",
        ),
        (
            "vector",
            &StateError::Vector { queue, vector: 8, vectors: 4 },
            "completion queue 3 interrupts through vector 8, the controller has 4: choose one with more",
        ),
        (
            "late submission queue",
            &StateError::SubmissionAfterCompletion(queue),
            "submission queue 3 was added after completion queues: add it before them",
        ),
        (
            "too many to count",
            &StateError::CountOverflow(kind),
            "more than 65535 entries in the submission queue list: add no more",
        ),
    ]);
    let rows = [
        ("more queues help", StateError::TooManyQueues { kind, count: 9, limit: 4 }, true),
        ("more memory helps", StateError::TooLarge { nvme_dwords: 1, vendor_dwords: 0, limit: 0 }, true),
        ("nothing helps", StateError::ReservedHeader, false),
    ];
    for (name, error, resources) in rows {
        let expected = if resources { StatusCode::NOT_ENOUGH_RESOURCES } else { StatusCode::INVALID_FIELD };
        assert_eq!(error.status(), expected, "{name}");
    }
}

#[test]
fn statuses_say_what_they_carry() {
    let base = StatusCode::INVALID_FIELD.status();
    let rows = [
        ("named", base, "Invalid Field in Command (0/02h)"),
        ("unnamed", StatusCode::new(7, 0xC1).status(), "unnamed status (7/C1h)"),
        ("no retry", base.with_do_not_retry(), "Invalid Field in Command (0/02h), do not retry"),
        ("more", base.with_more(), "Invalid Field in Command (0/02h), more in the error log"),
        ("delay", Status::from_bits(2 | 3 << 11), "Invalid Field in Command (0/02h), retry after CRDT3"),
        (
            "all",
            Status::from_bits(2 | 1 << 11).with_more().with_do_not_retry(),
            "Invalid Field in Command (0/02h), do not retry, more in the error log, retry after CRDT1",
        ),
    ];
    for (name, status, text) in rows {
        assert_eq!(status.to_string(), text, "{name}");
        assert_eq!(format!("{status:?}"), text, "{name}: in the words a reader needs");
    }
    assert_eq!(format!("{:?}", StatusCode::INVALID_FIELD), "Invalid Field in Command (0/02h)");
    assert_eq!(Status::from(StatusCode::INVALID_CDQ).code(), StatusCode::INVALID_CDQ);
}
