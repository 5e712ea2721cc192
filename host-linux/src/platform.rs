// SPDX-License-Identifier: MIT OR Apache-2.0
//! The switch from source to destination: the guest's registers, its processor, the journal.
//!
//! The order makes the journal exact. From [`fence_source`](Platform::fence_source) on the guest sees no
//! completions; the destination acknowledges its resume; the journal names the destination; only then does the guest
//! go on. So whatever was acknowledged to the guest is on the image that the journal names, at every moment. The
//! journal's next content is written before the destination resumes, while a failure can still be rolled back; if it
//! cannot take its place afterwards the guest is not let go on.
//!
//! Only one of the guest's controllers reaches its memory at any time: the source's until the last look at it, none while
//! the switch is made, the destination's from just before its resume. A controller that is released early, because its
//! managing controller was reset, can fetch nothing then. It may take that for fatal; so a controller that does not take
//! commands when the guest is to go on with it is reset by the guest first, which then repeats what was not completed.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use nvme_core::migration::Platform;
use nvme_core::wire::ControllerId;

use crate::backend::AbsentController;
use crate::endpoint::{AccessError, Attachment, BusMaster, Endpoint};
use crate::journal::{Journal, Side};
use crate::shell::{self, ShellError};
use crate::sync::RunToken;
use crate::witness::Witness;

/// Why the switch could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlatformError {
    /// A controller's registers cannot be reached.
    Registers(AccessError),
    /// The journal cannot be written.
    Journal(io::ErrorKind),
    /// A shell command did not do its part.
    Shell(Hook, ShellError),
    /// A block that differs between the sides, of so many.
    Different {
        /// The first.
        first: u64,
        /// How many.
        blocks: u64,
    },
    /// The sides could not be compared.
    Compare(crate::mover::MoverError),
    /// They were not compared to the end, because the program is to end.
    Interrupted,
}

impl PlatformError {
    /// Whether nothing is wrong but that the program is to end.
    #[must_use]
    pub const fn is_interruption(&self) -> bool {
        matches!(self, Self::Interrupted | Self::Shell(_, ShellError::Interrupted))
    }
}

impl fmt::Display for PlatformError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registers(error) => write!(f, "registers: {error}"),
            Self::Journal(kind) => write!(f, "the journal cannot be written: {kind}"),
            Self::Shell(hook, error) => write!(f, "the command {hook} {error}"),
            Self::Different { first, blocks } => {
                write!(f, "{blocks} blocks differ between source and destination, the first is {first}")
            }
            Self::Compare(error) => write!(f, "the sides could not be compared: {error}"),
            Self::Interrupted => f.write_str("the comparison ended because the program is to end"),
        }
    }
}

impl std::error::Error for PlatformError {}

impl From<AccessError> for PlatformError {
    fn from(error: AccessError) -> Self {
        Self::Registers(error)
    }
}

/// When a shell command is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// While nothing runs: the destination holds everything and is not resumed yet.
    AtStop,
    /// To program the destination's controller as the source's is, which somebody else has to do.
    Restore,
    /// To take memory away from the source's controller.
    Fence,
    /// To give it back.
    Unfence,
    /// To take memory away from the destination's controller, which is not to run.
    DestinationFence,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtStop => "run at stop",
            Self::Restore => "that restores the destination's properties",
            Self::Fence => "that takes memory away from the source",
            Self::Unfence => "that gives memory back to the source",
            Self::DestinationFence => "that takes memory away from the destination",
        })
    }
}

/// Shell commands of a migration. Those that take memory away or give it back are for controllers whose owners have to do
/// that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Run at stop; if it fails the migration goes back.
    pub at_stop: Option<String>,
    /// Writes the properties of `source` to the destination's controller, if the sides have no vendor-specific state format in
    /// common.
    pub restore: Option<String>,
    /// Takes memory away from the source's controller.
    pub fence: Option<String>,
    /// Gives it back.
    pub unfence: Option<String>,
    /// Takes memory away from the destination's controller when that is not to run.
    pub destination_fence: Option<String>,
    /// What the variables `NVME_LM_SOURCE` and `NVME_LM_DESTINATION` hold; with a journal the images that it names.
    pub sides: Option<[OsString; 2]>,
    /// Somebody else's controller at the source, whose [`Properties`](crate::backend::Properties) are in variables, too, if
    /// they are known when a command begins.
    pub source: AbsentController,
    /// How long each may take.
    pub limit: Duration,
}

