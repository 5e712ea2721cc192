// SPDX-License-Identifier: MIT OR Apache-2.0
//! The vendor-specific part of a controller state: what NVMe Controller State v0 leaves out.
//!
//! With it a guest goes on at the destination without noticing: its properties, its admin queue with pointers and
//! phase, its features, the Asynchronous Event Requests it has outstanding and the events that wait for it.
//! The format is known by [`FORMAT_UUID`], which Supported Controller State Formats (Identify, CNS 20h) lists, and
//! carries its own version. All numbers are little-endian.
//!
//! Neither part says that a queue became unusable by an invalid doorbell value: at the destination it works again, from
//! its head on.
//!
//! | Bytes | Content |
//! |---|---|
//! | 1:0 | version, 1 |
//! | 3:2 | flags: 0 ready, 1 fatal, 2 shutdown complete, 3 write cache, 4 Number of Queues was set, 5 tag of the next admin completion |
//! | 7:4 | bytes of this part without padding |
//! | 11:8, 15:12 | CC, AQA |
//! | 23:16, 31:24 | ASQ, ACQ |
//! | 35:32 | interrupt mask |
//! | 37:36, 39:38 | admin submission queue: head, tail |
//! | 41:40, 43:42 | admin completion queue: head, tail |
//! | 47:44 | Number of Queues as granted |
//! | 51:48, 55:52 | Arbitration, Power Management |
//! | 57:56, 59:58 | over and under temperature threshold |
//! | 63:60, 67:64, 71:68 | Interrupt Coalescing, Asynchronous Event Configuration, Keep Alive Timer |
//! | 79:72 | first bytes of Host Behavior Support |
//! | 80 | event types that are masked, bit t for type t |
//! | 83:82, 85:84 | outstanding requests, waiting events: counts R and E |
//! | 95:86, 81 | zero |
//! | 96 .. | R command identifiers of two bytes, oldest first |
//! | then | E events of eight bytes, oldest first: type, information, log page, zero, parameter |
//! | then | zeroes up to a whole number of dwords |

use nvme_core::wire::{AsynchronousEvent, CommandId, EventType};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::features::{Features, HOST_BEHAVIOR_BYTES};

/// Identifies the format in the list of vendor-specific formats, bytes in the order they are listed.
pub const FORMAT_UUID: [u8; 16] =
    [0x6d, 0x1c, 0x0e, 0x5a, 0x8b, 0x37, 0x4f, 0x2e, 0x9d, 0x42, 0x51, 0x7e, 0xc8, 0x03, 0xba, 0x94];

/// Version of the format.
pub const FORMAT_VERSION: u16 = 1;

const READY: u16 = 1 << 0;
const FATAL: u16 = 1 << 1;
const SHUT_DOWN: u16 = 1 << 2;
const WRITE_CACHE: u16 = 1 << 3;
const QUEUES_SET: u16 = 1 << 4;
const NEXT_TAG: u16 = 1 << 5;
const FLAGS: u16 = READY | FATAL | SHUT_DOWN | WRITE_CACHE | QUEUES_SET | NEXT_TAG;

const REQUEST_BYTES: usize = 2;
const EVENT_BYTES: usize = 8;
/// Event types that can be masked: all but immediate and one-shot ones.
const MASKABLE: u8 = 0b1100_0111;

#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
struct Fixed {
    version: U16,
    flags: U16,
    bytes: U32,
    cc: U32,
    aqa: U32,
    asq: U64,
    acq: U64,
    masked_vectors: U32,
    submission_head: U16,
    submission_tail: U16,
    completion_head: U16,
    completion_tail: U16,
    queues: U32,
    arbitration: U32,
    power: U32,
    over_temperature: U16,
    under_temperature: U16,
    coalescing: U32,
    events: U32,
    keep_alive: U32,
    host_behavior: [u8; HOST_BEHAVIOR_BYTES],
    masked_events: u8,
    reserved81: u8,
    request_count: U16,
    event_count: U16,
    reserved86: [u8; 10],
}
static_assertions::const_assert_eq!(size_of::<Fixed>(), 96);

/// Bytes of the part with that many outstanding requests and waiting events, padding included; saturates.
#[must_use]
pub const fn bytes(requests: usize, events: usize) -> usize {
    let used = size_of::<Fixed>()
        .saturating_add(requests.saturating_mul(REQUEST_BYTES))
        .saturating_add(events.saturating_mul(EVENT_BYTES));
    used.saturating_add(3) & !3
}

