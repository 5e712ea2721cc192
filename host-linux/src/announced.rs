// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which commands a controller announces in Identify Controller, so that no other one is sent unasked.
//! NVMe Base 2.1 §5.1.13.2.1, Identify Controller data structure (OACS, ONCS, TRATTR).

use std::fmt;

use nvme_core::wire::identify::{
    ControllerIdentity, OptionalAdminCommands as Admin, OptionalNvmCommands as Nvm, TrackingAttributes,
};
use nvme_core::wire::{AdminOpcode, IoOpcode};

/// Extended data of Get Log Page are supported: offsets and long parts (LPA bit 2).
const EXTENDED_DATA: u8 = 1 << 2;

/// A feature that is needed and not announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// What is missing, in words.
    pub feature: String,
    /// The field that says so, with its structure.
    pub field: &'static str,
    /// Its value.
    pub value: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { feature, field, value } = self;
        write!(f, "{feature} is not supported by this controller: {field} is {value}; nothing was sent")
    }
}

impl std::error::Error for Unsupported {}

/// Something that a controller may announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Host Managed Live Migration: Migration Send and Receive, Track Send and Receive, Controller Data Queues.
    Migration,
    /// Tracking of user data changes in a Controller Data Queue.
    TrackUserData,
    /// Tracking of changes of host memory.
    TrackHostMemory,
    /// Log pages in parts, and in long ones.
    LogPageOffsets,
    /// An optional admin command.
    Admin(AdminOpcode),
    /// An optional I/O command.
    Io(IoOpcode),
}

impl Feature {
    /// In words.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Migration => "Host Managed Live Migration".into(),
            Self::TrackUserData => "Track User Data Changes".into(),
            Self::TrackHostMemory => "Track Host Memory Changes".into(),
            Self::LogPageOffsets => "reading a log page in parts".into(),
            Self::Admin(opcode) => format!("admin command {:#04x}, {opcode}", opcode.get()),
            Self::Io(opcode) => format!("I/O command {:#04x}, {opcode}", opcode.get()),
        }
    }
}

/// The bit of OACS that announces an admin command; none if it is mandatory, an error if nothing in Identify Controller
/// announces it.
fn admin_bit(opcode: AdminOpcode) -> Result<Option<Admin>, ()> {
    Ok(Some(match opcode.get() {
        0x00..=0x02 | 0x04..=0x06 | 0x08..=0x0A | 0x0C => return Ok(None),
        // Announced by KAS.
        0x18 => return Ok(None),
        0x0D | 0x15 => Admin::NAMESPACE_MANAGEMENT,
        0x10 | 0x11 => Admin::FIRMWARE,
        0x14 => Admin::SELF_TEST,
        0x19 | 0x1A => Admin::DIRECTIVES,
        0x1C => Admin::VIRTUALIZATION_MANAGEMENT,
        0x1D | 0x1E => Admin::NVME_MI,
        0x24 => Admin::LOCKDOWN,
        0x3D | 0x3E | 0x41 | 0x42 | 0x45 => Admin::HOST_MANAGED_LIVE_MIGRATION,
        0x7C => Admin::DOORBELL_BUFFER,
        0x80 => Admin::FORMAT,
        0x81 | 0x82 => Admin::SECURITY,
        0x86 => Admin::GET_LBA_STATUS,
        _ => return Err(()),
    }))
}

/// As [`admin_bit`] for ONCS.
fn io_bit(opcode: IoOpcode) -> Result<Option<Nvm>, ()> {
    Ok(Some(match opcode.get() {
        0x00..=0x02 => return Ok(None),
        0x04 => Nvm::WRITE_UNCORRECTABLE,
        0x05 => Nvm::COMPARE,
        0x08 => Nvm::WRITE_ZEROES,
        0x09 => Nvm::DATASET_MANAGEMENT,
        0x0C => Nvm::VERIFY,
        0x0D | 0x0E | 0x11 | 0x15 => Nvm::RESERVATIONS,
        0x19 => Nvm::COPY,
        _ => return Err(()),
    }))
}

/// Whether Identify Controller tells of `feature`. Of other commands only the Commands Supported and Effects log does.
#[must_use]
pub fn is_in_identify(feature: Feature) -> bool {
    match feature {
        Feature::Admin(opcode) => admin_bit(opcode).is_ok(),
        Feature::Io(opcode) => io_bit(opcode).is_ok(),
        Feature::Migration | Feature::TrackUserData | Feature::TrackHostMemory | Feature::LogPageOffsets => {
            true
        }
    }
}

