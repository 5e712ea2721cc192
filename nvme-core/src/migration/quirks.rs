// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deviations of known controller models: the one table of them.

use bitflags::bitflags;

bitflags! {
    /// What a known controller model does otherwise than the specification says. None is set unless the host sets
    /// it; without quirks everything follows the specification.
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
    }
}

impl Quirks {
    /// Every quirk with the name under which hosts let users set it.
    pub const NAMES: &[(&'static str, Self)] = &[
        ("suspended-in-header", Self::SUSPENDED_IN_HEADER),
        ("set-state-in-one", Self::SET_STATE_IN_ONE),
        ("stop-before-restart", Self::STOP_BEFORE_RESTART),
        ("trigger-one-early", Self::TRIGGER_ONE_EARLY),
        ("contiguous-queues-only", Self::CONTIGUOUS_QUEUES_ONLY),
    ];

    /// The published emulation of the migration commands in a machine emulator, as examined.
    pub const EMULATED_TP4159: Self = Self::all();

    /// The quirk called `name`.
    #[must_use]
    pub fn from_kebab(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, quirk)| *quirk)
    }
}
