// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a world is like, and how it may end.

use nvme_core::cdq::QueueLayout;
use nvme_core::migration::{DataPath, MigrationStep, Summary};

use super::WorldOutcome;
use super::guest::GuestFigures;

/// How a controller is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Its own driver clears CC.EN and enables it again later.
    ByDriver,
    /// A function level reset behind the back of its driver.
    Function,
    /// A reset of the whole subsystem.
    Subsystem,
}

/// Something that happens when the migration first reaches a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The migration is cancelled.
    Cancel,
    /// The source's managing controller is reset.
    SourceManager(Reset),
    /// The destination's managing controller is reset.
    DestinationManager(Reset),
    /// The guest resets its controller.
    Guest,
    /// The guest's controller at the source has a function level reset.
    SourceFunction,
    /// The guest's controller at the destination has a function level reset.
    DestinationFunction,
}

/// What a world is like.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// Blocks of the namespace.
    pub blocks: u32,
    /// Slots of the Controller Data Queue.
    pub cdq_entries: u32,
    /// How they lie in memory.
    pub cdq_layout: QueueLayout,
    /// Publish the head after so many entries; 0 for the default policy.
    pub head_every: u32,
    /// Copied or shared medium.
    pub data: DataPath,
    /// Most delta rounds.
    pub max_rounds: u32,
    /// The suspension deletes the queue.
    pub delete_with_suspend: bool,
    /// Both sides offer the vendor format of the controller state; without it the platform restores the properties.
    pub vendor_state_format: bool,
    /// The suspended marker comes after the completion of the Suspend.
    pub marker_after_completion: bool,
    /// Ask which blocks are allocated instead of copying all.
    pub by_allocation: bool,
    /// Compare both sides before the destination resumes.
    pub compares: bool,
    /// Commands of the guest before, during at most, and after the migration.
    pub commands: [u64; 3],
    /// What happens when a step is first reached.
    pub events: Vec<(MigrationStep, Event)>,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            blocks: 256,
            cdq_entries: 16,
            cdq_layout: QueueLayout::Contiguous,
            head_every: 4,
            data: DataPath::Copy,
            max_rounds: 4,
            delete_with_suspend: false,
            vendor_state_format: true,
            marker_after_completion: false,
            by_allocation: true,
            compares: true,
            commands: [40, 120, 40],
            events: Vec::new(),
        }
    }
}

/// How a run ended. There is no fourth way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The guest runs at the destination, which was equal to the source at the switch, and every block holds what it
    /// must.
    Verified,
    /// The guest runs at the source, where every block holds what it must; the destination is disabled and no memory
    /// for changes is left.
    RolledBackSourceWhole,
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How it ended.
    pub verdict: Verdict,
    /// How the migration ended, before its host put right what was left.
    pub outcome: WorldOutcome,
    /// The steps it went through.
    pub steps: Vec<MigrationStep>,
    /// What it did.
    pub summary: Summary,
    /// Polls of the migration.
    pub polls: u64,
    /// Turns altogether.
    pub turns: u64,
    /// What the guest saw.
    pub guest: GuestFigures,
    /// Commands that the guest completed after the migration.
    pub completed_after: u64,
    /// A managing controller was reset to end what the migration could not.
    pub managers_reset: u32,
}

/// What must not happen did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}
