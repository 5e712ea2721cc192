// SPDX-License-Identifier: MIT OR Apache-2.0
//! The steps of a migration, forward and back.

use core::fmt;

macro_rules! steps {
    ($($(#[$meta:meta])* $variant:ident = $name:literal, $kind:ident;)+) => {
        /// One step of a migration, in the order in which a migration without failure goes through them, followed by
        /// the steps of the way back.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum MigrationStep {
            $($(#[$meta])* $variant,)+
        }

        impl MigrationStep {
            /// Every step, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The step's name, in kebab case.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// What kind of step it is.
            #[must_use]
            pub const fn kind(self) -> StepKind {
                match self { $(Self::$variant => StepKind::$kind),+ }
            }
        }
    };
}

/// How a step stands to the point of no return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// A migration that is cancelled or fails here is rolled back.
    Reversible,
    /// The destination is authoritative: there is no way back.
    Final,
    /// A step of the way back.
    RollBack,
}

steps! {
    /// Identify both managing controllers and see that they can do what is needed.
    Discover = "discover", Reversible;
    /// Agree on the formats of the controller state.
    MatchFormats = "match-formats", Reversible;
    /// Create the Controller Data Queue at the source.
    CreateQueue = "create-queue", Reversible;
    /// Start logging.
    StartLog = "start-log", Reversible;
    /// Copy what is allocated while the log runs.
    BaselineCopy = "baseline-copy", Reversible;
    /// Copy what changed, round after round.
    DeltaRounds = "delta-rounds", Reversible;
    /// Suspend the destination controller, before it is given any state.
    SuspendDestination = "suspend-destination", Reversible;
    /// Tell the source that a suspension is near.
    NotifySuspend = "notify-suspend", Reversible;
    /// Suspend the source controller: the guest stands still from here on.
    SuspendSource = "suspend-source", Reversible;
    /// Read the log up to the entry that closes it.
    Drain = "drain", Reversible;
    /// Copy the last changes.
    FinalCopy = "final-copy", Reversible;
    /// Make the destination's data durable.
    Flush = "flush", Reversible;
    /// Read the source's controller state and hand it to the destination.
    GetState = "get-state", Reversible;
    /// Set the controller state at the destination.
    SetState = "set-state", Reversible;
    /// See that the source is still suspended, and resume the destination controller. Its acknowledgement is the point
    /// of no return.
    ResumeDestination = "resume-destination", Reversible;
    /// Delete the source's queue.
    DeleteQueue = "delete-queue", Final;
    /// The migration has ended at the destination.
    Done = "done", Final;
    /// Wait for commands on their way.
    Settle = "settle", RollBack;
    /// Have the destination forget what it was given.
    ForgetDestination = "forget-destination", RollBack;
    /// Resume the source controller.
    ResumeSource = "resume-source", RollBack;
    /// Stop logging.
    StopLog = "stop-log", RollBack;
    /// Delete the source's queue.
    RemoveQueue = "remove-queue", RollBack;
    /// Wait for blocks on their way.
    CancelMover = "cancel-mover", RollBack;
    /// The migration has ended at the source.
    RolledBack = "rolled-back", RollBack;
}

impl MigrationStep {
    /// The step with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|step| step.name() == name)
    }

    /// Whether a migration in this step can still go back to the source.
    #[must_use]
    pub fn is_reversible(self) -> bool {
        self.kind() == StepKind::Reversible
    }
}

impl fmt::Display for MigrationStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No step has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownStep;

impl fmt::Display for UnknownStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no migration step has this name; the steps are")?;
        for step in MigrationStep::ALL {
            write!(f, " {step}")?;
        }
        Ok(())
    }
}

impl core::error::Error for UnknownStep {}

impl core::str::FromStr for MigrationStep {
    type Err = UnknownStep;

    fn from_str(name: &str) -> Result<Self, UnknownStep> {
        Self::from_name(name).ok_or(UnknownStep)
    }
}
