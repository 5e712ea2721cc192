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

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nvme_core::migration::Platform;
use nvme_core::wire::ControllerId;

use crate::endpoint::{AccessError, Attachment, BusMaster, Endpoint};
use crate::journal::{Journal, Side};
use crate::sync::RunToken;
use crate::witness::Witness;

/// Why the switch could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlatformError {
    /// A controller's registers cannot be reached.
    Registers(AccessError),
    /// The journal cannot be written.
    Journal(io::ErrorKind),
    /// The command to run at stop could not be started.
    AtStop(io::ErrorKind),
    /// The command run at stop ended with this status; none if a signal ended it.
    AtStopStatus(Option<i32>),
    /// A block that differs between the sides, of so many.
    Different {
        /// The first.
        first: u64,
        /// How many.
        blocks: u64,
    },
    /// The sides could not be compared.
    Compare(crate::mover::MoverError),
}

impl fmt::Display for PlatformError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registers(error) => write!(f, "registers: {error}"),
            Self::Journal(kind) => write!(f, "the journal cannot be written: {kind}"),
            Self::AtStop(kind) => write!(f, "the command to run at stop cannot be started: {kind}"),
            Self::AtStopStatus(Some(status)) => {
                write!(f, "the command run at stop failed with status {status}")
            }
            Self::Different { first, blocks } => {
                write!(f, "{blocks} blocks differ between source and destination, the first is {first}")
            }
            Self::Compare(error) => write!(f, "the sides could not be compared: {error}"),
            Self::AtStopStatus(None) => f.write_str("the command run at stop was ended by a signal"),
        }
    }
}

impl std::error::Error for PlatformError {}

impl From<AccessError> for PlatformError {
    fn from(error: AccessError) -> Self {
        Self::Registers(error)
    }
}

/// The switch of one guest between two embedded controllers.
#[derive(Debug)]
pub struct HostPlatform<R> {
    endpoint: Arc<Endpoint<R>>,
    token: Arc<RunToken>,
    journal: Option<Journal>,
    at_stop: Option<String>,
    /// Shell commands that take memory away from the source's controller, give it back, and take it from the destination's.
    fences: [Option<String>; 3],
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
        at_stop: Option<String>,
        witness: Option<Arc<Witness>>,
    ) -> Self {
        let fences = [None, None, None];
        Self { endpoint, token, journal, at_stop, fences, witness, error: None }
    }

    /// With shell commands that take memory away from the source's controller, give it back, and take it from the
    /// destination's when that is not to run: where their owners have to do that.
    #[must_use]
    pub fn with_fences(self, fences: [Option<String>; 3]) -> Self {
        Self { fences, ..self }
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

    fn run_at_stop(&self) -> Result<(), PlatformError> {
        self.run_command(self.at_stop.as_deref())
    }

    fn run_command(&self, text: Option<&str>) -> Result<(), PlatformError> {
        let Some(text) = text else { return Ok(()) };
        let failed = |error: io::Error| PlatformError::AtStop(error.kind());
        // Standard output may carry the report.
        let output = io::stderr().as_fd().try_clone_to_owned().map_err(failed)?;
        let mut command = Command::new("sh");
        command.arg("-c").arg(text).stdin(Stdio::null()).stdout(Stdio::from(output));
        if let Some(journal) = &self.journal {
            let record = journal.record();
            command.env("NVME_LM_SOURCE", &record.source).env("NVME_LM_DESTINATION", &record.destination);
        }
        // What interrupts this program from its terminal is no business of the command's.
        let status = command.process_group(0).status().map_err(failed)?;
        if status.success() { Ok(()) } else { Err(PlatformError::AtStopStatus(status.code())) }
    }
}

impl<R: BusMaster> Platform for HostPlatform<R> {
    type Error = PlatformError;

    fn source_suspended(&mut self, _source: ControllerId) -> Result<(), PlatformError> {
        self.endpoint.hold();
        Ok(())
    }

    fn fence_source(&mut self, _source: ControllerId) -> Result<(), PlatformError> {
        // Its controller may report a fatal status if it is released now, which is no business of the guest's.
        self.token.pause();
        let fenced = self.run_command(self.fences[0].as_deref());
        self.note(fenced)?;
        self.set_bus_master(Attachment::Source, false)
    }

    fn unfence_source(&mut self, _source: ControllerId) -> Result<(), PlatformError> {
        let unfenced = self.run_command(self.fences[1].as_deref());
        self.note(unfenced)?;
        self.set_bus_master(Attachment::Source, true)
    }

    fn restore_properties(&mut self, _destination: ControllerId) -> Result<(), PlatformError> {
        let result = self.endpoint.restore_properties().map_err(PlatformError::from);
        self.note(result)
    }

    fn before_resume(&mut self, _destination: ControllerId) -> Result<(), PlatformError> {
        self.token.pause();
        let result = self.run_at_stop().and_then(|()| self.prepare());
        self.note(result)?;
        self.witness.iter().for_each(|witness| witness.arm());
        self.set_bus_master(Attachment::Destination, true)
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
        let commanded = self.run_command(self.fences[2].as_deref());
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
            at_stop.map(String::from),
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
            ("status", "exit 7", Err(PlatformError::AtStopStatus(Some(7)))),
            ("signal", "kill -9 $$", Err(PlatformError::AtStopStatus(None))),
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
}
