// SPDX-License-Identifier: MIT OR Apache-2.0
//! Log pages. NVMe Base 2.1 §5.1.12.1.

use super::open::open_value;

open_value! {
    /// Log Page Identifier (LID).
    LogPageId(u8) {
        ERROR_INFORMATION = 0x01, "Error Information";
        SMART_HEALTH_INFORMATION = 0x02, "SMART / Health Information";
        FIRMWARE_SLOT_INFORMATION = 0x03, "Firmware Slot Information";
        CHANGED_ATTACHED_NAMESPACE_LIST = 0x04, "Changed Attached Namespace List";
        COMMANDS_SUPPORTED_AND_EFFECTS = 0x05, "Commands Supported and Effects";
        FEATURE_IDENTIFIERS_SUPPORTED_AND_EFFECTS = 0x12, "Feature Identifiers Supported and Effects";
    }
}
