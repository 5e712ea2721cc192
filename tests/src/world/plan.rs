// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a world is like, and how it may end.

use nvme_controller::fault::{FaultAction, FaultRule};
use nvme_core::cdq::QueueLayout;
use nvme_core::migration::{DataPath, MigrationStep, Summary};

use super::WorldOutcome;
use super::guest::GuestFigures;

/// How a controller is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Its own driver disables it and enables it again at once.
    ByDriver,
    /// Its own driver disables it, and enables it again when the migration has ended.
    Disabled,
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
    /// The guest sends admin commands before and during the migration, and after it.
    pub administers: [bool; 2],
    /// The platform takes the source controller's access to memory away before the last look at it.
    pub fences: bool,
    /// What happens once a step is reached.
    pub events: Vec<(MigrationStep, Event)>,
    /// Polls of the migration from when a step is reached until its events happen.
    pub event_delay: u64,
    /// What the controllers of the source and of the destination do wrong.
    pub rules: [Vec<FaultRule>; 2],
    /// The rules hold from the start instead of from when everything is up.
    pub faulty_from_the_start: bool,
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
            administers: [true; 2],
            fences: true,
            events: Vec::new(),
            event_delay: 0,
            rules: [Vec::new(), Vec::new()],
            faulty_from_the_start: false,
        }
    }
}

/// How a run ended. There is no fourth way, and the third is open only to controllers that [corrupt](corrupts) data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The guest runs at the destination, which was equal to the source at the switch, and every block holds what it
    /// must.
    Verified,
    /// The guest runs at the source, where every block holds what it must; the destination is disabled and no memory
    /// for changes is left.
    RolledBackSourceWhole,
    /// A controller inverted bits or claimed to have done what it did not do, and the content is not what it must be. No
    /// part of the protocol could have noticed; the comparison with what was acknowledged to the guest did.
    CorruptionFound,
}

/// Whether an action makes a controller corrupt data in a way that nothing in the protocol shows: it inverts bits, or
/// completes a command with success that it did not carry out.
#[must_use]
pub fn corrupts(action: &FaultAction) -> bool {
    match action {
        FaultAction::FlipToHost | FaultAction::FlipToDevice => true,
        FaultAction::Status(status) => status.is_success(),
        _ => false,
    }
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
    /// How often a managing controller was reset to end what the migration could not.
    pub managers_reset: u32,
    /// How often a controller that could not be reset was repaired: its rules were taken away.
    pub repairs: u32,
    /// How often each rule acted, at the source and at the destination.
    pub fired: [Vec<u32>; 2],
    /// What the comparison found, if it found something.
    pub corruption: Option<String>,
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