impl Hooks {
    /// How long a command may take if nothing else is asked for.
    pub const LIMIT: Duration = Duration::from_secs(60);
}

impl Default for Hooks {
    /// None.
    fn default() -> Self {
        Self {
            at_stop: None,
            restore: None,
            fence: None,
            unfence: None,
            destination_fence: None,
            sides: None,
            source: AbsentController::unknown(),
            limit: Self::LIMIT,
        }
    }
}

/// The switch of one guest between two controllers.
#[derive(Debug)]
pub struct HostPlatform<R> {
    endpoint: Arc<Endpoint<R>>,
    token: Arc<RunToken>,
    journal: Option<Journal>,
    hooks: Hooks,
    witness: Option<Arc<Witness>>,
    error: Option<PlatformError>,
    /// How far the source's fence is.
    fence: FenceState,
    /// The destination may reach the guest's memory; until then it has no bus mastering.
    let_through: bool,
}

/// How far the fence of the source is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FenceState {
    /// Nobody has fenced it.
    #[default]
    Down,
    /// It was tried, and half of it may have been done.
    Tried,
    /// It is fenced.
    Up,
}

impl<R: BusMaster> HostPlatform<R> {
    /// The platform of the guest that uses `endpoint` and runs while it holds `token`. `witness`, if there is one, is
    /// told when both sides should be equal.
    pub fn new(
        endpoint: Arc<Endpoint<R>>,
        token: Arc<RunToken>,
        journal: Option<Journal>,
        hooks: Hooks,
        witness: Option<Arc<Witness>>,
    ) -> Self {
        let (fence, let_through) = (FenceState::Down, false);
        Self { endpoint, token, journal, hooks, witness, error: None, fence, let_through }
    }

    /// Where the guest runs.
    pub fn side(&self) -> Side {
        match self.endpoint.attachment() {
            Attachment::Destination => Side::Destination,
            Attachment::Source | Attachment::Held => Side::Source,
        }
    }

    /// Whether the guest has a side to run on; without one it stays stopped.
    pub fn guest_runs(&self) -> bool {
        self.endpoint.attachment() != Attachment::Held
    }

    /// How long a shell command may take.
    #[must_use]
    pub const fn shell_limit(&self) -> Duration {
        self.hooks.limit
    }

    /// The first thing that went wrong.
    #[must_use]
    pub const fn error(&self) -> Option<PlatformError> {
        self.error
    }

    fn note<T>(&mut self, result: Result<T, PlatformError>) -> Result<T, PlatformError> {
        if let Err(error) = &result {
            self.error.get_or_insert(*error);
        }
        result
    }

