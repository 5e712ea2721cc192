// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deviations of known controller models: the one table of them.

use bitflags::bitflags;

bitflags! {
    /// What a known controller model does otherwise than the specification says. None is set unless the host sets
    /// it; without quirks everything follows the specification.
    ///
    /// Some deviations are tolerated from every controller, because nothing is lost by it: their quirk changes nothing and
    /// says so in [`TABLE`](Self::TABLE).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Quirks: u32 {
        /// Get Controller State never reports Controller Suspended (CSUP) in its completion: accept bit 0 of CSATTR
        /// in the image's header instead.
        const SUSPENDED_IN_HEADER = 1 << 0;
        /// Set Controller State takes the whole image in one command only (SEQIND 11b).
        const SET_STATE_IN_ONE = 1 << 1;
        /// After an overflow logging counts as active although nothing is logged: stop it before starting it again.
        const STOP_BEFORE_RESTART = 1 << 2;
        /// The tail pointer trigger compares after the tail has moved, so it fires one entry early: aim one further.
        const TRIGGER_ONE_EARLY = 1 << 3;
        /// Queues over a PRP list are accepted but never filled: use contiguous ones whatever was asked for.
        const CONTIGUOUS_QUEUES_ONLY = 1 << 4;
        /// Logging counts as active although a reset of the managing controller took its queue: stop it before starting it
        /// for the first time.
        const STOP_BEFORE_START = 1 << 5;
        /// Entries of deallocated blocks name one block too many: one block beyond the namespace is no error.
        const DEALLOCATE_ONE_BLOCK_MORE = 1 << 6;
        /// Events of queues are reported once and then masked for good: arm no trigger, look at the queue instead.
        const EVENTS_ONCE = 1 << 7;
        /// The limits of Controller Data Queues read zero although there are queues. Tolerated anyway.
        const LIMITS_READ_ZERO = 1 << 8;
        /// A failure is completed with status code zero and Do Not Retry. Tolerated anyway.
        const FAILS_WITH_DO_NOT_RETRY = 1 << 9;
        /// Structures are transferred in part: 4 bytes of the state formats, 8 of the queue feature. Tolerated anyway.
        const SHORT_STRUCTURES = 1 << 10;
        /// A suspend may never complete. Tolerated anyway.
        const SUSPEND_MAY_HANG = 1 << 11;
        /// S0PT of a completion queue is the phase tag of the next entry instead of that of slot 0: translate the state when
        /// it is taken from the controller or given to it
        /// ([`StateDialect`](crate::wire::controller_state::StateDialect)).
        const SLOT_ZERO_IS_NEXT_PHASE = 1 << 12;
        /// Changes by Copy are not logged: a migration loses them. No driver can mend that.
        const COPY_NOT_LOGGED = 1 << 13;
        /// A range of deallocated blocks is not logged if the next one of its command does not follow it directly: a
        /// migration loses that change. No driver can mend that.
        const DEALLOCATED_RANGES_DROPPED = 1 << 14;
    }
}

/// A quirk as users see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownQuirk {
    /// The name under which hosts let users set it.
    pub name: &'static str,
    /// The quirk.
    pub quirk: Quirks,
    /// What the controller does.
    pub deviation: &'static str,
    /// What the driver does without the quirk.
    pub without: &'static str,
    /// What it does with it; empty if the same.
    pub with: &'static str,
}

