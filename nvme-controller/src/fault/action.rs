// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a controller can do wrong.

use core::num::{NonZeroU16, NonZeroU32};

use nvme_core::wire::{Status, StatusCode};

use super::random::mix;

/// What is counted before a rule acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Occasion {
    /// A command has its turn. An Asynchronous Event Request has its turn when an event is reported with it.
    Command,
    /// A 32-bit register is read (a 64-bit read is two), or a command has its turn if the rule names a queue, an
    /// opcode or dwords.
    RegisterRead,
    /// CC.EN changes from 0 to 1 with usable properties.
    Enable,
    /// An entry is about to be posted to a Controller Data Queue, markers included.
    Entry,
    /// The first entry of a log is about to be posted.
    FirstMarker,
    /// A last entry of a log is about to be posted: stopped, suspended or full.
    LastMarker,
    /// Set Features moves the head of a Controller Data Queue.
    HeadUpdate,
    /// An event of a Controller Data Queue is about to be reported.
    Event,
    /// A Controller Data Queue was deleted, by its command or by Suspend.
    Deletion,
}

macro_rules! kinds {
    ($($variant:ident $name:literal $occasion:ident $value:literal $summary:literal;)+) => {
        /// The kind of a [`FaultAction`], without its data.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultKind {
            $(
                #[doc = concat!("`", $name, $value, "`: ", $summary, ".")]
                $variant,
            )+
        }

        impl FaultKind {
            /// Every kind there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name in rules.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What is counted for it.
            #[must_use]
            pub const fn occasion(self) -> Occasion {
                match self {
                    $(Self::$variant => Occasion::$occasion,)+
                }
            }

            /// The form of its value in rules; empty if it has none. In brackets if it may be left out.
            #[must_use]
            pub const fn value(self) -> &'static str {
                match self {
                    $(Self::$variant => $value,)+
                }
            }

            /// What it does, in a sentence without a full stop.
            #[must_use]
            pub const fn summary(self) -> &'static str {
                match self {
                    $(Self::$variant => $summary,)+
                }
            }
        }
    };
}

kinds! {
    Drop "drop" Command ""
        "the command is executed and never completed";
    Delay "delay" Command "=Npolls, =Nus, =Nms or =Ns"
        "the command is executed and completed later; until then it is under way";
    Duplicate "duplicate" Command ""
        "the command is completed twice, if the completion queue has room";
    Reorder "reorder" Command ""
        "the completion is posted after the next one of its queue, or alone if none comes for a while";
    WrongCommandId "wrong-cid" Command "[=XOR]"
        "the completion names another command: its identifier with the bits of XOR inverted";
    WrongQueueId "wrong-sqid" Command "[=XOR]"
        "the completion names another submission queue";
    WrongSqHead "wrong-sq-head" Command "[=XOR]"
        "the completion carries another submission queue head";
    WrongPhase "wrong-phase" Command ""
        "the completion is written with the phase tag of the lap before, so that it is never new";
    EarlyPhase "early-phase" Command ""
        "the slot after the completion gets the new phase tag too, with whatever else it holds";
    Status "status" Command "=SCT/SC[+dnr][+more][+crdN]"
        "the command is not executed and completes with this status; 0/00 claims success";
    FlipToHost "flip-to-host" Command ""
        "one bit of the data transferred to the host is inverted, chosen by the seed";
    FlipToDevice "flip-to-device" Command ""
        "one bit of the data transferred from the host is inverted on the way: what is stored is silently wrong";
    AllOnes "all-ones" RegisterRead "[=Nreads]"
        "the controller is not reached: reads give all ones, writes and work do nothing, for ever or for so many reads";
    NeverReady "never-ready" Enable ""
        "the controller does not become ready";
    LateReady "late-ready" Enable "=Npolls"
        "the controller becomes ready so many polls later";
    Fatal "fatal" Command ""
        "the command is not executed and the controller reports a fatal status (CSTS.CFS)";
    Reset "reset" Command ""
        "the command is executed and the controller then resets itself: what was under way vanishes, RDY drops";
    CdqWrongPhase "cdq-wrong-phase" Entry ""
        "the entry is written with the phase tag of the lap before, so that it is never new";
    CdqTornEntry "cdq-torn-entry" Entry "[=Npolls]"
        "only the half with the phase tag is written; the rest stays stale, for ever or for so many polls";
    CdqReservedSequence "cdq-reserved-sequence" Entry "[=ESA]"
        "the entry has a reserved Entry Sequence Attribute, 4 to 6";
    CdqMissingFirst "cdq-missing-first" FirstMarker ""
        "the log starts without its first entry";
    CdqMissingLast "cdq-missing-last" LastMarker ""
        "the log ends without the marker; of a full queue the last entry is an ordinary one";
    CdqFullEarly "cdq-full-early" Entry ""
        "the queue is reported full with this entry though slots are free";
    CdqHeadRefused "cdq-head-refused" HeadUpdate ""
        "the head update is refused with Invalid Field in Command";
    CdqEventLost "cdq-event-lost" Event ""
        "the event is not reported";
    CdqEventDuplicated "cdq-event-duplicated" Event ""
        "the event is reported twice";
    CdqEventUnknown "cdq-event-unknown" Event "[=XOR]"
        "the event names a queue that does not exist: the identifier with the bits of XOR inverted";
    CdqWriteAfterDelete "cdq-write-after-delete" Deletion "[=Npolls]"
        "an entry is written into the memory of the deleted queue so many polls later";
}

