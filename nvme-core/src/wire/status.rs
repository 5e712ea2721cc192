// SPDX-License-Identifier: MIT OR Apache-2.0
//! Status field of a completion. NVMe Base 2.1 §4.2.3, Status Field Definition.

use core::fmt;

/// Status Code Type and Status Code: which error it is, without the retry bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusCode {
    kind: u8,
    code: u8,
}

/// What a completion says about the effect of its command. See [`Status::effect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The command took effect.
    Succeeded,
    /// The controller refused the command before it changed anything: it had no effect and will have none.
    Refused,
    /// The command may have taken effect, in whole or in part.
    Unknown,
}

/// Status of a completed command: 15 bits, the phase tag removed. What it says about the command's effect is its
/// [`effect`](Self::effect).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Status(u16);

impl Status {
    /// Successful completion.
    pub const SUCCESS: Self = Self(0);
    const CODE: u16 = 0x7FF;
    const MORE: u16 = 1 << 13;
    const DO_NOT_RETRY: u16 = 1 << 14;

    /// Takes the 15 status bits as they stand above the phase tag; a sixteenth bit is dropped.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & 0x7FFF)
    }

    /// The 15 status bits.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether the command succeeded: status code type and status code are zero and Do Not Retry is clear. More and
    /// Command Retry Delay say nothing about success and are not looked at. Do Not Retry with status code zero, which
    /// some controllers send for commands they do not know, is not success, nor is it a refusal.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 & (Self::CODE | Self::DO_NOT_RETRY) == 0
    }

    /// What the completion says about the command's effect. Whoever gives memory back or lets another side run because
    /// a command failed needs [`Effect::Refused`]; an error alone proves nothing.
    ///
    /// | Status | Effect | Reason |
    /// |---|---|---|
    /// | 0/00h without Do Not Retry | succeeded | the definition of success; More and CRD only add information |
    /// | 0/00h with Do Not Retry | unknown | no controller may send it, so nothing says what it means |
    /// | 0/01h, 0/02h, 0/0Bh | refused | opcode, field and namespace are checked before a command is carried out |
    /// | 0/0Ch | refused | the command came at the wrong time in a sequence |
    /// | 0/13h | refused | the data pointer was found illegal before the data was used |
    /// | 0/15h, 0/23h | refused | the command is denied or locked down |
    /// | 1/00h, 1/01h, 1/02h, 1/08h, 1/0Ch | refused | parameters of Create and Delete I/O Queue |
    /// | 1/03h, 1/05h | refused | one Abort or Asynchronous Event Request too many |
    /// | 1/09h, 1/0Dh, 1/0Eh, 1/0Fh, 1/14h, 1/2Bh, 1/2Ch | refused | parameters of Get Log Page, the Features commands and Identify |
    /// | 1/1Fh, 1/37h to 1/3Bh | refused | identifier, state or room that tracking, migration and data queue commands need |
    /// | 0/03h | unknown | names an identifier that two commands have |
    /// | 0/04h to 0/0Ah, 0/1Bh, 0/21h, 0/22h, SCT 2, SCT 3 | unknown | errors and aborts while a command is carried out |
    /// | all others, vendor specific ones among them | unknown | nothing says when they are found |
    #[must_use]
    pub const fn effect(self) -> Effect {
        if self.is_success() {
            return Effect::Succeeded;
        }
        let StatusCode { kind, code } = self.code();
        match (kind, code) {
            (0, 0x01 | 0x02 | 0x0B | 0x0C | 0x13 | 0x15 | 0x23)
            | (1, 0x00..=0x03 | 0x05 | 0x08 | 0x09 | 0x0C..=0x0F | 0x14 | 0x1F | 0x2B | 0x2C | 0x37..=0x3B) => {
                Effect::Refused
            }
            _ => Effect::Unknown,
        }
    }

    /// Status code type and status code.
    #[must_use]
    pub const fn code(self) -> StatusCode {
        StatusCode { kind: ((self.0 >> 8) & 7) as u8, code: (self.0 & 0xFF) as u8 }
    }

    /// Do Not Retry (DNR): the same command would fail again.
    #[must_use]
    pub const fn do_not_retry(self) -> bool {
        self.0 & Self::DO_NOT_RETRY != 0
    }

    /// More (M): the Error Information log has details.
    #[must_use]
    pub const fn more(self) -> bool {
        self.0 & Self::MORE != 0
    }

    /// Command Retry Delay (CRD): 0 none, 1 to 3 select CRDT1 to CRDT3 of Identify Controller.
    #[must_use]
    pub const fn retry_delay(self) -> u8 {
        ((self.0 >> 11) & 3) as u8
    }

    /// This status with Do Not Retry set.
    #[must_use]
    pub const fn with_do_not_retry(self) -> Self {
        Self(self.0 | Self::DO_NOT_RETRY)
    }

    /// This status with More set.
    #[must_use]
    pub const fn with_more(self) -> Self {
        Self(self.0 | Self::MORE)
    }

    /// This status with Command Retry Delay `delay` (0 to 3; higher bits are dropped).
    #[must_use]
    pub const fn with_retry_delay(self, delay: u8) -> Self {
        Self((self.0 & !(3 << 11)) | ((delay as u16 & 3) << 11))
    }
}

