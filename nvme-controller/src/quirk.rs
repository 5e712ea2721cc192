// SPDX-License-Identifier: MIT OR Apache-2.0
//! Known deviations of other controller models, as switches that are all off by default.
//!
//! A driver is tested against them; nothing else should turn one on. Where a switch is off the subsystem follows the
//! specification.

use bitflags::bitflags;

bitflags! {
    /// Deviations from the specification that a subsystem imitates.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Quirks: u32 {
        /// Entries of Dataset Management carry the one-based length as NLB (one block too many) and DLBA stays clear.
        const DATASET_LENGTH_ONE_BASED = 1 << 0;
        /// A range of Dataset Management is not logged when a range that does not follow it directly comes next.
        const DATASET_RANGE_DROPPED = 1 << 1;
        /// The tail pointer trigger fires when the tail reaches the slot, one entry before the slot is filled.
        const TRIGGER_AFTER_INCREMENT = 1 << 2;
        /// Migration Receive never sets Controller Suspended (CSUP) in its completion.
        const SUSPENDED_NOT_REPORTED = 1 << 3;
        /// Supported Controller State Formats transfers four bytes and lists no vendor-specific format.
        const FORMATS_FOUR_BYTES = 1 << 4;
        /// Get Features of the Controller Data Queue transfers eight bytes.
        const CDQ_FEATURE_EIGHT_BYTES = 1 << 5;
        /// S0PT of a saved completion queue is the tag of the next entry instead of that of slot 0.
        const SLOT_ZERO_IS_NEXT_PHASE = 1 << 6;
        /// Logging goes on without a first entry once slots of a full queue are freed: it counts as on all the time, and a
        /// start while it is on succeeds and posts nothing.
        const LOGGING_RESUMES_AFTER_FULL = 1 << 7;
        /// An unsupported Select of the Controller Data Queue command completes with status code zero and Do Not Retry.
        const BAD_SELECT_ONLY_DO_NOT_RETRY = 1 << 8;
        /// An invalid controller identifier is answered with Invalid Field in Command (Migration Receive: Invalid
        /// Controller Data Queue).
        const INVALID_CONTROLLER_IS_INVALID_FIELD = 1 << 9;
        /// Starting the log after the queue was full posts no first entry.
        const NO_FIRST_ENTRY_AFTER_FULL = 1 << 10;
        /// Copy is not logged.
        const COPY_NOT_LOGGED = 1 << 11;
        /// The limits of Controller Data Queues in Identify Controller read zero.
        const LIMITS_READ_ZERO = 1 << 12;
        /// Events of Controller Data Queues are masked once one was reported, like error events.
        const ONE_SHOT_EVENTS_MASKED = 1 << 13;
        /// The size of a Controller Data Queue need not be a whole number of entries; the rest is ignored.
        const QUEUE_SIZE_ROUNDED_DOWN = 1 << 14;
        /// Any head that is not beyond the tail of a queue that has not wrapped is accepted.
        const HEAD_NOT_CHECKED = 1 << 15;
        /// Once a managing controller was reset, logging counts as active at every controller until it is stopped: a start
        /// succeeds and posts no first entry.
        const LOGGING_ACTIVE_AFTER_RESET = 1 << 16;
        /// Set Controller State takes a whole state in one command only; a part ends with Internal Error.
        const STATE_IN_ONE_COMMAND = 1 << 17;
        /// A Controller Data Queue over a PRP list is created and never filled, not even with markers.
        const LISTED_QUEUES_NOT_FILLED = 1 << 18;
    }
}
