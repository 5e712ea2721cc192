// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a Controller Data Queue: phase, head and lap.

use super::log::{LogEvent, LogState, LogViolation, Malformed};
use super::memory::CdqMemory;
use crate::dirty::{DirtySet, MarkError};
use crate::dma::DmaArena;
use crate::ring::PhaseConsumer;
use crate::wire::cdq::ENTRY_BYTES;
use crate::wire::lba_migration::{Change, EntrySequence, LbaMigrationEntry, LbaMigrationQueueEntry};

/// The phase tag in an entry's last dword: the lowest bit of its highest byte.
const PHASE_BIT: u32 = 1 << 24;

/// Reads the entries of one queue as events of one tracked controller.
///
/// It owns the head, the lap and with it the phase tag that a new entry carries; nobody else sees queue memory.
/// After an overflow the entries that are still in the queue, the marker itself among them, stay readable.
#[derive(Debug)]
pub struct CdqReader {
    consumer: PhaseConsumer,
    state: LogState,
    pending: Option<LogEvent>,
    entries: u64,
    overflows: u64,
    violations: u64,
    /// The first rule broken since the flag was last taken.
    violation: Option<LogViolation>,
}

/// What one drain found. A batch can hold several markers; each flag says whether one was among them.
#[must_use = "markers and violations decide how the migration goes on"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Entries taken.
    pub entries: u32,
    /// Blocks reported as changed, counted as often as reported.
    pub blocks: u64,
    /// Whether no new entry was left.
    pub empty: bool,
    /// The log started, or went on after a suspension.
    pub started: bool,
    /// Logging stopped at the host's request.
    pub stopped: bool,
    /// The tracked controller is suspended and the log complete up to there.
    pub suspended: bool,
    /// Changes were lost: the dirty set has turned into "everything".
    pub overflowed: bool,
    /// The log broke its rules: the dirty set has turned into "everything".
    pub violation: Option<LogViolation>,
    /// A change lies outside the namespaces that the dirty set knows; of several the worst one.
    pub unknown: Option<MarkError>,
}

impl Drained {
    #[inline]
    const fn note(&mut self, event: LogEvent) {
        match event {
            LogEvent::Changed { blocks, .. } => self.blocks = self.blocks.saturating_add(blocks),
            LogEvent::AllChanged { .. } => {}
            LogEvent::LogStarted => self.started = true,
            LogEvent::LogStopped => self.stopped = true,
            LogEvent::Suspended => self.suspended = true,
            LogEvent::Overflowed => self.overflowed = true,
        }
    }
}

impl CdqReader {
    /// The reader of a fresh queue of `entries` slots.
    #[must_use]
    pub const fn new(entries: u32) -> Self {
        Self {
            consumer: PhaseConsumer::new(entries),
            state: LogState::Idle,
            pending: None,
            entries: 0,
            overflows: 0,
            violations: 0,
            violation: None,
        }
    }

    /// The slot that the next entry will be found in: every slot before it has been read.
    #[must_use]
    pub const fn head(&self) -> u32 {
        self.consumer.head()
    }

    /// Where the log stands.
    #[must_use]
    pub const fn state(&self) -> LogState {
        self.state
    }

    /// Entries read so far.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// Overflow markers read so far.
    #[must_use]
    pub const fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Entries read so far that broke the rules of the log.
    #[must_use]
    pub const fn violations(&self) -> u64 {
        self.violations
    }

    /// The first broken rule since the last call: if there is one, everything has to be copied again.
    #[must_use]
    pub const fn take_violation(&mut self) -> Option<LogViolation> {
        self.violation.take()
    }

    /// Whether a new entry is in the queue.
    pub fn is_ready<A: DmaArena + ?Sized>(&self, memory: &CdqMemory, arena: &A) -> bool {
        self.pending.is_some() || self.peek(memory, arena).is_some()
    }

    /// The next event, `None` if no new entry is in the queue. Never waits; reads at most `limit` entries that carry
    /// no event, so a call is bounded.
    pub fn next<A: DmaArena + ?Sized>(
        &mut self,
        memory: &CdqMemory,
        arena: &A,
        limit: u32,
    ) -> Option<LogEvent> {
        if let Some(event) = self.pending.take() {
            return Some(event);
        }
        for _ in 0..limit {
            let entry = self.entry(memory, arena)?;
            let decoded = self.decode(entry);
            let [first, second] = decoded;
            if let Some(event) = first {
                self.pending = second;
                return Some(event);
            }
            if second.is_some() {
                return second;
            }
        }
        None
    }

