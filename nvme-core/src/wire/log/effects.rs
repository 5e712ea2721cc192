// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands Supported and Effects (05h). NVMe Base 2.1 §5.1.12.1.6.

use bitflags::bitflags;
use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::{AdminOpcode, IoOpcode};

bitflags! {
    /// What executing a command changes.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct CommandEffects: u32 {
        /// Command Supported (CSUPP).
        const SUPPORTED = 1 << 0;
        /// Logical Block Content Change (LBCC).
        const CONTENT_CHANGE = 1 << 1;
        /// Namespace Capability Change (NCC).
        const NAMESPACE_CAPABILITY_CHANGE = 1 << 2;
        /// Namespace Inventory Change (NIC).
        const NAMESPACE_INVENTORY_CHANGE = 1 << 3;
        /// Controller Capability Change (CCC).
        const CONTROLLER_CAPABILITY_CHANGE = 1 << 4;
        /// UUID Selection Supported (USS).
        const UUID_SELECTION_SUPPORTED = 1 << 19;
        /// Unknown bits are retained.
        const _ = !0;
    }
}

impl CommandEffects {
    /// Command Submission and Execution (CSE, bits 18:16): 0 no restriction, 1 alone on its namespace, 2 alone on
    /// the controller.
    #[must_use]
    pub const fn execution(self) -> u8 {
        ((self.bits() >> 16) & 7) as u8
    }

    /// The same effects with CSE set to `restriction`, three bits; higher bits are dropped.
    #[must_use]
    pub const fn with_execution(self, restriction: u8) -> Self {
        Self::from_bits_retain((self.bits() & !(7 << 16)) | ((restriction as u32 & 7) << 16))
    }

    /// Command Scope (bits 31:20).
    #[must_use]
    pub const fn scope(self) -> u16 {
        (self.bits() >> 20) as u16
    }

    /// The same effects with Command Scope set to `scope`, twelve bits; higher bits are dropped.
    #[must_use]
    pub const fn with_scope(self, scope: u16) -> Self {
        Self::from_bits_retain((self.bits() & 0x000F_FFFF) | ((scope as u32 & 0xFFF) << 20))
    }
}

/// The effects of every command, 4,096 bytes. The I/O half is about the command set that Get Log Page named.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct CommandsSupportedAndEffects {
    admin: [U32; 256],
    io: [U32; 256],
    reserved2048: [u8; 2048],
}
static_assertions::const_assert_eq!(size_of::<CommandsSupportedAndEffects>(), 4096);

impl Default for CommandsSupportedAndEffects {
    fn default() -> Self {
        Self { admin: [U32::ZERO; 256], io: [U32::ZERO; 256], reserved2048: [0; 2048] }
    }
}

fn effects(table: &[U32; 256], opcode: u8) -> CommandEffects {
    CommandEffects::from_bits_retain(table.get(usize::from(opcode)).map_or(0, |effects| effects.get()))
}

fn set_effects(table: &mut [U32; 256], opcode: u8, effects: CommandEffects) {
    if let Some(place) = table.get_mut(usize::from(opcode)) {
        *place = U32::new(effects.bits());
    }
}

impl CommandsSupportedAndEffects {
    /// Effects of an admin command.
    #[must_use]
    pub fn admin(&self, opcode: AdminOpcode) -> CommandEffects {
        effects(&self.admin, opcode.get())
    }

    /// Effects of an I/O command.
    #[must_use]
    pub fn io(&self, opcode: IoOpcode) -> CommandEffects {
        effects(&self.io, opcode.get())
    }

    /// Sets the effects of an admin command.
    pub fn set_admin(&mut self, opcode: AdminOpcode, effects: CommandEffects) {
        set_effects(&mut self.admin, opcode.get(), effects);
    }

    /// Sets the effects of an I/O command.
    pub fn set_io(&mut self, opcode: IoOpcode, effects: CommandEffects) {
        set_effects(&mut self.io, opcode.get(), effects);
    }
}
