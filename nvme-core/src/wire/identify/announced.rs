// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Identify Controller announces, so that nothing else is sent.
//! NVMe Base 2.1 §5.1.13.2.1, Identify Controller data structure (LPA, OACS, KAS, ONCS, TRATTR).

use core::fmt;

use super::{
    ControllerIdentity, OptionalAdminCommands as Admin, OptionalNvmCommands as Nvm, TrackingAttributes,
};
use crate::wire::log::LogPageId;
use crate::wire::{AdminOpcode, IoOpcode};

/// Bit of LPA: the Commands Supported and Effects log page.
const EFFECTS: u8 = 1;
/// Bit of LPA: offsets and lengths of more than 12 bits in Get Log Page.
const EXTENDED_DATA: u8 = 2;
/// Bit of LPA: the Telemetry log pages.
const TELEMETRY: u8 = 3;
/// Bit of LPA: the Persistent Event log page.
const PERSISTENT_EVENTS: u8 = 4;
/// Bit of LPA: Supported Log Pages, Feature Identifiers and NVMe-MI Commands Supported and Effects.
const SUPPORTED_PAGES: u8 = 5;

/// Something that a controller may announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Capability {
    /// Host Managed Live Migration: Migration Send and Receive, Track Send and Receive, Controller Data Queues.
    Migration,
    /// Tracking of user data changes in a Controller Data Queue.
    TrackUserData,
    /// Tracking of changes of host memory.
    TrackHostMemory,
    /// Get Log Page with an offset, or for more than 16 KiB.
    LogPageOffsets,
    /// A log page.
    LogPage(LogPageId),
    /// An admin command.
    Admin(AdminOpcode),
    /// A command of the NVM command set.
    Io(IoOpcode),
}

/// What announces a capability.
enum Announcement {
    /// Every controller has it.
    Mandatory,
    /// A bit of a field, with its number.
    Bit(AnnouncingField, u8),
    /// A field that is not zero.
    NotZero(AnnouncingField),
    /// No bit of a field that announces its like.
    Nowhere(AnnouncingField),
}

/// A field of Identify Controller that announces capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnnouncingField {
    /// Log Page Attributes.
    LogPageAttributes,
    /// Optional Admin Command Support.
    OptionalAdminCommands,
    /// Keep Alive Support: the granularity of the Keep Alive Timer in 100 ms.
    KeepAliveSupport,
    /// Optional NVM Command Support.
    OptionalNvmCommands,
    /// Tracking Attributes.
    TrackingAttributes,
}

impl AnnouncingField {
    /// The specification's short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LogPageAttributes => "LPA",
            Self::OptionalAdminCommands => "OACS",
            Self::KeepAliveSupport => "KAS",
            Self::OptionalNvmCommands => "ONCS",
            Self::TrackingAttributes => "TRATTR",
        }
    }

    /// Its value in `identity`.
    #[must_use]
    pub fn value(self, identity: &ControllerIdentity) -> u16 {
        match self {
            Self::LogPageAttributes => u16::from(identity.log_page_attributes),
            Self::OptionalAdminCommands => identity.admin_commands.bits(),
            Self::KeepAliveSupport => identity.keep_alive_granularity,
            Self::OptionalNvmCommands => identity.nvm_commands.bits(),
            Self::TrackingAttributes => u16::from(identity.migration.tracking.bits()),
        }
    }

    /// Characters of a value in hexadecimal with its `0x`.
    const fn width(self) -> usize {
        match self {
            Self::LogPageAttributes | Self::TrackingAttributes => 4,
            Self::OptionalAdminCommands | Self::KeepAliveSupport | Self::OptionalNvmCommands => 6,
        }
    }
}

impl fmt::Display for AnnouncingField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A capability that is needed and not announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnnounced {
    /// What is missing.
    pub capability: Capability,
    /// The field that says so.
    pub field: AnnouncingField,
    /// Its value.
    pub value: u16,
    /// The bit that is clear, counted from 0; none if the field has no bit for it or is a number.
    pub bit: Option<u8>,
}

impl core::error::Error for NotAnnounced {}