/// Why a vendor-specific part is not one of this format, or cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FormatError {
    /// The length does not agree with the counts or with itself.
    Length,
    /// Another version.
    Version,
    /// More requests or events than the controller has room for.
    TooMany,
    /// A field, by its byte, holds what it cannot.
    Field(u8),
}

/// What the part says about the admin queue pair of a ready controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AdminQueues {
    pub(crate) submission_head: u16,
    pub(crate) submission_tail: u16,
    pub(crate) completion_head: u16,
    pub(crate) completion_tail: u16,
    /// Tag of the next completion.
    pub(crate) next_tag: bool,
}

/// The fixed fields as values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VendorState {
    pub(crate) ready: bool,
    pub(crate) fatal: bool,
    pub(crate) shut_down: bool,
    pub(crate) cc: u32,
    pub(crate) aqa: u32,
    pub(crate) asq: u64,
    pub(crate) acq: u64,
    pub(crate) masked_vectors: u32,
    pub(crate) admin: AdminQueues,
    pub(crate) features: Features,
    pub(crate) masked_events: u8,
}

/// The whole part: fixed fields, requests and events, borrowed from an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VendorImage<'a> {
    pub(crate) state: VendorState,
    requests: &'a [U16],
    events: &'a [RawEvent],
}

#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
struct RawEvent {
    kind: u8,
    information: u8,
    log_page: u8,
    reserved: u8,
    parameter: U32,
}
static_assertions::const_assert_eq!(size_of::<RawEvent>(), EVENT_BYTES);

const fn flag(set: bool, bit: u16) -> u16 {
    if set { bit } else { 0 }
}

impl VendorState {
    /// Writes the part to the start of `to` and returns its length, or `None` if it does not fit.
    pub(crate) fn build(
        &self,
        to: &mut [u8],
        requests: &[CommandId],
        events: impl Iterator<Item = AsynchronousEvent>,
    ) -> Option<usize> {
        let mut used = size_of::<Fixed>();
        for request in requests {
            to.get_mut(used..)?
                .first_chunk_mut::<REQUEST_BYTES>()?
                .copy_from_slice(&request.get().to_le_bytes());
            used = used.saturating_add(REQUEST_BYTES);
        }
        let mut event_count = 0_u16;
        for event in events {
            let raw = RawEvent {
                kind: event.kind.get(),
                information: event.information,
                log_page: event.log_page,
                reserved: 0,
                parameter: U32::new(event.parameter),
            };
            raw.write_to_prefix(to.get_mut(used..)?).ok()?;
            used = used.saturating_add(EVENT_BYTES);
            event_count = event_count.checked_add(1)?;
        }
        let total = used.saturating_add(3) & !3;
        to.get_mut(used..total)?.fill(0);
        let features = &self.features;
        let fixed = Fixed {
            version: U16::new(FORMAT_VERSION),
            flags: U16::new(
                flag(self.ready, READY)
                    | flag(self.fatal, FATAL)
                    | flag(self.shut_down, SHUT_DOWN)
                    | flag(features.write_cache, WRITE_CACHE)
                    | flag(features.queues.is_some(), QUEUES_SET)
                    | flag(self.admin.next_tag, NEXT_TAG),
            ),
            bytes: U32::new(u32::try_from(used).ok()?),
            cc: U32::new(self.cc),
            aqa: U32::new(self.aqa),
            asq: U64::new(self.asq),
            acq: U64::new(self.acq),
            masked_vectors: U32::new(self.masked_vectors),
            submission_head: U16::new(self.admin.submission_head),
            submission_tail: U16::new(self.admin.submission_tail),
            completion_head: U16::new(self.admin.completion_head),
            completion_tail: U16::new(self.admin.completion_tail),
            queues: U32::new(features.queues.unwrap_or(0)),
            arbitration: U32::new(features.arbitration),
            power: U32::new(features.power),
            over_temperature: U16::new(features.over_temperature),
            under_temperature: U16::new(features.under_temperature),
            coalescing: U32::new(features.coalescing),
            events: U32::new(features.events),
            keep_alive: U32::new(features.keep_alive),
            host_behavior: features.host_behavior,
            masked_events: self.masked_events,
            reserved81: 0,
            request_count: U16::new(u16::try_from(requests.len()).ok()?),
            event_count: U16::new(event_count),
            reserved86: [0; 10],
        };
        fixed.write_to_prefix(to).ok()?;
        Some(total)
    }
}

