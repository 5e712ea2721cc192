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
        Self { endpoint, token, journal, hooks, witness, error: None }
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
        let fenced = self.run_hook(Hook::Fence, is_interrupted);
        self.note(fenced)?;
        self.set_bus_master(Attachment::Source, false)
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
        let given = self.set_bus_master(Attachment::Destination, true);
        if given.is_err() {
            // Half of it may have been done.
            let _ = self.endpoint.set_bus_master(Attachment::Destination, false);
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
        // It goes back, which an interruption asks for.
        let unfenced = self.run_hook(Hook::Unfence, &|| false);
        self.note(unfenced)?;
        self.set_bus_master(Attachment::Source, true)
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
        let fenced = self.set_bus_master(Attachment::Destination, false).and(commanded);
        let disabled = self.endpoint.disable(Attachment::Destination).map_err(PlatformError::from);
        self.note(fenced.and(disabled))
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
mod tests {
    use super::*;
    use nvme_core::register::{Offset, RegisterIo};
    use std::path::PathBuf;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    use crate::sync::lock;

    /// What both sides share.
    #[derive(Debug)]
    struct Shared {
        writes: Mutex<Vec<(char, u32)>>,
        /// Who reaches memory: source, destination.
        bus_masters: Mutex<[bool; 2]>,
        /// Read at every offset.
        status: AtomicU32,
    }

    /// One side that notes its writes in a list shared by both.
    #[derive(Clone, Debug)]
    struct SideRegisters(char, Arc<Shared>);

    impl BusMaster for SideRegisters {
        fn set_bus_master(&self, enabled: bool) -> Result<(), AccessError> {
            let [source, destination] = &mut *lock(&self.1.bus_masters);
            *(if self.0 == 's' { source } else { destination }) = enabled;
            Ok(())
        }
    }

    impl RegisterIo for SideRegisters {
        type Error = AccessError;

        fn read32(&self, _offset: Offset) -> Result<u32, AccessError> {
            Ok(self.1.status.load(Ordering::Relaxed))
        }

        fn write32(&self, _offset: Offset, value: u32) -> Result<(), AccessError> {
            lock(&self.1.writes).push((self.0, value));
            Ok(())
        }
    }

    struct Bench {
        dir: tempfile::TempDir,
        journal: PathBuf,
        shared: Arc<Shared>,
        endpoint: Arc<Endpoint<SideRegisters>>,
        token: Arc<RunToken>,
        platform: HostPlatform<SideRegisters>,
        witness: Arc<Witness>,
    }

    fn bench(at_stop: Option<&str>) -> Bench {
        let dir = tempfile::tempdir().expect("directory");
        let (source, destination) = (dir.path().join("s"), dir.path().join("d"));
        std::fs::write(&source, "same").expect("source");
        std::fs::write(&destination, "same").expect("destination");
        let path = Journal::beside(&destination);
        let journal = Journal::create(&path, &source, &destination, "t".into()).expect("journal");
        let shared = Arc::new(Shared {
            writes: Mutex::default(),
            bus_masters: Mutex::new([true, false]),
            status: AtomicU32::new(1),
        });
        let side = |name| SideRegisters(name, Arc::clone(&shared));
        let endpoint = Arc::new(Endpoint::new(side('s'), side('d')));
        let token = Arc::new(RunToken::new());
        let open = |path| Arc::new(std::fs::File::open(path).expect("open"));
        let witness = Arc::new(Witness::new(open(&source), open(&destination), 4, 1));
        let platform = HostPlatform::new(
            Arc::clone(&endpoint),
            Arc::clone(&token),
            Some(journal),
            Hooks { at_stop: at_stop.map(String::from), ..Hooks::default() },
            Some(Arc::clone(&witness)),
        );
        Bench { dir, journal: path, shared, endpoint, token, platform, witness }
    }

    const ID: ControllerId = ControllerId::new(2);

    #[test]
    fn r10_the_guest_goes_on_only_after_the_journal_names_its_side() {
        for (destination, side, name) in [(true, Side::Destination, 'd'), (false, Side::Source, 's')] {
            let mut bench = bench(None);
            let write = |value| bench.endpoint.write32(Offset::new(0x1008), value).expect("write");
            write(1);
            bench.platform.source_suspended(ID).expect("suspended");
            write(2);
            bench.platform.before_resume(ID).expect("before");
            assert_eq!(*lock(&bench.shared.writes), [('s', 1)], "held");
            let (token, journal) = (Arc::clone(&bench.token), bench.journal.clone());
            let guest = std::thread::spawn(move || {
                let running = token.enter();
                (running.stops(), Journal::read(&journal).expect("journal").authoritative)
            });
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!guest.is_finished(), "the guest must not run yet");
            assert_eq!(Journal::read(&bench.journal).expect("journal").authoritative, Side::Source);
            if destination {
                bench.platform.destination_resumed(ID).expect("resumed");
            } else {
                bench.platform.source_resumed(ID).expect("resumed");
            }
            assert_eq!(guest.join().expect("guest"), (1, side));
            let disabled = destination.then_some(('s', 0));
            let expected: Vec<_> = [('s', 1), (name, 2)].into_iter().chain(disabled).collect();
            assert_eq!(*lock(&bench.shared.writes), expected);
            assert_eq!(bench.platform.side(), side);
            let compared = bench.witness.finish().expect("compare");
            assert_eq!(compared.map(|report| report.equal), destination.then_some(1));
            bench.platform.conclude("done").expect("conclude");
            let record = Journal::read(&bench.journal).expect("journal");
            assert_eq!((record.authoritative, record.step.as_str()), (side, "done"));
        }
    }

    #[test]
    fn r10_one_side_at_most_reaches_the_guest_s_memory() {
        type Call = fn(&mut HostPlatform<SideRegisters>) -> Result<(), PlatformError>;
        let suspended: Call = |platform| platform.source_suspended(ID);
        let fence: Call = |platform| platform.fence_source(ID);
        let before: Call = |platform| platform.before_resume(ID);
        let resumed: Call = |platform| platform.destination_resumed(ID);
        let forgotten: Call = |platform| platform.destination_forgotten(ID);
        let unfence: Call = |platform| platform.unfence_source(ID);
        let back: Call = |platform| platform.source_resumed(ID);
        let (source, nobody, destination) = ([true, false], [false, false], [false, true]);
        type Row = (&'static str, Vec<(Call, [bool; 2])>);
        let table: [Row; 4] = [
            (
                "forward",
                vec![(suspended, source), (fence, nobody), (before, destination), (resumed, destination)],
            ),
            ("back before the last look", vec![(suspended, source), (forgotten, source), (back, source)]),
            (
                "back after it",
                vec![
                    (suspended, source),
                    (fence, nobody),
                    (forgotten, nobody),
                    (unfence, source),
                    (back, source),
                ],
            ),
            (
                "back after a resume that was refused",
                vec![
                    (suspended, source),
                    (fence, nobody),
                    (before, destination),
                    (forgotten, nobody),
                    (unfence, source),
                    (back, source),
                ],
            ),
        ];
        for (name, calls) in table {
            let mut bench = bench(None);
            for (step, (call, expected)) in calls.into_iter().enumerate() {
                call(&mut bench.platform).expect(name);
                assert_eq!(*lock(&bench.shared.bus_masters), expected, "{name}, call {step}");
            }
        }
        let mut bench = bench(Some("false"));
        bench.platform.source_suspended(ID).expect("suspended");
        bench.platform.fence_source(ID).expect("fenced");
        assert!(bench.platform.before_resume(ID).is_err());
        assert_eq!(*lock(&bench.shared.bus_masters), nobody, "a switch that is refused opens nothing");
    }

    #[test]
    fn r10_going_forward_names_the_destination_before_the_guest_runs_there() {
        for (name, prepared) in
            [("after a resume without an answer", true), ("after a switch given up", false)]
        {
            let mut bench = bench(None);
            bench.platform.source_suspended(ID).expect("suspended");
            bench.platform.fence_source(ID).expect("fenced");
            bench.platform.before_resume(ID).expect("before");
            if !prepared {
                bench.platform.destination_forgotten(ID).expect("forgotten");
                bench.platform.journal.as_mut().expect("a journal").discard();
            }
            assert_eq!(Journal::read(&bench.journal).expect("journal").authoritative, Side::Source, "{name}");
            let (token, journal) = (Arc::clone(&bench.token), bench.journal.clone());
            let guest = std::thread::spawn(move || {
                let _running = token.enter();
                Journal::read(&journal).expect("journal").authoritative
            });
            bench.platform.go_forward(ID).expect("forward");
            assert_eq!(guest.join().expect("guest"), Side::Destination, "{name}");
            assert_eq!(*lock(&bench.shared.bus_masters), [false, true], "{name}");
            assert_eq!(lock(&bench.shared.writes).last(), Some(&('s', 0)), "{name}: the source is disabled");
        }
        let mut bench = bench(None);
        bench.platform.source_suspended(ID).expect("suspended");
        bench.platform.fence_source(ID).expect("fenced");
        bench.platform.before_resume(ID).expect("before");
        std::fs::remove_dir_all(bench.dir.path()).expect("the directory disappears");
        assert!(bench.platform.go_forward(ID).is_err());
        assert!(
            !bench.platform.guest_runs(),
            "without a journal that vouches for it the guest stays stopped"
        );
    }

    #[test]
    fn the_guest_resets_a_controller_that_does_not_take_commands() {
        for (name, status, wanted) in
            [("ready", 1, false), ("not ready", 0, true), ("fatal", 3, true), ("gone", u32::MAX, true)]
        {
            for forward in [true, false] {
                let mut bench = bench(None);
                bench.platform.source_suspended(ID).expect("suspended");
                bench.platform.before_resume(ID).expect("before");
                bench.shared.status.store(status, Ordering::Relaxed);
                if forward {
                    bench.platform.destination_resumed(ID).expect("resumed");
                } else {
                    bench.platform.source_resumed(ID).expect("resumed");
                }
                assert_eq!(bench.token.takes_reset(), wanted, "{name}");
                assert!(!bench.token.takes_reset(), "{name}: wanted once");
            }
        }
    }

    #[test]
    fn r10_the_guest_stays_stopped_if_the_journal_cannot_name_the_destination() {
        let mut bench = bench(None);
        bench.platform.source_suspended(ID).expect("suspended");
        bench.platform.before_resume(ID).expect("before");
        std::fs::remove_dir_all(bench.dir.path()).expect("the directory disappears");
        let failed = Err(PlatformError::Journal(io::ErrorKind::NotFound));
        assert_eq!(bench.platform.destination_resumed(ID), failed);
        assert_eq!(bench.platform.error(), failed.err());
        assert!(!bench.platform.guest_runs());
        assert_eq!((bench.platform.side(), bench.endpoint.attachment()), (Side::Source, Attachment::Held));
        assert!(lock(&bench.shared.writes).is_empty(), "neither side was attached or disabled");
        let token = Arc::clone(&bench.token);
        let guest = std::thread::spawn(move || drop(token.enter()));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!guest.is_finished(), "the guest must not run");
        bench.token.resume();
        guest.join().expect("guest");
    }

    #[test]
    fn r10_a_journal_that_cannot_be_prepared_is_rolled_back() {
        let mut bench = bench(None);
        bench.platform.source_suspended(ID).expect("suspended");
        let away = bench.dir.path().with_extension("away");
        std::fs::rename(bench.dir.path(), &away).expect("the directory moves away");
        let failed = Err(PlatformError::Journal(io::ErrorKind::NotFound));
        assert_eq!(bench.platform.before_resume(ID), failed);
        std::fs::rename(&away, bench.dir.path()).expect("and comes back");
        bench.platform.source_resumed(ID).expect("rolled back");
        drop(bench.token.enter());
        assert_eq!((bench.platform.side(), bench.platform.guest_runs()), (Side::Source, true));
        let record = Journal::read(&bench.journal).expect("journal");
        assert_eq!(record.authoritative, Side::Source);
    }

    #[test]
    fn a_roll_back_leaves_no_prepared_journal() {
        let mut bench = bench(None);
        let files = |bench: &Bench| std::fs::read_dir(bench.dir.path()).expect("list").count();
        bench.platform.source_suspended(ID).expect("suspended");
        bench.platform.before_resume(ID).expect("before");
        assert_eq!(files(&bench), 4, "two images, the journal and the next one");
        bench.platform.source_resumed(ID).expect("rolled back");
        assert_eq!(files(&bench), 3);
    }

    #[test]
    fn the_command_at_stop_sees_both_images_and_may_refuse() {
        let table = [
            ("equal", "cmp \"$NVME_LM_SOURCE\" \"$NVME_LM_DESTINATION\"", Ok(())),
            ("status", "exit 7", Err(PlatformError::Shell(Hook::AtStop, ShellError::Status(Some(7))))),
            ("signal", "kill -9 $$", Err(PlatformError::Shell(Hook::AtStop, ShellError::Status(None)))),
        ];
        for (name, text, expected) in table {
            let mut bench = bench(Some(text));
            bench.platform.source_suspended(ID).expect("suspended");
            assert_eq!(bench.platform.before_resume(ID), expected, "{name}");
            assert_eq!(bench.platform.error(), expected.err(), "{name}");
            bench.platform.source_resumed(ID).expect("rolled back");
            drop(bench.token.enter());
        }
    }

    #[test]
    fn the_command_that_restores_takes_the_place_of_the_registers_and_may_refuse() {
        const LIST: &str = "CC 460001\nAQA 1f001f\nASQ 1000\nACQ 2000\n";
        let failed = |error| Err(PlatformError::Shell(Hook::Restore, error));
        let unknown = Err(PlatformError::Registers(AccessError::Absent(0x14)));
        // Name, the command, what is known of the source, what comes of it, whether this program writes the registers.
        let told =
            "test \"$NVME_LM_CC $NVME_LM_AQA $NVME_LM_ASQ $NVME_LM_ACQ\" = '0x460001 0x1f001f 0x1000 0x2000'";
        let rows = [
            ("no command", None, "", Ok(()), true),
            ("told", Some(told), LIST, Ok(()), false),
            ("a status", Some("exit 7"), LIST, failed(ShellError::Status(Some(7))), false),
            ("nothing to tell", Some("true"), "", unknown, false),
        ];
        for (name, command, list, expected, writes) in rows {
            let mut bench = bench(None);
            bench.platform.hooks.restore = command.map(String::from);
            if !list.is_empty() {
                bench.platform.hooks.source = AbsentController::parse(list).expect(name);
            }
            assert_eq!(bench.platform.restore_properties(ID), expected, "{name}");
            assert_eq!(bench.platform.error(), expected.err(), "{name}");
            assert_eq!(!lock(&bench.shared.writes).is_empty(), writes, "{name}");
        }
        let mut bench = bench(None);
        bench.platform.hooks.restore = Some("sleep 3600".into());
        bench.platform.hooks.source = AbsentController::parse(LIST).expect("a list");
        let interrupted = failed(ShellError::Interrupted);
        assert_eq!(bench.platform.restore_properties_unless(&|| true), interrupted);
        // Registers that are gone by then: the command is not run with values of before, and the others go without.
        let path = bench.dir.path().join("registers");
        let mut page = vec![0; 4096];
        page[0x0A] = 2;
        std::fs::write(&path, page).expect("a file");
        bench.platform.hooks.source = AbsentController::shown(&path).expect("registers");
        std::fs::remove_file(&path).expect("removed");
        let ran = bench.dir.path().join("ran");
        bench.platform.hooks.restore = Some(format!("touch '{}'", ran.display()));
        let result = bench.platform.restore_properties(ID);
        assert!(matches!(result, Err(PlatformError::Registers(AccessError::File(_)))), "{result:?}");
        assert!(!ran.exists());
        bench.platform.hooks.fence = Some("test -z \"$NVME_LM_CC\"".into());
        assert_eq!(bench.platform.fence_source(ID), Ok(()));
    }
}