    /// Makes the journal tell how the run ended; without effect if there is none.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn conclude(&mut self, step: &str) -> io::Result<()> {
        let side = self.side();
        self.journal.as_mut().map_or(Ok(()), |journal| journal.update(side, step))
    }

    fn record(&mut self, side: Side, step: &str) -> Result<(), PlatformError> {
        match &mut self.journal {
            Some(journal) => journal.update(side, step).map_err(|error| PlatformError::Journal(error.kind())),
            None => Ok(()),
        }
    }

    /// Does all of the switch of the journal that could fail while there is a way back.
    fn prepare(&mut self) -> Result<(), PlatformError> {
        let step = "resumed on the destination; the guest runs there";
        self.journal
            .as_mut()
            .map_or(Ok(()), |journal| journal.prepare(Side::Destination, step))
            .map_err(|error| PlatformError::Journal(error.kind()))
    }

    /// Attaches the guest to a side whose controller runs, or has the guest make it run.
    fn attach(&self, side: Attachment) -> Result<(), PlatformError> {
        let attached = self.endpoint.attach(side);
        if !self.endpoint.is_ready(side) {
            self.token.want_reset();
        }
        Ok(attached?)
    }

    fn set_bus_master(&mut self, side: Attachment, enabled: bool) -> Result<(), PlatformError> {
        let result = self.endpoint.set_bus_master(side, enabled).map_err(PlatformError::from);
        self.note(result)
    }

    /// Nobody knows whether the destination resumed when it was asked to, and its suspension has been ended since, by a
    /// reset of its managing controller: it may have answered commands, so the guest goes on there.
    ///
    /// # Errors
    /// As [`destination_resumed`](Platform::destination_resumed).
    pub fn go_forward(&mut self, destination: ControllerId) -> Result<(), PlatformError> {
        // What is prepared may have been given up since.
        let prepared = self.prepare();
        self.note(prepared)?;
        self.let_through = true;
        self.set_bus_master(Attachment::Destination, true)?;
        self.destination_resumed(destination)
    }

    fn run_hook(&self, hook: Hook, is_interrupted: &dyn Fn() -> bool) -> Result<(), PlatformError> {
        let hooks = &self.hooks;
        let text = match hook {
            Hook::AtStop => &hooks.at_stop,
            Hook::Restore => &hooks.restore,
            Hook::Fence => &hooks.fence,
            Hook::Unfence => &hooks.unfence,
            Hook::DestinationFence => &hooks.destination_fence,
        };
        let Some(text) = text else { return Ok(()) };
        let sides: Option<[&OsStr; 2]> = match &self.journal {
            Some(journal) => {
                let record = journal.record();
                Some([record.source.as_os_str(), record.destination.as_os_str()])
            }
            None => hooks.sides.as_ref().map(|sides| sides.each_ref().map(OsString::as_os_str)),
        };
        let variables = match hooks.source.properties() {
            Ok(properties) => Some(properties.variables()),
            // Nothing to restore.
            Err(error) if hook == Hook::Restore => return Err(error.into()),
            Err(_) => None,
        };
        let known = variables.iter().flatten().map(|(name, value)| (*name, OsStr::new(value)));
        let names = ["NVME_LM_SOURCE", "NVME_LM_DESTINATION"];
        let environment: Vec<_> = names.into_iter().zip(sides.into_iter().flatten()).chain(known).collect();
        shell::run(text, &environment, hooks.limit, is_interrupted)
            .map_err(|error| PlatformError::Shell(hook, error))
    }

    /// As [`fence_source`](Platform::fence_source), given up once `is_interrupted`.
    ///
    /// # Errors
    /// As there.
    pub fn fence_source_unless(&mut self, is_interrupted: &dyn Fn() -> bool) -> Result<(), PlatformError> {
        // Its controller may report a fatal status if it is released now, which is no business of the guest's.
        self.token.pause();
        self.fence = FenceState::Tried;
        let fenced = self.run_hook(Hook::Fence, is_interrupted);
        self.note(fenced)?;
        self.set_bus_master(Attachment::Source, false)?;
        self.fence = FenceState::Up;
        Ok(())
    }

    /// Fences the source unless that was done: a command may be right to fail the second time.
    ///
    /// # Errors
    /// As [`fence_source`](Platform::fence_source).
    pub fn keep_source_fenced(&mut self) -> Result<(), PlatformError> {
        match self.fence {
            FenceState::Up => Ok(()),
            FenceState::Down | FenceState::Tried => self.fence_source_unless(&|| false),
        }
    }

    /// Takes the fence of the source away if there is one, or half of one.
    ///
    /// # Errors
    /// As [`unfence_source`](Platform::unfence_source).
    pub fn lift_fence(&mut self) -> Result<(), PlatformError> {
        match self.fence {
            FenceState::Down => Ok(()),
            FenceState::Tried | FenceState::Up => self.lower_fence(),
        }
    }

    fn lower_fence(&mut self) -> Result<(), PlatformError> {
        // It goes back, which an interruption asks for.
        let unfenced = self.run_hook(Hook::Unfence, &|| false);
        self.note(unfenced)?;
        self.set_bus_master(Attachment::Source, true)?;
        self.fence = FenceState::Down;
        Ok(())
    }

    /// As [`restore_properties`](Platform::restore_properties), given up once `is_interrupted`.
    ///
    /// # Errors
    /// As there.
    pub fn restore_properties_unless(
        &mut self,
        is_interrupted: &dyn Fn() -> bool,
    ) -> Result<(), PlatformError> {
        let result = match self.hooks.restore {
            Some(_) => self.run_hook(Hook::Restore, is_interrupted),
            None => self.endpoint.restore_properties().map_err(PlatformError::from),
        };
        self.note(result)
    }

    /// As [`before_resume`](Platform::before_resume), given up once `is_interrupted`.
    ///
    /// # Errors
    /// As there.
    pub fn before_resume_unless(&mut self, is_interrupted: &dyn Fn() -> bool) -> Result<(), PlatformError> {
        self.token.pause();
        let result = self.run_hook(Hook::AtStop, is_interrupted).and_then(|()| self.prepare());
        self.note(result)?;
        self.witness.iter().for_each(|witness| witness.arm());
        self.let_through = true;
        let given = self.set_bus_master(Attachment::Destination, true);
        if given.is_err() {
            // Half of it may have been done.
            let taken = self.endpoint.set_bus_master(Attachment::Destination, false);
            self.let_through = taken.is_err();
        }
        given
    }
}