impl core::fmt::Display for FaultKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

/// How long a completion is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delay {
    /// So many calls of [`Subsystem::poll`](crate::Subsystem::poll).
    Polls(u32),
    /// So many microseconds, as told by [`Subsystem::advance`](crate::Subsystem::advance).
    Micros(u64),
}

/// A reserved Entry Sequence Attribute. NVM Command Set 1.1 §5.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReservedSequence {
    /// 100b.
    Four,
    /// 101b.
    Five,
    /// 110b.
    Six,
}

impl ReservedSequence {
    /// The attribute.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Four => 4,
            Self::Five => 5,
            Self::Six => 6,
        }
    }
}

/// Something wrong that a controller does. See [`FaultKind`] for what each does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultAction {
    /// [`FaultKind::Drop`].
    Drop,
    /// [`FaultKind::Delay`].
    Delay(Delay),
    /// [`FaultKind::Duplicate`].
    Duplicate,
    /// [`FaultKind::Reorder`].
    Reorder,
    /// [`FaultKind::WrongCommandId`], with the bits to invert.
    WrongCommandId(NonZeroU16),
    /// [`FaultKind::WrongQueueId`], with the bits to invert.
    WrongQueueId(NonZeroU16),
    /// [`FaultKind::WrongSqHead`], with the bits to invert.
    WrongSqHead(NonZeroU16),
    /// [`FaultKind::WrongPhase`].
    WrongPhase,
    /// [`FaultKind::EarlyPhase`].
    EarlyPhase,
    /// [`FaultKind::Status`].
    Status(Status),
    /// [`FaultKind::FlipToHost`].
    FlipToHost,
    /// [`FaultKind::FlipToDevice`].
    FlipToDevice,
    /// [`FaultKind::AllOnes`], with the number of 32-bit reads after which the controller is reached again.
    AllOnes(Option<NonZeroU32>),
    /// [`FaultKind::NeverReady`].
    NeverReady,
    /// [`FaultKind::LateReady`], with the number of polls.
    LateReady(NonZeroU32),
    /// [`FaultKind::Fatal`].
    Fatal,
    /// [`FaultKind::Reset`].
    Reset,
    /// [`FaultKind::CdqWrongPhase`].
    CdqWrongPhase,
    /// [`FaultKind::CdqTornEntry`], with the number of polls after which the rest is written.
    CdqTornEntry(Option<NonZeroU32>),
    /// [`FaultKind::CdqReservedSequence`].
    CdqReservedSequence(ReservedSequence),
    /// [`FaultKind::CdqMissingFirst`].
    CdqMissingFirst,
    /// [`FaultKind::CdqMissingLast`].
    CdqMissingLast,
    /// [`FaultKind::CdqFullEarly`].
    CdqFullEarly,
    /// [`FaultKind::CdqHeadRefused`].
    CdqHeadRefused,
    /// [`FaultKind::CdqEventLost`].
    CdqEventLost,
    /// [`FaultKind::CdqEventDuplicated`].
    CdqEventDuplicated,
    /// [`FaultKind::CdqEventUnknown`], with the bits to invert.
    CdqEventUnknown(NonZeroU16),
    /// [`FaultKind::CdqWriteAfterDelete`], with the number of polls.
    CdqWriteAfterDelete(NonZeroU32),
}

/// Bits inverted where a rule names none: no queue, command or slot has such a number in common setups.
pub(super) const DEFAULT_XOR: NonZeroU16 = match NonZeroU16::new(0x8000) {
    Some(bits) => bits,
    None => NonZeroU16::MIN,
};

