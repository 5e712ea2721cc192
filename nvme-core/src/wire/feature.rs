// SPDX-License-Identifier: MIT OR Apache-2.0
//! Features: typed forms of what Set Features and Get Features carry. NVMe Base 2.1 §5.1.25.1.

use super::open::open_value;

open_value! {
    /// Feature Identifier (FID). NVMe Base 2.1 Figure 385.
    FeatureId(u8) {
        ARBITRATION = 0x01, "Arbitration";
        POWER_MANAGEMENT = 0x02, "Power Management";
        TEMPERATURE_THRESHOLD = 0x04, "Temperature Threshold";
        VOLATILE_WRITE_CACHE = 0x06, "Volatile Write Cache";
        NUMBER_OF_QUEUES = 0x07, "Number of Queues";
        INTERRUPT_COALESCING = 0x08, "Interrupt Coalescing";
        INTERRUPT_VECTOR_CONFIGURATION = 0x09, "Interrupt Vector Configuration";
        ASYNCHRONOUS_EVENT_CONFIGURATION = 0x0B, "Asynchronous Event Configuration";
        HOST_MEMORY_BUFFER = 0x0D, "Host Memory Buffer";
        TIMESTAMP = 0x0E, "Timestamp";
        KEEP_ALIVE_TIMER = 0x0F, "Keep Alive Timer";
        HOST_BEHAVIOR_SUPPORT = 0x16, "Host Behavior Support";
        IO_COMMAND_SET_PROFILE = 0x19, "I/O Command Set Profile";
        CONTROLLER_DATA_QUEUE = 0x21, "Controller Data Queue";
        SOFTWARE_PROGRESS_MARKER = 0x80, "Software Progress Marker";
        HOST_IDENTIFIER = 0x81, "Host Identifier";
        RESERVATION_NOTIFICATION_MASK = 0x82, "Reservation Notification Mask";
        RESERVATION_PERSISTENCE = 0x83, "Reservation Persistence";
        NAMESPACE_WRITE_PROTECTION = 0x84, "Namespace Write Protection Configuration";
        BOOT_PARTITION_WRITE_PROTECTION = 0x85, "Boot Partition Write Protection Configuration";
    }
}
