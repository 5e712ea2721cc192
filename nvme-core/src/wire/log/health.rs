// SPDX-License-Identifier: MIT OR Apache-2.0
//! SMART / Health Information (02h). NVMe Base 2.1 §5.1.12.1.3.

use bitflags::bitflags;
use zerocopy::byteorder::little_endian::{U16, U32, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

bitflags! {
    /// Critical Warning: what is wrong now.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct CriticalWarning: u8 {
        /// Available spare is below its threshold.
        const SPARE_BELOW_THRESHOLD = 1 << 0;
        /// A temperature is beyond a threshold.
        const TEMPERATURE = 1 << 1;
        /// Reliability is degraded.
        const RELIABILITY_DEGRADED = 1 << 2;
        /// The media is read only.
        const READ_ONLY = 1 << 3;
        /// The backup of volatile memory failed.
        const VOLATILE_BACKUP_FAILED = 1 << 4;
        /// The Persistent Memory Region is unreliable.
        const PERSISTENT_MEMORY_UNRELIABLE = 1 << 5;
        /// Unknown bits are retained.
        const _ = !0;
    }
}

/// The page as it stands in memory: 512 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct SmartHealthInformationData {
    critical_warning: u8,
    temperature: [u8; 2],
    available_spare: u8,
    spare_threshold: u8,
    percentage_used: u8,
    endurance_group_warning: u8,
    reserved7: [u8; 25],
    data_units_read: U128,
    data_units_written: U128,
    host_reads: U128,
    host_writes: U128,
    busy_minutes: U128,
    power_cycles: U128,
    power_on_hours: U128,
    unsafe_shutdowns: U128,
    media_errors: U128,
    error_entries: U128,
    warning_temperature_minutes: U32,
    critical_temperature_minutes: U32,
    sensors: [U16; 8],
    reserved216: [u8; 296],
}
static_assertions::const_assert_eq!(size_of::<SmartHealthInformationData>(), 512);

/// Health of the controller or a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SmartHealthInformation {
    /// What is wrong now.
    pub critical_warning: CriticalWarning,
    /// Composite temperature in kelvin.
    pub temperature: u16,
    /// Spare capacity left, in percent.
    pub available_spare: u8,
    /// Spare capacity below which a warning is given, in percent.
    pub spare_threshold: u8,
    /// Endurance used, in percent; may be above 100, 255 stands for more than 254.
    pub percentage_used: u8,
    /// Endurance Group Critical Warning Summary.
    pub endurance_group_warning: u8,
    /// Data read, in units of 1,000 times 512 bytes, rounded up.
    pub data_units_read: u128,
    /// Data written, in units of 1,000 times 512 bytes, rounded up.
    pub data_units_written: u128,
    /// Read commands completed.
    pub host_reads: u128,
    /// Write commands completed.
    pub host_writes: u128,
    /// Minutes busy with I/O commands.
    pub busy_minutes: u128,
    /// Power cycles.
    pub power_cycles: u128,
    /// Hours powered on.
    pub power_on_hours: u128,
    /// Shutdowns that were not announced.
    pub unsafe_shutdowns: u128,
    /// Errors of media and data integrity.
    pub media_errors: u128,
    /// Entries ever made in the Error Information log.
    pub error_entries: u128,
    /// Minutes above the warning temperature.
    pub warning_temperature_minutes: u32,
    /// Minutes above the critical temperature.
    pub critical_temperature_minutes: u32,
    /// Temperature sensors 1 to 8 in kelvin, 0 where there is none.
    pub sensors: [u16; 8],
}

impl From<&SmartHealthInformationData> for SmartHealthInformation {
    fn from(data: &SmartHealthInformationData) -> Self {
        Self {
            critical_warning: CriticalWarning::from_bits_retain(data.critical_warning),
            temperature: u16::from_le_bytes(data.temperature),
            available_spare: data.available_spare,
            spare_threshold: data.spare_threshold,
            percentage_used: data.percentage_used,
            endurance_group_warning: data.endurance_group_warning,
            data_units_read: data.data_units_read.get(),
            data_units_written: data.data_units_written.get(),
            host_reads: data.host_reads.get(),
            host_writes: data.host_writes.get(),
            busy_minutes: data.busy_minutes.get(),
            power_cycles: data.power_cycles.get(),
            power_on_hours: data.power_on_hours.get(),
            unsafe_shutdowns: data.unsafe_shutdowns.get(),
            media_errors: data.media_errors.get(),
            error_entries: data.error_entries.get(),
            warning_temperature_minutes: data.warning_temperature_minutes.get(),
            critical_temperature_minutes: data.critical_temperature_minutes.get(),
            sensors: data.sensors.map(|sensor| sensor.get()),
        }
    }
}

impl From<&SmartHealthInformation> for SmartHealthInformationData {
    fn from(health: &SmartHealthInformation) -> Self {
        Self {
            critical_warning: health.critical_warning.bits(),
            temperature: health.temperature.to_le_bytes(),
            available_spare: health.available_spare,
            spare_threshold: health.spare_threshold,
            percentage_used: health.percentage_used,
            endurance_group_warning: health.endurance_group_warning,
            reserved7: [0; 25],
            data_units_read: U128::new(health.data_units_read),
            data_units_written: U128::new(health.data_units_written),
            host_reads: U128::new(health.host_reads),
            host_writes: U128::new(health.host_writes),
            busy_minutes: U128::new(health.busy_minutes),
            power_cycles: U128::new(health.power_cycles),
            power_on_hours: U128::new(health.power_on_hours),
            unsafe_shutdowns: U128::new(health.unsafe_shutdowns),
            media_errors: U128::new(health.media_errors),
            error_entries: U128::new(health.error_entries),
            warning_temperature_minutes: U32::new(health.warning_temperature_minutes),
            critical_temperature_minutes: U32::new(health.critical_temperature_minutes),
            sensors: health.sensors.map(U16::new),
            reserved216: [0; 296],
        }
    }
}