impl<R: BusMaster> Platform for HostPlatform<R> {
    type Error = PlatformError;

    fn source_suspended(&mut self, _source: ControllerId) -> Result<(), PlatformError> {
        self.endpoint.hold();
        Ok(())
    }

    fn fence_source(&mut self, _source: ControllerId) -> Result<(), PlatformError> {
        self.fence_source_unless(&|| false)
    }

    fn unfence_source(&mut self, _source: ControllerId) -> Result<(), PlatformError> {
        self.lower_fence()
    }

    fn restore_properties(&mut self, _destination: ControllerId) -> Result<(), PlatformError> {
        self.restore_properties_unless(&|| false)
    }

    fn before_resume(&mut self, _destination: ControllerId) -> Result<(), PlatformError> {
        self.before_resume_unless(&|| false)
    }

    fn destination_resumed(&mut self, _destination: ControllerId) -> Result<(), PlatformError> {
        let recorded = match &mut self.journal {
            Some(journal) => {
                let result = journal.commit().map_err(|error| PlatformError::Journal(error.kind()));
                if journal.record().authoritative != Side::Destination {
                    // Nothing may be acknowledged to the guest that the journal does not vouch for: it stays stopped.
                    return self.note(result);
                }
                result
            }
            None => Ok(()),
        };
        let attached = self.attach(Attachment::Destination);
        // The source still holds the guest's queues and would run with them once its suspension ends, for example
        // when its managing controller is reset.
        let disabled = self.endpoint.disable(Attachment::Source);
        self.token.resume();
        self.note(recorded.and(attached).and(disabled.map_err(PlatformError::from)))
    }

    fn destination_forgotten(&mut self, _destination: ControllerId) -> Result<(), PlatformError> {
        let commanded = self.run_hook(Hook::DestinationFence, &|| false);
        let commanded = self.note(commanded);
        let fenced = self.endpoint.set_bus_master(Attachment::Destination, false);
        let disabled = self.endpoint.disable(Attachment::Destination);
        if !self.let_through {
            // It has had no bus mastering so far, whether it answers now or not.
            return commanded;
        }
        let fenced = self.note(fenced.map_err(PlatformError::from)).and(commanded);
        self.let_through &= fenced.is_err();
        self.note(fenced.and(disabled.map_err(PlatformError::from)))
    }

    fn source_resumed(&mut self, _source: ControllerId) -> Result<(), PlatformError> {
        self.witness.iter().for_each(|witness| witness.disarm());
        let recorded = self.record(Side::Source, "rolled back; the guest runs on the source");
        let attached = self.attach(Attachment::Source);
        self.token.resume();
        self.note(recorded.and(attached))
    }
}

#[cfg(test)]
mod tests;
