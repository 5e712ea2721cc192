// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values of the features of one controller. NVMe Base 2.1 §5.1.25, Set Features command.

/// Composite temperature over which a warning would be given, in Kelvin.
pub(crate) const TEMPERATURE_THRESHOLD: u32 = 0x0157;
/// Bytes of Host Behavior Support that are kept.
pub(crate) const HOST_BEHAVIOR_BYTES: usize = 8;

/// The features that may be set; all return to these defaults at a controller level reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    /// Dword 11 of Arbitration.
    pub(crate) arbitration: u32,
    /// Power state in use.
    pub(crate) power: u32,
    /// Over temperature threshold, composite.
    pub(crate) over_temperature: u16,
    /// Under temperature threshold, composite.
    pub(crate) under_temperature: u16,
    pub(crate) write_cache: bool,
    /// Number of Queues as granted: completion queues in the high half, zero-based; `None` until it was set.
    pub(crate) queues: Option<u32>,
    /// Dword 11 of Interrupt Coalescing; kept, but completions are not delayed.
    pub(crate) coalescing: u32,
    pub(crate) events: u32,
    /// Keep Alive Timeout in milliseconds, 0 for none.
    pub(crate) keep_alive: u32,
    pub(crate) host_behavior: [u8; HOST_BEHAVIOR_BYTES],
}

impl Features {
    /// The values after a reset.
    pub(crate) const fn reset(write_cache: bool) -> Self {
        Self {
            // Bursts of up to eight commands.
            arbitration: 3,
            power: 0,
            over_temperature: TEMPERATURE_THRESHOLD as u16,
            under_temperature: 0,
            write_cache,
            queues: None,
            coalescing: 0,
            events: 0,
            keep_alive: 0,
            host_behavior: [0; HOST_BEHAVIOR_BYTES],
        }
    }

    /// Commands fetched from one queue before the next has its turn; `None` for no limit.
    pub(crate) const fn burst(&self) -> Option<u32> {
        match self.arbitration & 7 {
            7 => None,
            shift => Some(1 << shift),
        }
    }
}