impl fmt::Display for NotAnnounced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { capability, field, value, bit } = self;
        let width = field.width();
        write!(
            f,
            "{capability} is not supported by this controller: {field} in Identify Controller is {value:#0width$x}"
        )?;
        match (bit, field) {
            (Some(bit), _) => write!(f, ", bit {bit} clear"),
            (None, AnnouncingField::KeepAliveSupport) => Ok(()),
            (None, _) => f.write_str(", which has no bit for it"),
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Migration => f.write_str("Host Managed Live Migration"),
            Self::TrackUserData => f.write_str("Track User Data Changes"),
            Self::TrackHostMemory => f.write_str("Track Host Memory Changes"),
            Self::LogPageOffsets => f.write_str("reading a log page in parts"),
            Self::LogPage(page) => named(f, "log page", page.name(), page.get()),
            Self::Admin(opcode) => named(f, "admin command", opcode.name(), opcode.get()),
            Self::Io(opcode) => named(f, "I/O command", opcode.name(), opcode.get()),
        }
    }
}

fn named(f: &mut fmt::Formatter<'_>, what: &str, name: Option<&str>, number: u8) -> fmt::Result {
    match name {
        Some(name) => write!(f, "{what} {name} ({number:02X}h)"),
        None => write!(f, "{what} {number:02X}h"),
    }
}

impl Capability {
    /// Whether Identify Controller tells of it at all. Of other commands only the Commands Supported and Effects log page
    /// does (NVMe Base 2.1 §5.1.12.1.6).
    #[must_use]
    pub const fn is_in_identify(self) -> bool {
        !matches!(self.announcement(), Announcement::Nowhere(_))
    }

    const fn announcement(self) -> Announcement {
        match self {
            Self::Migration => admin(Admin::HOST_MANAGED_LIVE_MIGRATION),
            Self::TrackUserData => tracking(TrackingAttributes::USER_DATA),
            Self::TrackHostMemory => tracking(TrackingAttributes::HOST_MEMORY),
            Self::LogPageOffsets => Announcement::Bit(AnnouncingField::LogPageAttributes, EXTENDED_DATA),
            Self::LogPage(page) => log_page(page),
            Self::Admin(opcode) => admin_command(opcode),
            Self::Io(opcode) => io_command(opcode),
        }
    }
}

const fn admin(bit: Admin) -> Announcement {
    Announcement::Bit(AnnouncingField::OptionalAdminCommands, bit.bits().trailing_zeros() as u8)
}

const fn nvm(bit: Nvm) -> Announcement {
    Announcement::Bit(AnnouncingField::OptionalNvmCommands, bit.bits().trailing_zeros() as u8)
}

const fn tracking(bit: TrackingAttributes) -> Announcement {
    Announcement::Bit(AnnouncingField::TrackingAttributes, bit.bits().trailing_zeros() as u8)
}

/// Pages that no field tells of are left to the controller, which refuses Get Log Page for them.
const fn log_page(page: LogPageId) -> Announcement {
    let bit = match page.get() {
        0x00 | 0x12 | 0x13 => SUPPORTED_PAGES,
        0x05 => EFFECTS,
        0x06 => return admin(Admin::SELF_TEST),
        0x07 | 0x08 => TELEMETRY,
        0x0D => PERSISTENT_EVENTS,
        _ => return Announcement::Mandatory,
    };
    Announcement::Bit(AnnouncingField::LogPageAttributes, bit)
}

const fn admin_command(opcode: AdminOpcode) -> Announcement {
    admin(match opcode.get() {
        0x00..=0x02 | 0x04..=0x06 | 0x08..=0x0A | 0x0C => return Announcement::Mandatory,
        0x18 => return Announcement::NotZero(AnnouncingField::KeepAliveSupport),
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
        _ => return Announcement::Nowhere(AnnouncingField::OptionalAdminCommands),
    })
}

const fn io_command(opcode: IoOpcode) -> Announcement {
    nvm(match opcode.get() {
        0x00..=0x02 => return Announcement::Mandatory,
        0x04 => Nvm::WRITE_UNCORRECTABLE,
        0x05 => Nvm::COMPARE,
        0x08 => Nvm::WRITE_ZEROES,
        0x09 => Nvm::DATASET_MANAGEMENT,
        0x0C => Nvm::VERIFY,
        0x0D | 0x0E | 0x11 | 0x15 => Nvm::RESERVATIONS,
        0x19 => Nvm::COPY,
        _ => return Announcement::Nowhere(AnnouncingField::OptionalNvmCommands),
    })
}