impl FaultAction {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> FaultKind {
        match self {
            Self::Drop => FaultKind::Drop,
            Self::Delay(_) => FaultKind::Delay,
            Self::Duplicate => FaultKind::Duplicate,
            Self::Reorder => FaultKind::Reorder,
            Self::WrongCommandId(_) => FaultKind::WrongCommandId,
            Self::WrongQueueId(_) => FaultKind::WrongQueueId,
            Self::WrongSqHead(_) => FaultKind::WrongSqHead,
            Self::WrongPhase => FaultKind::WrongPhase,
            Self::EarlyPhase => FaultKind::EarlyPhase,
            Self::Status(_) => FaultKind::Status,
            Self::FlipToHost => FaultKind::FlipToHost,
            Self::FlipToDevice => FaultKind::FlipToDevice,
            Self::AllOnes(_) => FaultKind::AllOnes,
            Self::NeverReady => FaultKind::NeverReady,
            Self::LateReady(_) => FaultKind::LateReady,
            Self::Fatal => FaultKind::Fatal,
            Self::Reset => FaultKind::Reset,
            Self::CdqWrongPhase => FaultKind::CdqWrongPhase,
            Self::CdqTornEntry(_) => FaultKind::CdqTornEntry,
            Self::CdqReservedSequence(_) => FaultKind::CdqReservedSequence,
            Self::CdqMissingFirst => FaultKind::CdqMissingFirst,
            Self::CdqMissingLast => FaultKind::CdqMissingLast,
            Self::CdqFullEarly => FaultKind::CdqFullEarly,
            Self::CdqHeadRefused => FaultKind::CdqHeadRefused,
            Self::CdqEventLost => FaultKind::CdqEventLost,
            Self::CdqEventDuplicated => FaultKind::CdqEventDuplicated,
            Self::CdqEventUnknown(_) => FaultKind::CdqEventUnknown,
            Self::CdqWriteAfterDelete(_) => FaultKind::CdqWriteAfterDelete,
        }
    }
}

impl FaultKind {
    /// An action of this kind, its data chosen by `seed`: seed 0 gives the usual data, other seeds vary it.
    #[must_use]
    pub fn action(self, seed: u64) -> FaultAction {
        let random = if seed == 0 { 0 } else { mix(seed) };
        let [a, b, ..] = random.to_le_bytes();
        let polls = NonZeroU32::MIN.saturating_add(u32::from(a & 7));
        let xor = match NonZeroU16::new(u16::from_le_bytes([a, b])) {
            Some(bits) if seed != 0 => bits,
            _ => DEFAULT_XOR,
        };
        match self {
            Self::Drop => FaultAction::Drop,
            Self::Delay if random & 0x100 == 0 => FaultAction::Delay(Delay::Polls(polls.get())),
            Self::Delay => FaultAction::Delay(Delay::Micros(u64::from(polls.get()).saturating_mul(100))),
            Self::Duplicate => FaultAction::Duplicate,
            Self::Reorder => FaultAction::Reorder,
            Self::WrongCommandId => FaultAction::WrongCommandId(xor),
            Self::WrongQueueId => FaultAction::WrongQueueId(xor),
            Self::WrongSqHead => FaultAction::WrongSqHead(xor),
            Self::WrongPhase => FaultAction::WrongPhase,
            Self::EarlyPhase => FaultAction::EarlyPhase,
            Self::Status => FaultAction::Status(match a & 3 {
                0 => StatusCode::INTERNAL_ERROR.status(),
                1 => StatusCode::INTERNAL_ERROR.status().with_do_not_retry(),
                2 => StatusCode::INVALID_FIELD.status().with_do_not_retry(),
                _ => StatusCode::NOT_ENOUGH_RESOURCES.status(),
            }),
            Self::FlipToHost => FaultAction::FlipToHost,
            Self::FlipToDevice => FaultAction::FlipToDevice,
            Self::AllOnes => FaultAction::AllOnes((random & 0x100 != 0).then_some(polls)),
            Self::NeverReady => FaultAction::NeverReady,
            Self::LateReady => FaultAction::LateReady(polls),
            Self::Fatal => FaultAction::Fatal,
            Self::Reset => FaultAction::Reset,
            Self::CdqWrongPhase => FaultAction::CdqWrongPhase,
            Self::CdqTornEntry => FaultAction::CdqTornEntry((random & 0x100 != 0).then_some(polls)),
            Self::CdqReservedSequence => FaultAction::CdqReservedSequence(match a & 3 {
                0 | 3 => ReservedSequence::Four,
                1 => ReservedSequence::Five,
                _ => ReservedSequence::Six,
            }),
            Self::CdqMissingFirst => FaultAction::CdqMissingFirst,
            Self::CdqMissingLast => FaultAction::CdqMissingLast,
            Self::CdqFullEarly => FaultAction::CdqFullEarly,
            Self::CdqHeadRefused => FaultAction::CdqHeadRefused,
            Self::CdqEventLost => FaultAction::CdqEventLost,
            Self::CdqEventDuplicated => FaultAction::CdqEventDuplicated,
            Self::CdqEventUnknown => FaultAction::CdqEventUnknown(xor),
            Self::CdqWriteAfterDelete => FaultAction::CdqWriteAfterDelete(polls),
        }
    }
}
