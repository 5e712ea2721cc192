// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands, registers, features, logs and status codes: bytes to values and back.

mod admin;
mod entry;
mod feature;
mod log;
mod nvm;
mod register;
mod status;

use nvme_core::wire::{BusAddr, Command, CommandId, InvalidField, SubmissionQueueEntry};
use zerocopy::FromBytes as _;

/// Encodes a command as it would be submitted and decodes it again.
fn round_trip<C: Command>(command: &C) -> Result<C, InvalidField> {
    let entry = command.encode();
    assert_eq!(entry.opcode(), C::OPCODE);
    let submitted =
        entry.with_command_id(CommandId::new(0x1234)).with_prps(BusAddr::new(0x7000), BusAddr::new(0x8000));
    C::decode(&submitted)
}

/// Decodes arbitrary bytes; whatever is accepted must survive another encoding.
fn accepts_or_refuses<C: Command + PartialEq + std::fmt::Debug>(bytes: &[u8; 64]) {
    let entry = SubmissionQueueEntry::read_from_bytes(bytes).unwrap();
    if let Ok(command) = C::decode(&entry) {
        assert_eq!(C::decode(&command.encode()), Ok(command));
    }
}