impl Quirks {
    /// Every quirk.
    pub const TABLE: &[KnownQuirk] = &[
        KnownQuirk {
            name: "suspended-in-header",
            quirk: Self::SUSPENDED_IN_HEADER,
            deviation: "Migration Receive never reports CSUP in its completion",
            without: "takes the state for inconsistent and rolls back",
            with: "accepts bit 0 of CSATTR in the image instead",
        },
        KnownQuirk {
            name: "set-state-in-one",
            quirk: Self::SET_STATE_IN_ONE,
            deviation: "Set Controller State takes a whole image only (SEQIND 11b)",
            without: "sends an image longer than one command in parts",
            with: "refuses such an image",
        },
        KnownQuirk {
            name: "stop-before-restart",
            quirk: Self::STOP_BEFORE_RESTART,
            deviation: "no first entry (ESA 001b) once logging is started again after the queue was full",
            without: "starts logging again and takes entries without a first one for a broken log",
            with: "stops logging before it starts it again, which brings the entry",
        },
        KnownQuirk {
            name: "trigger-one-early",
            quirk: Self::TRIGGER_ONE_EARLY,
            deviation: "the tail pointer trigger fires one entry early",
            without: "is woken one entry early, and looks again",
            with: "aims the trigger one entry further",
        },
        KnownQuirk {
            name: "contiguous-queues-only",
            quirk: Self::CONTIGUOUS_QUEUES_ONLY,
            deviation: "a queue over a PRP list is created and never filled",
            without: "makes the queue as it was asked for",
            with: "makes a contiguous queue whatever was asked for",
        },
        KnownQuirk {
            name: "stop-before-start",
            quirk: Self::STOP_BEFORE_START,
            deviation: "logging counts as active after a reset of the managing controller",
            without: "starts logging and waits for the first entry",
            with: "stops logging before it starts it, however that ends",
        },
        KnownQuirk {
            name: "deallocate-one-block-more",
            quirk: Self::DEALLOCATE_ONE_BLOCK_MORE,
            deviation: "entries of deallocated blocks have the length one-based: one block too many",
            without: "ends the migration at a range beyond the end of the namespace",
            with: "lets a range reach one block beyond the end",
        },
        KnownQuirk {
            name: "events-once",
            quirk: Self::EVENTS_ONCE,
            deviation: "events of queues are reported once and then never again",
            without: "arms the trigger before it sleeps, and looks again after a while whatever comes",
            with: "arms no trigger and only looks",
        },
        KnownQuirk {
            name: "limits-read-zero",
            quirk: Self::LIMITS_READ_ZERO,
            deviation: "MCUDMQ, MNSUDMQ, MCMR, NMCMR and MCDQPC may read 0 although there are queues",
            without: "takes 0 for no limit stated",
            with: "",
        },
        KnownQuirk {
            name: "fails-with-do-not-retry",
            quirk: Self::FAILS_WITH_DO_NOT_RETRY,
            deviation: "a command fails with status code 0 and Do Not Retry set",
            without: "takes it for a failure of which the effect is unknown",
            with: "",
        },
        KnownQuirk {
            name: "short-structures",
            quirk: Self::SHORT_STRUCTURES,
            deviation: "CNS 20h transfers 4 bytes, Get Features 21h transfers 8",
            without: "clears its buffers before, and reads what is not transferred as zero",
            with: "",
        },
        KnownQuirk {
            name: "suspend-may-hang",
            quirk: Self::SUSPEND_MAY_HANG,
            deviation: "a suspend never completes (its marker cannot be posted to a queue over a PRP list)",
            without: "waits for a suspend as long as its time-out says, then rolls back",
            with: "",
        },
        KnownQuirk {
            name: "slot-zero-is-next-phase",
            quirk: Self::SLOT_ZERO_IS_NEXT_PHASE,
            deviation: "S0PT is the phase tag of the next entry, which differs where the tail is 0",
            without: "hands the state on as it is: completions with the wrong tag, which the guest never sees",
            with: "a migration translates the state that is read from it or set at it; nothing else does",
        },
        KnownQuirk {
            name: "copy-not-logged",
            quirk: Self::COPY_NOT_LOGGED,
            deviation: "blocks changed by Copy are not logged",
            without: "loses them in a migration, and does not know",
            with: "says so before a migration; whoever insists on convergence is refused",
        },
        KnownQuirk {
            name: "deallocated-ranges-dropped",
            quirk: Self::DEALLOCATED_RANGES_DROPPED,
            deviation: "a deallocated range is not logged if the next one does not follow it directly",
            without: "loses it in a migration, and does not know",
            with: "says so before a migration; whoever insists on convergence is refused",
        },
    ];

    /// Those by which a controller loses changes of user data from its log: no driver can mend that, but its host should say
    /// so.
    pub const LOSES_CHANGES: Self = Self::COPY_NOT_LOGGED.union(Self::DEALLOCATED_RANGES_DROPPED);

    /// The published emulation of the migration commands in a machine emulator, as examined.
    pub const EMULATED_TP4159: Self = Self::all();

    /// The quirk called `name`.
    #[must_use]
    pub fn from_kebab(name: &str) -> Option<Self> {
        Self::TABLE.iter().find(|known| known.name == name).map(|known| known.quirk)
    }
}