impl ControllerIdentity {
    /// Whether the controller announces `capability`. Log pages that no field of Identify Controller tells of pass. Bounded;
    /// nothing is sent.
    ///
    /// # Errors
    /// The field that says that it does not. A controller that does not manage migrations at all tracks nothing: then
    /// [`Capability::Migration`] is named.
    ///
    /// ```
    /// use nvme_core::wire::identify::{Capability, ControllerIdentity};
    ///
    /// let error = ControllerIdentity::default().require(Capability::Migration).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "Host Managed Live Migration is not supported by this controller: \
    ///      OACS in Identify Controller is 0x0000, bit 11 clear"
    /// );
    /// ```
    pub fn require(&self, capability: Capability) -> Result<(), NotAnnounced> {
        if matches!(capability, Capability::TrackUserData | Capability::TrackHostMemory) {
            self.require(Capability::Migration)?;
        }
        let (field, bit) = match capability.announcement() {
            Announcement::Mandatory => return Ok(()),
            Announcement::Bit(field, bit) => (field, Some(bit)),
            Announcement::NotZero(field) | Announcement::Nowhere(field) => (field, None),
        };
        let value = field.value(self);
        let is_announced = match (bit, field) {
            (Some(bit), _) => u32::from(value).wrapping_shr(u32::from(bit)) & 1 != 0,
            (None, AnnouncingField::KeepAliveSupport) => value != 0,
            (None, _) => false,
        };
        match is_announced {
            true => Ok(()),
            false => Err(NotAnnounced { capability, field, value, bit }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(oacs: u16, oncs: u16, tracking: u8, lpa: u8) -> ControllerIdentity {
        let mut identity = ControllerIdentity {
            admin_commands: Admin::from_bits_retain(oacs),
            nvm_commands: Nvm::from_bits_retain(oncs),
            log_page_attributes: lpa,
            ..ControllerIdentity::default()
        };
        identity.migration.tracking = TrackingAttributes::from_bits_retain(tracking);
        identity
    }

    fn admin(opcode: u8) -> Capability {
        Capability::Admin(AdminOpcode::new(opcode))
    }

    fn io(opcode: u8) -> Capability {
        Capability::Io(IoOpcode::new(opcode))
    }

    fn page(page: u8) -> Capability {
        Capability::LogPage(LogPageId::new(page))
    }

    #[test]
    fn each_capability_hangs_on_its_bit_alone() {
        use AnnouncingField::{
            LogPageAttributes as Lpa, OptionalAdminCommands as Oacs, OptionalNvmCommands as Oncs,
            TrackingAttributes as Trattr,
        };
        let rows: [(&str, &[Capability], AnnouncingField, u8); 27] = [
            ("security", &[admin(0x81), admin(0x82)], Oacs, 0),
            ("format", &[admin(0x80)], Oacs, 1),
            ("firmware", &[admin(0x10), admin(0x11)], Oacs, 2),
            ("namespace management", &[admin(0x0D), admin(0x15)], Oacs, 3),
            ("self-test", &[admin(0x14), page(0x06)], Oacs, 4),
            ("directives", &[admin(0x19), admin(0x1A)], Oacs, 5),
            ("management interface", &[admin(0x1D), admin(0x1E)], Oacs, 6),
            ("virtualization", &[admin(0x1C)], Oacs, 7),
            ("doorbell buffer", &[admin(0x7C)], Oacs, 8),
            ("LBA status", &[admin(0x86)], Oacs, 9),
            ("lockdown", &[admin(0x24)], Oacs, 10),
            ("tracking", &[admin(0x3D), admin(0x3E)], Oacs, 11),
            ("migration", &[admin(0x41), admin(0x42), admin(0x45), Capability::Migration], Oacs, 11),
            ("compare", &[io(0x05)], Oncs, 0),
            ("write uncorrectable", &[io(0x04)], Oncs, 1),
            ("deallocate", &[io(0x09)], Oncs, 2),
            ("write zeroes", &[io(0x08)], Oncs, 3),
            ("reservations", &[io(0x0D), io(0x0E), io(0x11), io(0x15)], Oncs, 5),
            ("verify", &[io(0x0C)], Oncs, 7),
            ("copy", &[io(0x19)], Oncs, 8),
            ("effects", &[page(0x05)], Lpa, 1),
            ("parts", &[Capability::LogPageOffsets], Lpa, 2),
            ("telemetry", &[page(0x07), page(0x08)], Lpa, 3),
            ("persistent events", &[page(0x0D)], Lpa, 4),
            ("supported pages", &[page(0x00), page(0x12), page(0x13)], Lpa, 5),
            ("host memory", &[Capability::TrackHostMemory], Trattr, 0),
            ("user data", &[Capability::TrackUserData], Trattr, 1),
        ];
        for (name, capabilities, field, bit) in rows {
            let (on, off) = (1_u16 << bit, !(1_u16 << bit));
            for &capability in capabilities {
                // What tracks manages migrations.
                let (has, has_not) = match field {
                    Oacs => (identity(on, 0, 0, 0), identity(off, !0, !0, !0)),
                    Oncs => (identity(0, on, 0, 0), identity(!0, off, !0, !0)),
                    Lpa => (identity(0, 0, 0, on as u8), identity(!0, !0, !0, off as u8)),
                    _ => (identity(1 << 11, 0, on as u8, 0), identity(!0, !0, off as u8, !0)),
                };
                assert_eq!(has.require(capability), Ok(()), "{name}, {capability}");
                let error = NotAnnounced { capability, field, value: field.value(&has_not), bit: Some(bit) };
                assert_eq!(has_not.require(capability), Err(error), "{name}, {capability}");
                assert!(capability.is_in_identify(), "{name}, {capability}");
            }
        }
    }

    #[test]
    fn what_no_bit_announces_is_mandatory_or_unknown() {
        let (none, all) = (identity(0, 0, 0, 0), identity(!0, !0, !0, !0));
        for opcode in [0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0A, 0x0C] {
            assert_eq!(none.require(admin(opcode)), Ok(()), "{opcode:#04x}");
        }
        for opcode in [0x00, 0x01, 0x02] {
            assert_eq!(none.require(io(opcode)), Ok(()), "{opcode:#04x}");
        }
        for id in [0x01, 0x02, 0x03, 0x04, 0xC0] {
            assert_eq!(none.require(page(id)), Ok(()), "{id:#04x}");
        }
        for capability in [admin(0x03), admin(0x84), admin(0xC1), io(0x03), io(0x91)] {
            assert!(!capability.is_in_identify(), "{capability}");
            let error = all.require(capability).expect_err("no bit");
            assert_eq!((error.capability, error.value, error.bit), (capability, !0, None));
        }
        let timer = ControllerIdentity { keep_alive_granularity: 1, ..none };
        assert_eq!(timer.require(admin(0x18)), Ok(()));
        assert_eq!(none.require(admin(0x18)).map_err(|error| error.bit), Err(None));
    }

    #[test]
    fn messages_name_the_field_and_its_value() {
        let rows = [
            (
                Capability::Migration,
                0xF7FF,
                "Host Managed Live Migration is not supported by this controller: OACS in \
              Identify Controller is 0xf7ff, bit 11 clear",
            ),
            (
                Capability::TrackUserData,
                0,
                "Host Managed Live Migration is not supported by this controller: OACS in \
              Identify Controller is 0x0000, bit 11 clear",
            ),
            (
                Capability::TrackUserData,
                0x0800,
                "Track User Data Changes is not supported by this controller: TRATTR in \
              Identify Controller is 0x00, bit 1 clear",
            ),
            (
                Capability::TrackHostMemory,
                0x0800,
                "Track Host Memory Changes is not supported by this controller: TRATTR in \
              Identify Controller is 0x00, bit 0 clear",
            ),
            (
                Capability::LogPageOffsets,
                0,
                "reading a log page in parts is not supported by this controller: LPA in \
              Identify Controller is 0x00, bit 2 clear",
            ),
            (
                page(0x05),
                0,
                "log page Commands Supported and Effects (05h) is not supported by this controller: LPA in \
              Identify Controller is 0x00, bit 1 clear",
            ),
            (
                io(0x05),
                0,
                "I/O command Compare (05h) is not supported by this controller: ONCS in Identify Controller is \
              0x0000, bit 0 clear",
            ),
            (
                admin(0x18),
                0,
                "admin command Keep Alive (18h) is not supported by this controller: KAS in Identify \
              Controller is 0x0000",
            ),
            (
                admin(0xC1),
                1,
                "admin command C1h is not supported by this controller: OACS in Identify Controller is 0x0001, which has no bit \
              for it",
            ),
        ];
        for (capability, oacs, words) in rows {
            let error = identity(oacs, 0, 0, 0).require(capability).expect_err("not announced");
            let text = std::format!("{error}");
            assert!(text.ends_with(words), "{text}");
        }
    }
}