/// Whether `identity` announces `feature`.
///
/// # Errors
/// The field that says that it does not.
pub fn require(identity: &ControllerIdentity, feature: Feature) -> Result<(), Unsupported> {
    const OACS: &str = "OACS in Identify Controller";
    const ONCS: &str = "ONCS in Identify Controller";
    const TRATTR: &str = "TRATTR in Identify Controller";
    let (oacs, oncs) = (identity.admin_commands, identity.nvm_commands);
    let refuse = |field, value: String| Err(Unsupported { feature: feature.name(), field, value });
    let in_oacs = |bit: Admin| match oacs.contains(bit) {
        true => Ok(()),
        false => refuse(OACS, format!("{:#06x}, bit {} clear", oacs.bits(), bit.bits().trailing_zeros())),
    };
    let in_trattr = |bit: TrackingAttributes| {
        in_oacs(Admin::HOST_MANAGED_LIVE_MIGRATION)?;
        let tracking = identity.migration.tracking;
        match tracking.contains(bit) {
            true => Ok(()),
            false => {
                refuse(TRATTR, format!("{:#04x}, bit {} clear", tracking.bits(), bit.bits().trailing_zeros()))
            }
        }
    };
    match feature {
        Feature::Migration => in_oacs(Admin::HOST_MANAGED_LIVE_MIGRATION),
        Feature::TrackUserData => in_trattr(TrackingAttributes::USER_DATA),
        Feature::TrackHostMemory => in_trattr(TrackingAttributes::HOST_MEMORY),
        Feature::LogPageOffsets if identity.log_page_attributes & EXTENDED_DATA != 0 => Ok(()),
        Feature::LogPageOffsets => refuse(
            "LPA in Identify Controller",
            format!("{:#04x}, bit 2 clear", identity.log_page_attributes),
        ),
        Feature::Admin(opcode)
            if opcode == AdminOpcode::KEEP_ALIVE && identity.keep_alive_granularity == 0 =>
        {
            refuse("KAS in Identify Controller", "0".into())
        }
        Feature::Admin(opcode) => match admin_bit(opcode) {
            Ok(None) => Ok(()),
            Ok(Some(bit)) => in_oacs(bit),
            Err(()) => refuse(OACS, format!("{:#06x}, which has no bit for it", oacs.bits())),
        },
        Feature::Io(opcode) => match io_bit(opcode) {
            Ok(None) => Ok(()),
            Ok(Some(bit)) if oncs.contains(bit) => Ok(()),
            Ok(Some(bit)) => {
                refuse(ONCS, format!("{:#06x}, bit {} clear", oncs.bits(), bit.bits().trailing_zeros()))
            }
            Err(()) => refuse(ONCS, format!("{:#06x}, which has no bit for it", oncs.bits())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(oacs: u16, oncs: u16, tracking: u8) -> ControllerIdentity {
        let mut bytes = [0; 4096];
        bytes[256..258].copy_from_slice(&oacs.to_le_bytes());
        bytes[520..522].copy_from_slice(&oncs.to_le_bytes());
        // Entry sizes that every controller has.
        bytes[512] = 0x66;
        bytes[513] = 0x44;
        ControllerIdentity::parse(&bytes)
            .map(|mut identity| {
                identity.migration.tracking = TrackingAttributes::from_bits_retain(tracking);
                identity
            })
            .expect("an identity")
    }

    #[test]
    fn only_what_is_announced_may_be_sent() {
        let admin = |opcode| Feature::Admin(AdminOpcode::new(opcode));
        let io = |opcode| Feature::Io(IoOpcode::new(opcode));
        // OACS, ONCS, TRATTR, feature, whether it is announced.
        let rows = [
            ("mandatory admin", 0, 0, 0, admin(0x06), None),
            ("mandatory I/O", 0, 0, 0, io(0x02), None),
            ("migration", 0x0800, 0, 0, Feature::Migration, None),
            (
                "no migration",
                0xF7FF,
                0,
                3,
                Feature::Migration,
                Some("OACS in Identify Controller is 0xf7ff, bit 11"),
            ),
            ("Migration Send without it", 0, 0, 0, admin(0x41), Some("bit 11 clear")),
            ("data queue without it", 0, 0, 0, admin(0x45), Some("bit 11 clear")),
            ("Keep Alive without a timer", 0, 0, 0, admin(0x18), Some("KAS in Identify Controller is 0")),
            (
                "parts of log pages",
                0,
                0,
                0,
                Feature::LogPageOffsets,
                Some("LPA in Identify Controller is 0x00, bit 2"),
            ),
            ("user data", 0x0800, 0, 2, Feature::TrackUserData, None),
            (
                "no user data",
                0x0800,
                0,
                1,
                Feature::TrackUserData,
                Some("TRATTR in Identify Controller is 0x01, bit 1"),
            ),
            ("user data without migration", 0, 0, 2, Feature::TrackUserData, Some("bit 11 clear")),
            ("host memory", 0x0800, 0, 1, Feature::TrackHostMemory, None),
            ("no host memory", 0x0800, 0, 2, Feature::TrackHostMemory, Some("bit 0 clear")),
            ("virtualization", 0x0080, 0, 0, admin(0x1C), None),
            ("no virtualization", 0, 0, 0, admin(0x1C), Some("bit 7 clear")),
            ("compare", 0, 1, 0, io(0x05), None),
            ("no compare", 0, 0xFFFE, 0, io(0x05), Some("ONCS in Identify Controller is 0xfffe, bit 0")),
            ("copy", 0, 0x100, 0, io(0x19), None),
            ("no copy", 0, 0, 0, io(0x19), Some("bit 8 clear")),
            ("vendor specific admin", 0xFFFF, 0, 0, admin(0xC1), Some("no bit for it")),
            ("vendor specific I/O", 0, 0xFFFF, 0, io(0x91), Some("no bit for it")),
        ];
        for (name, oacs, oncs, tracking, feature, refused) in rows {
            match (require(&identity(oacs, oncs, tracking), feature), refused) {
                (Ok(()), None) => {}
                (Err(unsupported), Some(words)) => {
                    let text = unsupported.to_string();
                    assert!(text.contains(words) && text.ends_with("nothing was sent"), "{name}: {text}");
                }
                (found, _) => panic!("{name}: {found:?}"),
            }
        }
    }
}
