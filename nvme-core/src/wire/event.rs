// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asynchronous events as an Asynchronous Event Request completes with them. NVMe Base 2.1 §5.1.2.

use super::{CdqId, CompletionQueueEntry};

/// Asynchronous Event Type (AET).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventType(u8);

impl EventType {
    /// Error; cleared by reading log 01h.
    pub const ERROR: Self = Self(0);
    /// SMART / health; cleared by reading log 02h.
    pub const HEALTH: Self = Self(1);
    /// Notice; cleared by reading the page named.
    pub const NOTICE: Self = Self(2);
    /// Immediate; dropped if no request is outstanding, never masked.
    pub const IMMEDIATE: Self = Self(3);
    /// One-shot; cleared when reported, never masked. The Controller Data Queue events are of this type.
    pub const ONE_SHOT: Self = Self(4);
    /// I/O command set specific.
    pub const IO_COMMAND_SET: Self = Self(6);
    /// Vendor specific.
    pub const VENDOR: Self = Self(7);

    /// The type with number `bits` (0 to 7; higher bits are dropped).
    #[must_use]
    pub const fn new(bits: u8) -> Self {
        Self(bits & 7)
    }

    /// The type's number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether reporting an event of this type masks the type until its log page is read.
    #[must_use]
    pub const fn is_masked_when_reported(self) -> bool {
        !matches!(self, Self::IMMEDIATE | Self::ONE_SHOT)
    }
}

/// One reported event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsynchronousEvent {
    /// What kind of event.
    pub kind: EventType,
    /// Asynchronous Event Information (AEI), meaning depends on `kind`.
    pub information: u8,
    /// Log page that clears the event; zero for one-shot events, which have none.
    pub log_page: u8,
    /// Event Specific Parameter (DW1).
    pub parameter: u32,
}

/// An event of a Controller Data Queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CdqEvent {
    /// An entry was posted in the slot that the tail pointer trigger names.
    TailPointer(CdqId),
    /// The queue became full and the controller stopped logging.
    Full(CdqId),
}

impl AsynchronousEvent {
    /// The event that the completion of an Asynchronous Event Request carries.
    #[must_use]
    pub const fn from_completion(entry: &CompletionQueueEntry) -> Self {
        let dw0 = entry.dw0();
        Self {
            kind: EventType::new((dw0 & 7) as u8),
            information: ((dw0 >> 8) & 0xFF) as u8,
            log_page: ((dw0 >> 16) & 0xFF) as u8,
            parameter: entry.dw1(),
        }
    }

    /// Completion dwords 0 and 1.
    #[must_use]
    pub const fn result(&self) -> (u32, u32) {
        let dw0 = self.kind.get() as u32 | ((self.information as u32) << 8) | ((self.log_page as u32) << 16);
        (dw0, self.parameter)
    }

    /// The Controller Data Queue event this is, if it is one.
    #[must_use]
    pub const fn controller_data_queue(&self) -> Option<CdqEvent> {
        let queue = CdqId::new((self.parameter & 0xFFFF) as u16);
        match (self.kind, self.information) {
            (EventType::ONE_SHOT, 0) => Some(CdqEvent::TailPointer(queue)),
            (EventType::ONE_SHOT, 1) => Some(CdqEvent::Full(queue)),
            _ => None,
        }
    }
}

impl CdqEvent {
    /// The queue the event is about.
    #[must_use]
    pub const fn queue(self) -> CdqId {
        match self {
            Self::TailPointer(queue) | Self::Full(queue) => queue,
        }
    }
}

impl From<CdqEvent> for AsynchronousEvent {
    fn from(event: CdqEvent) -> Self {
        let information = match event {
            CdqEvent::TailPointer(_) => 0,
            CdqEvent::Full(_) => 1,
        };
        Self {
            kind: EventType::ONE_SHOT,
            information,
            log_page: 0,
            parameter: u32::from(event.queue().get()),
        }
    }
}
