// SPDX-License-Identifier: MIT OR Apache-2.0

use super::*;
use nvme_core::register::{Offset, RegisterIo};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::sync::lock;

/// What both sides share.
#[derive(Debug)]
struct Shared {
    writes: Mutex<Vec<(char, u32)>>,
    /// Who reaches memory: source, destination.
    bus_masters: Mutex<[bool; 2]>,
    /// Read at every offset.
    status: AtomicU32,
    /// The destination does not answer.
    silent: AtomicBool,
}

/// One side that notes its writes in a list shared by both.
#[derive(Clone, Debug)]
struct SideRegisters(char, Arc<Shared>);

impl BusMaster for SideRegisters {
    fn set_bus_master(&self, enabled: bool) -> Result<(), AccessError> {
        if self.0 == 'd' && self.1.silent.load(Ordering::Relaxed) {
            return Err(AccessError::Configuration);
        }
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
        silent: AtomicBool::new(false),
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
    for (name, prepared) in [("after a resume without an answer", true), ("after a switch given up", false)] {
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
    assert!(!bench.platform.guest_runs(), "without a journal that vouches for it the guest stays stopped");
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

#[test]
fn r10_a_destination_that_does_not_answer_counts_only_once_it_may_reach_memory() {
    let failed = Err(PlatformError::Registers(AccessError::Configuration));
    // Name, whether it was let to memory, whether it answers, the command that fences it, what comes of it.
    let table = [
        ("never let through, silent", false, false, "true", Ok(())),
        ("never let through", false, true, "true", Ok(())),
        ("let through", true, true, "true", Ok(())),
        ("let through, silent", true, false, "true", failed),
    ];
    for (name, through, answers, command, expected) in table {
        let mut bench = bench(None);
        bench.platform.hooks.destination_fence = Some(command.into());
        bench.platform.source_suspended(ID).expect("suspended");
        if through {
            bench.platform.before_resume(ID).expect("before");
        }
        bench.shared.silent.store(!answers, Ordering::Relaxed);
        assert_eq!(bench.platform.destination_forgotten(ID), expected, "{name}");
    }
    // Somebody else's is kept from memory by the command alone.
    for through in [false, true] {
        let mut bench = bench(None);
        bench.platform.hooks.destination_fence = Some("exit 3".into());
        if through {
            bench.platform.before_resume(ID).expect("before");
        }
        assert!(bench.platform.destination_forgotten(ID).is_err(), "let through: {through}");
    }
}

#[test]
fn r10_a_fence_is_made_once_and_lifted_if_it_was_tried() {
    let mut bench = bench(None);
    let ran = bench.dir.path().join("ran");
    let leave = |word: &str| Some(format!("echo {word} >> '{}'", ran.display()));
    let told = || std::fs::read_to_string(&ran).unwrap_or_default().replace('\n', " ");
    (bench.platform.hooks.fence, bench.platform.hooks.unfence) = (leave("fence"), leave("unfence"));
    bench.platform.lift_fence().expect("nothing to lift");
    assert_eq!(told(), "", "no fence, no command");
    bench.platform.fence_source(ID).expect("fenced");
    bench.platform.keep_source_fenced().expect("still fenced");
    assert_eq!((told().as_str(), *lock(&bench.shared.bus_masters)), ("fence ", [false, false]), "once");
    bench.platform.lift_fence().expect("lifted");
    bench.platform.lift_fence().expect("nothing to lift");
    assert_eq!((told().as_str(), *lock(&bench.shared.bus_masters)), ("fence unfence ", [true, false]));
    bench.platform.hooks.fence = Some("exit 3".into());
    assert!(bench.platform.fence_source(ID).is_err());
    bench.platform.lift_fence().expect("half a fence is lifted");
    assert_eq!(told(), "fence unfence unfence ");
}
