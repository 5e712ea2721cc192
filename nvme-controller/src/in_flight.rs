// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands between fetch and completion, in the order of their fetch.

use nvme_core::ring;
use nvme_core::wire::{CommandId, Status, SubmissionQueueEntry};

/// Room for one fetched command. One slot more than the commands to hold is needed.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommandSlot {
    pub(crate) entry: SubmissionQueueEntry,
    pub(crate) queue: u16,
    pub(crate) stage: Stage,
    pub(crate) mark: Mark,
}

impl CommandSlot {
    /// An empty slot.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Holds no command.
    #[default]
    Free,
    /// Fetched, not begun.
    Fetched,
    /// Its fate is known before its turn: it completes with this status.
    Decided(Status),
    /// Begun; completes when what it waits for has happened.
    Waiting,
    /// Executed; a fault rule holds its completion back, in the held slot with this number.
    Held(u16),
}

/// What fault rules have to do with a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mark {
    /// They have not been asked.
    #[default]
    Unasked,
    /// None acts any more.
    Asked,
    /// The one with this number acts when the command completes.
    Rule(u16),
}

/// The fetched commands of one controller: a ring that may have holes where later commands finished first.
#[derive(Debug)]
pub(crate) struct InFlight<'s> {
    slots: &'s mut [CommandSlot],
    head: u32,
    tail: u32,
}

impl<'s> InFlight<'s> {
    pub(crate) fn new(slots: &'s mut [CommandSlot]) -> Self {
        slots.fill(CommandSlot::default());
        Self { slots, head: 0, tail: 0 }
    }

    fn size(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn room(&self) -> u32 {
        ring::free(self.head, self.tail, self.size())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Takes a command in; the caller has asked for [`room`](Self::room).
    pub(crate) fn push(&mut self, queue: u16, entry: &SubmissionQueueEntry) {
        let size = self.size();
        if let Some(slot) = self.slots.get_mut(self.tail as usize) {
            *slot = CommandSlot { entry: *entry, queue, stage: Stage::Fetched, mark: Mark::Unasked };
            self.tail = ring::next(self.tail, size);
        }
    }

    pub(crate) fn first(&self) -> u32 {
        self.head
    }

    pub(crate) fn end(&self) -> u32 {
        self.tail
    }

    pub(crate) fn after(&self, index: u32) -> u32 {
        ring::next(index, self.size())
    }

    pub(crate) fn get(&self, index: u32) -> Option<&CommandSlot> {
        self.slots.get(index as usize)
    }

    pub(crate) fn set_stage(&mut self, index: u32, stage: Stage) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.stage = stage;
        }
    }

    pub(crate) fn set_mark(&mut self, index: u32, mark: Mark) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.mark = mark;
        }
    }

    /// Whether a command with this stage is among them. Bounded by the number of slots.
    pub(crate) fn has(&self, stage: Stage) -> bool {
        self.slots.iter().any(|slot| slot.stage == stage)
    }

    /// Moves commands together, order kept, if the oldest one lasts: else one that never ends would take up the ring.
    pub(crate) fn close_gaps(&mut self) {
        if !self.get(self.head).is_some_and(|slot| matches!(slot.stage, Stage::Waiting | Stage::Held(_))) {
            return;
        }
        let (size, end) = (self.size(), self.tail);
        let (mut from, mut to) = (self.head, self.head);
        while from != end {
            if self.get(from).is_some_and(|slot| slot.stage != Stage::Free) {
                // Refused only where both are the same slot.
                if let Ok([one, other]) = self.slots.get_disjoint_mut([from as usize, to as usize]) {
                    core::mem::swap(one, other);
                }
                to = ring::next(to, size);
            }
            from = ring::next(from, size);
        }
        self.tail = to;
    }

    /// Ends the command at `index`. The head moves past finished commands.
    pub(crate) fn finish(&mut self, index: u32) {
        self.set_stage(index, Stage::Free);
        let size = self.size();
        while self.head != self.tail
            && self.slots.get(self.head as usize).is_some_and(|slot| slot.stage == Stage::Free)
        {
            self.head = ring::next(self.head, size);
        }
    }

    /// Index of the command of `queue` with identifier `command`. Bounded by the number of slots.
    pub(crate) fn find(&self, queue: u16, command: CommandId) -> Option<u32> {
        let mut index = self.head;
        while index != self.tail {
            if self.get(index).is_some_and(|slot| {
                slot.stage != Stage::Free && slot.queue == queue && slot.entry.command_id() == command
            }) {
                return Some(index);
            }
            index = self.after(index);
        }
        None
    }

    /// Forgets all commands.
    pub(crate) fn clear(&mut self) {
        self.slots.fill(CommandSlot::default());
        self.head = 0;
        self.tail = 0;
    }
}