impl StatusCode {
    /// A status code type (0 to 7; higher bits are dropped) and a status code.
    #[must_use]
    pub const fn new(kind: u8, code: u8) -> Self {
        Self { kind: kind & 7, code }
    }

    /// Status Code Type (SCT).
    #[must_use]
    pub const fn kind(self) -> u8 {
        self.kind
    }

    /// Status Code (SC).
    #[must_use]
    pub const fn code(self) -> u8 {
        self.code
    }

    /// A status with this code and nothing else set.
    #[must_use]
    pub const fn status(self) -> Status {
        Status(((self.kind as u16) << 8) | self.code as u16)
    }
}

impl From<StatusCode> for Status {
    fn from(code: StatusCode) -> Self {
        code.status()
    }
}

macro_rules! status_codes {
    ($($kind:literal / $code:literal $name:ident $text:literal;)+) => {
        impl StatusCode {
            $(
                #[doc = concat!($text, " (", stringify!($kind), "/", stringify!($code), ").")]
                pub const $name: Self = Self { kind: $kind, code: $code };
            )+

            /// Every status code this crate has a name for.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The specification's name, if the code has one.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match (self.kind, self.code) {
                    $(($kind, $code) => Some($text),)+
                    _ => None,
                }
            }
        }
    };
}

status_codes! {
    0 / 0x00 SUCCESSFUL_COMPLETION "Successful Completion";
    0 / 0x01 INVALID_COMMAND_OPCODE "Invalid Command Opcode";
    0 / 0x02 INVALID_FIELD "Invalid Field in Command";
    0 / 0x03 COMMAND_ID_CONFLICT "Command ID Conflict";
    0 / 0x04 DATA_TRANSFER_ERROR "Data Transfer Error";
    0 / 0x05 ABORTED_POWER_LOSS "Commands Aborted due to Power Loss Notification";
    0 / 0x06 INTERNAL_ERROR "Internal Error";
    0 / 0x07 ABORT_REQUESTED "Command Abort Requested";
    0 / 0x08 ABORTED_SQ_DELETION "Command Aborted due to SQ Deletion";
    0 / 0x09 ABORTED_FAILED_FUSED "Command Aborted due to Failed Fused Command";
    0 / 0x0A ABORTED_MISSING_FUSED "Command Aborted due to Missing Fused Command";
    0 / 0x0B INVALID_NAMESPACE "Invalid Namespace or Format";
    0 / 0x0C COMMAND_SEQUENCE_ERROR "Command Sequence Error";
    0 / 0x0D INVALID_SGL_SEGMENT_DESCRIPTOR "Invalid SGL Segment Descriptor";
    0 / 0x0E INVALID_SGL_DESCRIPTOR_COUNT "Invalid Number of SGL Descriptors";
    0 / 0x0F DATA_SGL_LENGTH_INVALID "Data SGL Length Invalid";
    0 / 0x10 METADATA_SGL_LENGTH_INVALID "Metadata SGL Length Invalid";
    0 / 0x11 SGL_DESCRIPTOR_TYPE_INVALID "SGL Descriptor Type Invalid";
    0 / 0x12 INVALID_CMB_USE "Invalid Use of Controller Memory Buffer";
    0 / 0x13 PRP_OFFSET_INVALID "PRP Offset Invalid";
    0 / 0x14 ATOMIC_WRITE_UNIT_EXCEEDED "Atomic Write Unit Exceeded";
    0 / 0x15 OPERATION_DENIED "Operation Denied";
    0 / 0x16 SGL_OFFSET_INVALID "SGL Offset Invalid";
    0 / 0x18 HOST_IDENTIFIER_INCONSISTENT "Host Identifier Inconsistent Format";
    0 / 0x19 KEEP_ALIVE_EXPIRED "Keep Alive Timer Expired";
    0 / 0x1A KEEP_ALIVE_INVALID "Keep Alive Timeout Invalid";
    0 / 0x1B ABORTED_PREEMPT "Command Aborted due to Preempt and Abort";
    0 / 0x1C SANITIZE_FAILED "Sanitize Failed";
    0 / 0x1D SANITIZE_IN_PROGRESS "Sanitize In Progress";
    0 / 0x1E SGL_GRANULARITY_INVALID "SGL Data Block Granularity Invalid";
    0 / 0x1F NOT_SUPPORTED_FOR_CMB_QUEUE "Command Not Supported for Queue in CMB";
    0 / 0x20 NAMESPACE_WRITE_PROTECTED "Namespace is Write Protected";
    0 / 0x21 COMMAND_INTERRUPTED "Command Interrupted";
    0 / 0x22 TRANSIENT_TRANSPORT_ERROR "Transient Transport Error";
    0 / 0x23 PROHIBITED_BY_LOCKDOWN "Command Prohibited by Command and Feature Lockdown";
    0 / 0x24 ADMIN_MEDIA_NOT_READY "Admin Command Media Not Ready";
    0 / 0x25 INVALID_KEY_TAG "Invalid Key Tag";
    0 / 0x26 HOST_DISPERSED_NOT_ENABLED "Host Dispersed Namespace Support Not Enabled";
    0 / 0x27 HOST_IDENTIFIER_NOT_INITIALIZED "Host Identifier Not Initialized";
    0 / 0x28 INCORRECT_KEY "Incorrect Key";
    0 / 0x29 FDP_DISABLED "FDP Disabled";
    0 / 0x2A INVALID_PLACEMENT_HANDLE_LIST "Invalid Placement Handle List";
    0 / 0x80 LBA_OUT_OF_RANGE "LBA Out of Range";
    0 / 0x81 CAPACITY_EXCEEDED "Capacity Exceeded";
    0 / 0x82 NAMESPACE_NOT_READY "Namespace Not Ready";
    0 / 0x83 RESERVATION_CONFLICT "Reservation Conflict";
    0 / 0x84 FORMAT_IN_PROGRESS "Format In Progress";
    0 / 0x85 INVALID_VALUE_SIZE "Invalid Value Size";
    0 / 0x86 INVALID_KEY_SIZE "Invalid Key Size";
    0 / 0x87 KEY_DOES_NOT_EXIST "KV Key Does Not Exist";
    0 / 0x88 UNRECOVERED_KEY_ERROR "Unrecovered Error";
    0 / 0x89 KEY_EXISTS "Key Exists";
    1 / 0x00 COMPLETION_QUEUE_INVALID "Completion Queue Invalid";
    1 / 0x01 INVALID_QUEUE_IDENTIFIER "Invalid Queue Identifier";
    1 / 0x02 INVALID_QUEUE_SIZE "Invalid Queue Size";
    1 / 0x03 ABORT_LIMIT_EXCEEDED "Abort Command Limit Exceeded";
    1 / 0x05 AER_LIMIT_EXCEEDED "Asynchronous Event Request Limit Exceeded";
    1 / 0x06 INVALID_FIRMWARE_SLOT "Invalid Firmware Slot";
    1 / 0x07 INVALID_FIRMWARE_IMAGE "Invalid Firmware Image";
    1 / 0x08 INVALID_INTERRUPT_VECTOR "Invalid Interrupt Vector";
    1 / 0x09 INVALID_LOG_PAGE "Invalid Log Page";
    1 / 0x0A INVALID_FORMAT "Invalid Format";
    1 / 0x0B FIRMWARE_NEEDS_CONVENTIONAL_RESET "Firmware Activation Requires Conventional Reset";
    1 / 0x0C INVALID_QUEUE_DELETION "Invalid Queue Deletion";
    1 / 0x0D FEATURE_NOT_SAVEABLE "Feature Identifier Not Saveable";
    1 / 0x0E FEATURE_NOT_CHANGEABLE "Feature Not Changeable";
    1 / 0x0F FEATURE_NOT_NAMESPACE_SPECIFIC "Feature Not Namespace Specific";
    1 / 0x10 FIRMWARE_NEEDS_SUBSYSTEM_RESET "Firmware Activation Requires NVM Subsystem Reset";
    1 / 0x11 FIRMWARE_NEEDS_CONTROLLER_RESET "Firmware Activation Requires Controller Level Reset";
    1 / 0x12 FIRMWARE_MAXIMUM_TIME_VIOLATION "Firmware Activation Requires Maximum Time Violation";
    1 / 0x13 FIRMWARE_ACTIVATION_PROHIBITED "Firmware Activation Prohibited";
    1 / 0x14 OVERLAPPING_RANGE "Overlapping Range";
    1 / 0x15 NAMESPACE_INSUFFICIENT_CAPACITY "Namespace Insufficient Capacity";
    1 / 0x16 NAMESPACE_IDENTIFIER_UNAVAILABLE "Namespace Identifier Unavailable";
    1 / 0x18 NAMESPACE_ALREADY_ATTACHED "Namespace Already Attached";
    1 / 0x19 NAMESPACE_IS_PRIVATE "Namespace Is Private";
    1 / 0x1A NAMESPACE_NOT_ATTACHED "Namespace Not Attached";
    1 / 0x1B THIN_PROVISIONING_NOT_SUPPORTED "Thin Provisioning Not Supported";
    1 / 0x1C CONTROLLER_LIST_INVALID "Controller List Invalid";
    1 / 0x1D SELF_TEST_IN_PROGRESS "Device Self-test In Progress";
    1 / 0x1E BOOT_PARTITION_WRITE_PROHIBITED "Boot Partition Write Prohibited";
    1 / 0x1F INVALID_CONTROLLER_IDENTIFIER "Invalid Controller Identifier";
    1 / 0x20 INVALID_SECONDARY_CONTROLLER_STATE "Invalid Secondary Controller State";
    1 / 0x21 INVALID_NUMBER_OF_RESOURCES "Invalid Number of Controller Resources";
    1 / 0x22 INVALID_RESOURCE_IDENTIFIER "Invalid Resource Identifier";
    1 / 0x23 SANITIZE_PROHIBITED_PMR "Sanitize Prohibited While Persistent Memory Region is Enabled";
    1 / 0x24 ANA_GROUP_IDENTIFIER_INVALID "ANA Group Identifier Invalid";
    1 / 0x25 ANA_ATTACH_FAILED "ANA Attach Failed";
    1 / 0x26 INSUFFICIENT_CAPACITY "Insufficient Capacity";
    1 / 0x27 ATTACHMENT_LIMIT_EXCEEDED "Namespace Attachment Limit Exceeded";
    1 / 0x28 PROHIBITION_NOT_SUPPORTED "Prohibition of Command Execution Not Supported";
    1 / 0x29 IO_COMMAND_SET_NOT_SUPPORTED "I/O Command Set Not Supported";
    1 / 0x2A IO_COMMAND_SET_NOT_ENABLED "I/O Command Set Not Enabled";
    1 / 0x2B IO_COMMAND_SET_COMBINATION_REJECTED "I/O Command Set Combination Rejected";
    1 / 0x2C INVALID_IO_COMMAND_SET "Invalid I/O Command Set";
    1 / 0x2D IDENTIFIER_UNAVAILABLE "Identifier Unavailable";
    1 / 0x2E NAMESPACE_IS_DISPERSED "Namespace Is Dispersed";
    1 / 0x37 INVALID_CDQ "Invalid Controller Data Queue";
    1 / 0x38 NOT_ENOUGH_RESOURCES "Not Enough Resources";
    1 / 0x39 CONTROLLER_SUSPENDED "Controller Suspended";
    1 / 0x3A CONTROLLER_NOT_SUSPENDED "Controller Not Suspended";
    1 / 0x3B CDQ_FULL "Controller Data Queue Full";
    1 / 0x80 CONFLICTING_ATTRIBUTES "Conflicting Attributes";
    1 / 0x81 INVALID_PROTECTION_INFORMATION "Invalid Protection Information";
    1 / 0x82 WRITE_TO_READ_ONLY_RANGE "Attempted Write to Read Only Range";
    1 / 0x83 COMMAND_SIZE_LIMIT_EXCEEDED "Command Size Limit Exceeded";
    1 / 0x84 INVALID_COMMAND_ID "Invalid Command ID";
    1 / 0x85 INCOMPATIBLE_NAMESPACE "Incompatible Namespace or Format";
    1 / 0x86 FAST_COPY_NOT_POSSIBLE "Fast Copy Not Possible";
    1 / 0x87 OVERLAPPING_IO_RANGE "Overlapping I/O Range";
    1 / 0x88 NAMESPACE_NOT_REACHABLE "Namespace Not Reachable";
    1 / 0x89 INSUFFICIENT_RESOURCES "Insufficient Resources";
    1 / 0x9C SUCCESSFUL_MEDIA_VERIFICATION "Successful Media Verification Read";
    1 / 0xB8 ZONED_BOUNDARY_ERROR "Zoned Boundary Error";
    1 / 0xB9 ZONE_IS_FULL "Zone Is Full";
    1 / 0xBA ZONE_IS_READ_ONLY "Zone Is Read Only";
    1 / 0xBB ZONE_IS_OFFLINE "Zone Is Offline";
    1 / 0xBC ZONE_INVALID_WRITE "Zone Invalid Write";
    1 / 0xBD TOO_MANY_ACTIVE_ZONES "Too Many Active Zones";
    1 / 0xBE TOO_MANY_OPEN_ZONES "Too Many Open Zones";
    1 / 0xBF INVALID_ZONE_STATE_TRANSITION "Invalid Zone State Transition";
    2 / 0x80 WRITE_FAULT "Write Fault";
    2 / 0x81 UNRECOVERED_READ_ERROR "Unrecovered Read Error";
    2 / 0x82 GUARD_CHECK_ERROR "End-to-end Guard Check Error";
    2 / 0x83 APPLICATION_TAG_CHECK_ERROR "End-to-end Application Tag Check Error";
    2 / 0x84 REFERENCE_TAG_CHECK_ERROR "End-to-end Reference Tag Check Error";
    2 / 0x85 COMPARE_FAILURE "Compare Failure";
    2 / 0x86 ACCESS_DENIED "Access Denied";
    2 / 0x87 DEALLOCATED_OR_UNWRITTEN "Deallocated or Unwritten Logical Block";
    2 / 0x88 STORAGE_TAG_CHECK_ERROR "End-to-end Storage Tag Check Error";
    3 / 0x00 INTERNAL_PATH_ERROR "Internal Path Error";
    3 / 0x01 ANA_PERSISTENT_LOSS "Asymmetric Access Persistent Loss";
    3 / 0x02 ANA_INACCESSIBLE "Asymmetric Access Inaccessible";
    3 / 0x03 ANA_TRANSITION "Asymmetric Access Transition";
    3 / 0x60 CONTROLLER_PATHING_ERROR "Controller Pathing Error";
    3 / 0x70 HOST_PATHING_ERROR "Host Pathing Error";
    3 / 0x71 ABORTED_BY_HOST "Command Aborted By Host";
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({}/{:02X}h)", self.kind, self.code),
            None => write!(f, "unnamed status ({}/{:02X}h)", self.kind, self.code),
        }
    }
}

impl fmt::Debug for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code())?;
        if self.do_not_retry() {
            f.write_str(", do not retry")?;
        }
        if self.more() {
            f.write_str(", more in the error log")?;
        }
        match self.retry_delay() {
            0 => Ok(()),
            delay => write!(f, ", retry after CRDT{delay}"),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