    /// Reads at most `limit` entries into `dirty`.
    ///
    /// Overflow, a broken rule, and the start of a log after either turn the set into "everything": what changed in
    /// between is unknown.
    #[inline]
    pub fn drain<A: DmaArena + ?Sized>(
        &mut self,
        memory: &CdqMemory,
        arena: &A,
        dirty: &mut DirtySet<'_, '_>,
        limit: u32,
    ) -> Drained {
        let mut drained = Drained::default();
        if let Some(event) = self.pending.take() {
            self.apply(event, dirty, &mut drained);
        }
        while drained.entries < limit {
            let before = self.state;
            let Some(entry) = self.entry(memory, arena) else {
                drained.empty = true;
                break;
            };
            drained.entries = drained.entries.wrapping_add(1);
            if let (LogState::Logging, Ok(ordinary)) = (before, &entry)
                && let (EntrySequence::Ordinary, Change::Range { namespace, start, blocks, .. }) =
                    (ordinary.sequence, ordinary.change)
            {
                // Nearly every entry is one of these and changes nothing but the map.
                drained.blocks = drained.blocks.saturating_add(blocks);
                if let Err(error) = dirty.mark(namespace, start, blocks) {
                    drained.unknown = Some(error.worst(drained.unknown));
                }
                continue;
            }
            let violations = self.violations;
            for event in self.decode(entry).into_iter().flatten() {
                self.apply(event, dirty, &mut drained);
                if event == LogEvent::LogStarted && before != LogState::Idle && before != LogState::Suspended
                {
                    dirty.mark_all();
                }
            }
            if self.violations != violations {
                drained.violation = drained.violation.or(self.violation);
                dirty.mark_all();
            }
        }
        drained
    }

    /// Reads at most `limit` entries and hands every event to `each`, in order.
    pub fn events<A: DmaArena + ?Sized>(
        &mut self,
        memory: &CdqMemory,
        arena: &A,
        limit: u32,
        mut each: impl FnMut(LogEvent),
    ) -> Drained {
        let mut drained = Drained::default();
        if let Some(event) = self.pending.take() {
            drained.note(event);
            each(event);
        }
        while drained.entries < limit {
            let Some(entry) = self.entry(memory, arena) else {
                drained.empty = true;
                break;
            };
            drained.entries = drained.entries.wrapping_add(1);
            let violations = self.violations;
            for event in self.decode(entry).into_iter().flatten() {
                drained.note(event);
                each(event);
            }
            if self.violations != violations {
                drained.violation = drained.violation.or(self.violation);
            }
        }
        drained
    }

    #[inline]
    fn apply(&mut self, event: LogEvent, dirty: &mut DirtySet<'_, '_>, drained: &mut Drained) {
        drained.note(event);
        match event {
            LogEvent::Changed { namespace, start, blocks, .. } => {
                if let Err(error) = dirty.mark(namespace, start, blocks) {
                    drained.unknown = Some(error.worst(drained.unknown));
                }
            }
            LogEvent::AllChanged { namespace } => {
                if let Err(error) = dirty.mark_namespace(namespace) {
                    drained.unknown = Some(error.worst(drained.unknown));
                }
            }
            LogEvent::Overflowed => dirty.mark_all(),
            LogEvent::LogStarted | LogEvent::LogStopped | LogEvent::Suspended => {}
        }
    }

    /// The entry at the head, if it is a new one.
    #[inline]
    fn peek<A: DmaArena + ?Sized>(&self, memory: &CdqMemory, arena: &A) -> Option<[u8; 32]> {
        let slots = memory.slots();
        let offset = (self.consumer.head() as usize).wrapping_mul(ENTRY_BYTES as usize);
        let end = offset.wrapping_add(ENTRY_BYTES as usize);
        arena.acquire(slots, end.wrapping_sub(4)..end);
        // The controller writes the dword with the phase tag last; nothing of the entry is read before it.
        let words = slots.read_entry::<8>(offset, |last| {
            let new = self.consumer.is_new(last & PHASE_BIT != 0);
            if new {
                // An arena may have copied the entry, or a cache fetched it, before the tag came.
                arena.acquire(slots, offset..end);
            }
            new
        });
        words.ok().flatten().map(|words| zerocopy::transmute!(words))
    }

    /// Copies the next new entry out and moves past it.
    #[inline]
    fn entry<A: DmaArena + ?Sized>(
        &mut self,
        memory: &CdqMemory,
        arena: &A,
    ) -> Option<Result<LbaMigrationEntry, Malformed>> {
        let entry = LbaMigrationQueueEntry::from_bytes(&self.peek(memory, arena)?);
        self.consumer.advance();
        self.entries = self.entries.wrapping_add(1);
        Some(
            LbaMigrationEntry::parse(&entry)
                .map_err(|error| Malformed { error, sequence: entry.sequence().ok() }),
        )
    }

    fn decode(&mut self, entry: Result<LbaMigrationEntry, Malformed>) -> [Option<LogEvent>; 2] {
        let decoded = self.state.take(entry);
        if decoded.violation.is_some() {
            self.violations = self.violations.wrapping_add(1);
            self.violation = self.violation.or(decoded.violation);
        }
        if self.state == LogState::Overflowed && decoded.events.contains(&Some(LogEvent::Overflowed)) {
            self.overflows = self.overflows.wrapping_add(1);
        }
        decoded.events
    }
}