impl<'a> VendorImage<'a> {
    /// Reads a part and checks every field as far as that does not depend on the controller that takes it, apart from
    /// the room it has for requests and events: it bounds the work of the checks.
    pub(crate) fn parse(part: &'a [u8], max_requests: usize, max_events: usize) -> Result<Self, FormatError> {
        let (fixed, rest) = Fixed::read_from_prefix(part).map_err(|_| FormatError::Length)?;
        if fixed.version.get() != FORMAT_VERSION {
            return Err(FormatError::Version);
        }
        let (request_count, event_count) =
            (usize::from(fixed.request_count.get()), usize::from(fixed.event_count.get()));
        if request_count > max_requests || event_count > max_events {
            return Err(FormatError::TooMany);
        }
        let total = bytes(request_count, event_count);
        let (requests, rest) =
            <[U16]>::ref_from_prefix_with_elems(rest, request_count).map_err(|_| FormatError::Length)?;
        let (events, padding) =
            <[RawEvent]>::ref_from_prefix_with_elems(rest, event_count).map_err(|_| FormatError::Length)?;
        let used = part.len().saturating_sub(padding.len());
        if part.len() != total
            || usize::try_from(fixed.bytes.get()) != Ok(used)
            || padding.iter().any(|byte| *byte != 0)
        {
            return Err(FormatError::Length);
        }
        let flags = fixed.flags.get();
        let ready = flags & READY != 0;
        let admin = AdminQueues {
            submission_head: fixed.submission_head.get(),
            submission_tail: fixed.submission_tail.get(),
            completion_head: fixed.completion_head.get(),
            completion_tail: fixed.completion_tail.get(),
            next_tag: flags & NEXT_TAG != 0,
        };
        let queues_set = flags & QUEUES_SET != 0;
        let idle = !ready && (admin != AdminQueues::default() || request_count != 0 || event_count != 0);
        for (byte, wrong) in [
            (2, flags & !FLAGS != 0),
            (36, idle),
            (44, !queues_set && fixed.queues.get() != 0),
            (52, fixed.power.get() & !0xE0 != 0),
            (60, fixed.coalescing.get() > 0xFFFF),
            (72, fixed.host_behavior.iter().any(|byte| *byte > 1)),
            (80, fixed.masked_events & !MASKABLE != 0),
            (81, fixed.reserved81 != 0 || fixed.reserved86 != [0; 10]),
        ] {
            if wrong {
                return Err(FormatError::Field(byte));
            }
        }
        if requests
            .iter()
            .enumerate()
            .any(|(at, request)| requests.iter().take(at).any(|other| other == request))
        {
            return Err(FormatError::Field(82));
        }
        if events
            .iter()
            .any(|event| event.reserved != 0 || event.kind > 7 || MASKABLE & (1_u8 << (event.kind & 7)) == 0)
        {
            return Err(FormatError::Field(84));
        }
        let state = VendorState {
            ready,
            fatal: flags & FATAL != 0,
            shut_down: flags & SHUT_DOWN != 0,
            cc: fixed.cc.get(),
            aqa: fixed.aqa.get(),
            asq: fixed.asq.get(),
            acq: fixed.acq.get(),
            masked_vectors: fixed.masked_vectors.get(),
            admin,
            features: Features {
                arbitration: fixed.arbitration.get(),
                power: fixed.power.get(),
                over_temperature: fixed.over_temperature.get(),
                under_temperature: fixed.under_temperature.get(),
                write_cache: flags & WRITE_CACHE != 0,
                queues: queues_set.then_some(fixed.queues.get()),
                coalescing: fixed.coalescing.get(),
                events: fixed.events.get(),
                keep_alive: fixed.keep_alive.get(),
                host_behavior: fixed.host_behavior,
            },
            masked_events: fixed.masked_events,
        };
        Ok(Self { state, requests, events })
    }

    /// The outstanding requests, oldest first.
    pub(crate) fn requests(&self) -> impl ExactSizeIterator<Item = CommandId> + 'a {
        self.requests.iter().map(|request| CommandId::new(request.get()))
    }

    /// The waiting events, oldest first.
    pub(crate) fn events(&self) -> impl ExactSizeIterator<Item = AsynchronousEvent> + 'a {
        self.events.iter().map(|event| AsynchronousEvent {
            kind: EventType::new(event.kind),
            information: event.information,
            log_page: event.log_page,
            parameter: event.parameter.get(),
        })
    }
}
