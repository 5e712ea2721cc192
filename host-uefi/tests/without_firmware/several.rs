// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines of several controllers: numbers mean what they meant, and what one controller does wrong is told beside what
//! another one does.

use nvme_core::wire::register::{ASQ, CC, CSTS};
use nvme_host_uefi::program;
use nvme_host_uefi::sys::attributes::{BUS_MASTER, MEMORY};
use uefi::{Handle, Status};

use crate::calls::{Call, Which, refuse, refuse_none};
use crate::faults::misbehave;
use crate::sys::{Function, boot};
use crate::world::Side;

/// Blocks of the namespaces, few because each row has subsystems of its own.
const BLOCKS: u64 = 16;

fn run(line: &str, plans: &[(Call, Which)]) -> (Status, String, bool) {
    refuse(plans);
    let mut out = String::new();
    let status = program::run(line.split(' '), &mut out);
    let failed = refuse_none();
    (status, out, failed.iter().all(|failed| *failed != 0))
}

#[test]
fn a_function_that_cannot_be_looked_at_shifts_no_numbers() {
    use Which::Only;
    const UNSEEN: &str = "nvme-lm: the function does not say what it is";
    type Row<'r> = (&'r str, &'r [(Call, Which)], Status, &'r [&'r str]);
    const ERROR: Status = Status::DEVICE_ERROR;
    let class = |number| [(Call::ReadConfiguration, Only(number))];
    let (first, second) = (&class(0), &class(1));
    let rows: [Row<'_>; 13] = [
        ("read 0 1 --controller 1", &[], Status::SUCCESS, &["0000000000  b1 b1"]),
        ("read 0 1 --controller 0", first, ERROR, &[UNSEEN]),
        ("read 0 1 --controller 1", first, ERROR, &[UNSEEN]),
        ("read 0 1", first, ERROR, &[UNSEEN]),
        ("read 0 1", second, ERROR, &[UNSEEN]),
        ("read 0 1 --controller 0", second, ERROR, &[UNSEEN]),
        ("read 0 1 --controller 0", &[(Call::Look, Only(0))], ERROR, &[UNSEEN]),
        ("read 0 1 --controller 0:1:2.9", first, ERROR, &[UNSEEN]),
        ("read 0 1 --controller 0:1:2.9", &[(Call::GetLocation, Only(1))], ERROR, &[UNSEEN]),
        ("read 0 1 --controller 0:1:2.9", &[], Status::NOT_FOUND, &["there is no such NVMe controller"]),
        (
            "list",
            first,
            ERROR,
            &["?  0000:01:02.3  does not say what it is: ", "0  0000:01:02.3  PCI 1b36:0010", UNSEEN],
        ),
        (
            "list",
            &[(Call::GetLocation, Only(0))],
            ERROR,
            &["0  ????:??:??.?  PCI 1b36:0010", "1  0000:01:02.3  PCI 1b36:0010", UNSEEN],
        ),
        (
            "list",
            &[(Call::Look, Only(1))],
            ERROR,
            &["0  0000:01:02.3  PCI 1b36:0010", "?  ????:??:??.?  does", UNSEEN],
        ),
    ];
    for (line, plans, expected, said) in rows {
        let sides = [0xA0, 0xB1].map(|content| Side::of(9, BLOCKS, move |_| content));
        let handles = boot::start(&[sides[0].manager, sides[1].manager]);
        let (status, out, failed) = run(line, plans);
        let name = format!("{line}, {plans:?}: {out}");
        assert!(failed, "{name}");
        assert_eq!(status, expected, "{name}");
        for words in said {
            assert!(out.contains(words), "{name}: {words}");
        }
        for (side, handle) in sides.iter().zip(&handles) {
            assert_eq!(boot::users(*handle), (true, 0), "{name}");
            assert!(side.manager.written.get() == 0 || status == Status::SUCCESS, "{name}");
        }
    }
}

struct Machine {
    sides: [Side; 2],
    handles: Vec<Handle>,
}

impl Machine {
    fn new() -> Self {
        let sides = [0xA0, 0xB1].map(|content| Side::of(9, BLOCKS, move |_| content));
        let [one, other] = &sides;
        let handles = boot::start(&[one.manager, one.guest, other.manager, other.guest]);
        Self { sides, handles }
    }
}

const LINE: &str =
    "migrate --source-manager 0 --source 1 --source-id 2 --dest-manager 2 --dest 3 --dest-id 2";

fn runs(function: &Function) -> bool {
    let enabled = function.register(CC) & 1 != 0 || function.register(CSTS) & 1 != 0;
    enabled && function.attributes.get() & BUS_MASTER != 0
}

#[test]
fn what_fails_at_one_of_two_managers_is_told_beside_the_other() {
    use Which::Only;
    const AWAY: &str = "the firmware does not give the function away";
    const DRIVERLESS: &str = "no driver of the firmware takes the controller";
    const NOT_AS_BEFORE: &str = "the function's attributes are not restored";
    type Row<'r> = (&'r str, &'r [(Call, Which)], &'r [&'r str]);
    let rows: [Row<'_>; 6] = [
        ("nothing", &[], &[]),
        ("the second is not opened", &[(Call::OpenExclusive, Only(1))], &[AWAY]),
        (
            "nor does the first one's driver come back",
            &[(Call::OpenExclusive, Only(1)), (Call::Connect, Only(1))],
            &[AWAY, DRIVERLESS],
        ),
        (
            "nor its attributes",
            &[(Call::OpenExclusive, Only(1)), (Call::SetAttributes, Only(0))],
            &[AWAY, NOT_AS_BEFORE],
        ),
        (
            "neither is handed back",
            &[(Call::Connect, Only(0)), (Call::Connect, Only(1))],
            &[DRIVERLESS, DRIVERLESS],
        ),
        (
            "neither has its attributes",
            &[(Call::SetAttributes, Only(0)), (Call::SetAttributes, Only(1))],
            &[NOT_AS_BEFORE, NOT_AS_BEFORE],
        ),
    ];
    for (name, plans, said) in rows {
        let Machine { sides: [one, other], .. } = Machine::new();
        let (status, out, failed) = run(LINE, plans);
        assert!(failed, "{name}: {out}");
        assert_eq!(status == Status::SUCCESS, said.is_empty(), "{name}: {out}");
        let errors: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("nvme-lm: ")).collect();
        assert_eq!(errors.len(), said.len(), "{name}: {out}");
        for (error, words) in errors.iter().zip(said) {
            assert!(error.starts_with(words), "{name}: {error}");
        }
        let migrated = out.contains("migrated: ");
        assert_eq!([runs(one.guest), runs(other.guest)], [!migrated, true], "{name}: {out}");
        if migrated {
            assert_eq!(*one.media.bytes.borrow(), *other.media.bytes.borrow(), "{name}");
        }
        assert_eq!(migrated, !errors.iter().any(|error| error.starts_with(AWAY)), "{name}: {out}");
    }
}

#[test]
fn no_function_has_two_parts_in_a_migration() {
    let numbers = |[source_manager, source, dest_manager, dest]: [u32; 4]| {
        format!(
            "migrate --source-manager {source_manager} --source {source} --source-id 2 --dest-manager {dest_manager} \
             --dest {dest} --dest-id 2"
        )
    };
    const ONE: &str =
        "nvme-lm: source and destination are the same controller, or have the same managing controller";
    const MANAGER: &str = "nvme-lm: a managing controller is needed itself and cannot be migrated";
    for (parts, said) in [
        ([0, 1, 0, 3], ONE),
        ([0, 1, 2, 1], ONE),
        ([0, 0, 2, 3], MANAGER),
        ([0, 2, 2, 3], MANAGER),
        ([0, 1, 2, 0], MANAGER),
        ([0, 1, 2, 2], MANAGER),
        ([0, 0, 2, 2], MANAGER),
    ] {
        let Machine { sides, handles } = Machine::new();
        let (status, out, _) = run(&numbers(parts), &[]);
        assert_ne!(status, Status::SUCCESS, "{parts:?}: {out}");
        assert!(out.starts_with(said) && out.lines().count() == 1, "{parts:?}: {out}");
        assert!(handles.iter().all(|handle| boot::users(*handle) == (true, 0)), "{parts:?}");
        for side in &sides {
            assert_eq!(side.guest.written.get(), 0, "{parts:?}");
            for function in [side.manager, side.guest] {
                assert_eq!(function.attributes.get(), MEMORY | BUS_MASTER, "{parts:?}");
            }
        }
    }
}

/// What a migration with calls that fail left, and what it said.
struct Swept<'m> {
    name: &'m str,
    machine: &'m Machine,
    out: &'m str,
}

impl Swept<'_> {
    fn times(&self, words: &str) -> usize {
        self.out.matches(words).count()
    }

    /// Fails unless all that is not as it was at a managing controller is told.
    fn managers_are_as_they_were_or_told(&self) {
        let Self { name, machine: Machine { sides, handles }, .. } = self;
        let managers = [(&sides[0], handles[0]), (&sides[1], handles[2])];
        let count = |is: &dyn Fn(&Function, Handle) -> bool| {
            managers.iter().filter(|(side, handle)| is(side.manager, *handle)).count()
        };
        let still = self.times("the controller is not seen to be disabled");
        let driverless = count(&|_, handle| !boot::users(handle).0);
        let not_taken = self.times("no driver of the firmware takes the controller: ");
        assert_eq!(driverless, not_taken + still, "{name}");
        let changed = count(&|function, _| function.attributes.get() != MEMORY | BUS_MASTER);
        let not_restored = self.times("the function's attributes are not restored: ");
        assert!((not_restored..=not_restored + still).contains(&changed), "{name}");
        let enabled = count(&|function, handle| {
            (function.register(CC) | function.register(CSTS)) & 1 != 0 && !boot::users(handle).0
        });
        assert!(enabled <= still, "{name}");
        assert!(
            count(&|function, _| runs(function)) <= self.times("nor its access to memory") + 2 - driverless,
            "{name}"
        );
        assert_eq!(boot::pool(), 0, "{name}");
        for (handle, side) in handles.iter().zip([&sides[0], &sides[0], &sides[1], &sides[1]]) {
            assert_eq!(boot::users(*handle).1, 0, "{name}");
            let (left, live) = (side.manager.memory.pages(), side.manager.memory.live());
            let told = self.out.contains(&format!("nvme-lm: {left} pages of 4096 bytes stay set aside"));
            assert_eq!(left != 0 || live != (0, 0), told, "{name}");
        }
        let left = count(&|function, _| function.memory.pages() != 0);
        assert_eq!(left, self.times("stay set aside: "), "{name}");
    }
}

#[test]
fn whatever_call_fails_at_a_migration_is_told_for_each_controller() {
    let calls = [
        Call::ReadRegister,
        Call::WriteRegister,
        Call::ReadConfiguration,
        Call::Map,
        Call::Unmap,
        Call::AllocateBuffer,
        Call::FreeBuffer,
        Call::Flush,
        Call::GetLocation,
        Call::Look,
        Call::OpenExclusive,
        Call::Disconnect,
        Call::Connect,
        Call::OpenInformation,
        Call::GetAttributes,
        Call::SupportedAttributes,
        Call::EnableAttributes,
        Call::DisableAttributes,
        Call::SetAttributes,
        Call::LocateHandles,
    ];
    let attributes = |machine: &Machine| machine.sides.each_ref().map(|side| side.guest.attributes.get());
    let run_guests = |machine: &Machine| machine.sides.each_ref().map(|side| side.guest.runs());
    let machine = Machine::new();
    let (status, good, _) = run(LINE, &[]);
    assert!(status == Status::SUCCESS && good.contains("migrated: "), "{good}");
    let (good_attributes, good_runs) = (attributes(&machine), run_guests(&machine));
    assert_eq!(good_runs, [false, true]);
    // Where a function is is told if it is known; where nobody says that it has bus mastering it is given it again.
    let unplaced = |out: &str| {
        out.replace(" (0000:01:02.3)", "")
            .replace("the destination's controller has bus mastering again\n", "")
    };
    let (mut total, mut given_to) = (0, 0);
    for call in calls {
        let mut made = 0;
        for kind in [Which::Only as fn(usize) -> Which, Which::From] {
            made = 0;
            loop {
                let machine = Machine::new();
                let (status, out, failed) = run(LINE, &[(call, kind(made))]);
                let name = format!("{call:?} {:?}: {out}", kind(made));
                if !failed {
                    assert_eq!((status, &out), (Status::SUCCESS, &good), "{name}");
                    break;
                }
                made += 1;
                let swept = Swept { name: &name, machine: &machine, out: &out };
                assert_eq!(status != Status::SUCCESS, swept.times("nvme-lm: ") != 0, "{name}");
                if status == Status::SUCCESS {
                    assert_eq!(unplaced(&out), unplaced(&good), "{name}");
                    assert_eq!(attributes(&machine), good_attributes, "{name}");
                    assert_eq!(run_guests(&machine), good_runs, "{name}");
                }
                // Not all drivers of the machine: the guest's controller would be reset.
                assert_eq!(swept.times("connect -r"), swept.times("connect -r HANDLE"), "{name}");
                swept.managers_are_as_they_were_or_told();
                let [one, other] = &machine.sides;
                // The destination has the queues of the source.
                let given = one.guest.register(ASQ) == other.guest.register(ASQ);
                let guests = run_guests(&machine);
                let both = [one, other].iter().all(|side| side.guest.may_run());
                given_to += usize::from(given);
                assert!(!given || !both, "{name}");
                let stands = ["the controller is not seen to be disabled", "cannot be given it"];
                let told = stands.iter().any(|words| out.contains(words));
                assert!(guests != [false, false] || told, "{name}");
            }
            total += made;
        }
        println!("{call:?}: {made} calls, each failing alone and with all later ones");
        assert_ne!(made, 0, "{call:?} is not made");
    }
    println!(
        "{total} migrations with calls that failed, {given_to} of them behind the hand-over of the state"
    );
    assert!(given_to > 100, "{given_to} of {total}");
}

#[test]
fn a_watch_ends_by_the_timer_of_the_firmware_or_by_its_waits() {
    // (name, calls that fail, seconds asked for, look at which the timer goes off, looks, what it was set to last)
    let (set, last) = (200_000_000, 10_000_000);
    type Row<'r> = (&'r str, &'r [(Call, Which)], u32, u32, u32, u64);
    let endless = "cdq-missing-last";
    let rows: [Row<'_>; 9] = [
        ("at once", &[], 20, 1, 1, set),
        ("later", &[], 20, 40, 40, set),
        ("the waits are over before", &[], 0, 40, 0, 0),
        ("no timer", &[(Call::CreateEvent, Which::From(0))], 1, 0, 0, 0),
        ("it is not set", &[(Call::SetTimer, Which::From(0))], 1, 0, 0, 0),
        // With rules the log has no end, for which it is waited a second.
        ("no end, and a second timer", &[], 20, 2, 4, last),
        ("no end, and the one timer", &[], 0, 3, 3, last),
        ("no end, and the waits", &[], 0, 0, 49_999, last),
        ("no end, and no timer", &[(Call::CreateEvent, Which::From(0))], 1, 0, 0, 0),
    ];
    for (name, plans, seconds, rings, looks, set) in rows {
        let Machine { sides: [one, _], handles } = Machine::new();
        boot::ring_at(rings);
        let is_endless = name.starts_with("no end");
        if is_endless {
            misbehave(&one, endless);
        }
        let line = format!("cdq watch --tracked 2 --entries 64 --seconds {seconds} --controller 0");
        let (status, out, failed) = run(&line, plans);
        assert!(failed, "{name}: {out}");
        assert_eq!(status, Status::SUCCESS, "{name}: {out}");
        assert!(
            out.contains("log started") && out.ends_with(", 0 overflows, 0 violations\n"),
            "{name}: {out}"
        );
        assert_eq!(out.contains("the end of the log has not come in time"), is_endless, "{name}: {out}");
        assert_eq!(out.contains("log stopped"), !is_endless, "{name}: {out}");
        let timer = boot::timer();
        assert_eq!((timer.open, timer.looks, timer.set), (false, looks, set), "{name}: {out}");
        assert_eq!((boot::users(handles[0]), one.manager.memory.live()), ((true, 0), (0, 0)), "{name}");
    }
}

#[test]
fn a_destination_whose_function_is_another_one_is_told_of() {
    const NOT: &str =
        "the function that --dest names is not seen to be that of the controller that --dest-id names";
    let unused = "the destination's function (0000:01:02.3) is not in use: CC.EN is 0, CSTS.RDY is 0; ";
    let unseen = "the destination's function (0000:01:02.3) reads all ones in its registers: ";
    for (name, how, said) in [
        ("disabled", Third::Disabled, unused),
        ("idle", Third::Idle, unused),
        ("all ones", Third::AllOnes, unseen),
    ] {
        let sides = [0xA0, 0xB1, 0xC2].map(|content| Side::of(9, BLOCKS, move |_| content));
        let [one, other, third] = &sides;
        let handles = boot::start(&[one.manager, one.guest, other.manager, other.guest, third.guest]);
        // Nobody drives the right one either.
        other.guest.set_register(CC, 0);
        other.guest.attributes.set(0);
        how.make(third);
        let line = LINE.replace("--dest 3", "--dest 4");
        let (status, out, _) = run(&line, &[]);
        assert_eq!(status, Status::DEVICE_ERROR, "{name}: {out}");
        let errors: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("nvme-lm: ")).collect();
        assert!(errors.len() == 1 && errors[0].starts_with(said) && errors[0].contains(NOT), "{name}: {out}");
        // The guest is there, and stands still.
        assert!(out.contains("migrated: ") && other.guest.register(CC) & 1 == 1, "{name}: {out}");
        assert_eq!(sides.each_ref().map(|side| side.guest.may_run()), [false; 3], "{name}: {out}");
        for handle in [handles[0], handles[2]] {
            assert_eq!(boot::users(handle), (true, 0), "{name}: {out}");
        }
    }
}

#[test]
fn a_source_that_goes_with_the_reset_of_its_manager_is_told_of() {
    for (name, rule, said) in [
        ("it is there for the first look only", "all-ones,controller=2,nth=3", true),
        ("it is not there for the first either", "all-ones,controller=2", false),
    ] {
        let Machine { sides: [one, other], handles } = Machine::new();
        misbehave(&one, rule);
        let (status, out, _) = run(LINE, &[]);
        assert_eq!((status, out.lines().count()), (Status::DEVICE_ERROR, 1), "{name}: {out}");
        assert!(
            out.starts_with("nvme-lm: the source's function (0000:01:02.3) reads all ones"),
            "{name}: {out}"
        );
        let words =
            "it was in use before, which the reset of its managing controller or its user may have ended";
        assert_eq!((out.contains(words), out.contains("--source")), (said, !said), "{name}: {out}");
        for side in [&one, &other] {
            assert_eq!(
                (side.manager.written.get() != 0, side.guest.written.get()),
                (said, 0),
                "{name}: {out}"
            );
        }
        assert!(handles.iter().all(|handle| boot::users(*handle) == (true, 0)), "{name}: {out}");
    }
}

/// How the function of a third subsystem is when the migration begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Third {
    InUse,
    Disabled,
    /// Disabled, and without its memory space.
    Idle,
    AllOnes,
}

impl Third {
    fn make(self, third: &Side) {
        match self {
            Self::InUse => {}
            Self::Disabled => third.guest.set_register(CC, 0),
            Self::Idle => {
                third.guest.set_register(CC, 0);
                third.guest.attributes.set(0);
            }
            Self::AllOnes => {
                misbehave(third, "all-ones");
            }
        }
    }
}

#[test]
fn a_controller_whose_function_is_another_one_does_not_run() {
    const REFUSED: &str = "status=0/02,queue=admin,opcode=41,dw10=1/ff";
    const ELSEWHERE: &str =
        "the migration did not complete, and the function that --dest names is not that of";
    const SUSPENDED: &str =
        "the migration did not complete, and nothing shows that the function that --dest names";
    const UNUSED: &str = "the source's function (0000:01:02.3) is not in use: CC.EN is 0, CSTS.RDY is 0; ";
    const UNSEEN: &str = "the source's function (0000:01:02.3) reads all ones in its registers: ";
    struct Row {
        name: &'static str,
        /// The functions of source and destination.
        functions: [u32; 2],
        third: Third,
        /// What the destination does wrong.
        rules: &'static str,
        said: &'static str,
        /// The managing controller that is kept.
        kept: Option<usize>,
    }
    let source = |name, third, said, kept| Row { name, functions: [4, 3], third, rules: "", said, kept };
    let dest = |name, third, rules, said| Row { name, functions: [1, 4], third, rules, said, kept: Some(1) };
    let nobody = "status=0/02,queue=admin,opcode=41,dw10=1/ff;drop,queue=admin,opcode=42";
    let was_migrated =
        "the guest runs at the destination, or is to, but the function that --source names is not that";
    let rows = [
        source("the source's", Third::InUse, was_migrated, Some(0)),
        source("the source's, disabled", Third::Disabled, UNUSED, None),
        source("the source's, idle", Third::Idle, UNSEEN, None),
        source("the source's, all ones", Third::AllOnes, UNSEEN, None),
        dest("the destination's", Third::InUse, REFUSED, ELSEWHERE),
        dest("the destination's, disabled", Third::Disabled, REFUSED, SUSPENDED),
        dest("the destination's, idle", Third::Idle, REFUSED, SUSPENDED),
        dest("the destination's, all ones", Third::AllOnes, REFUSED, SUSPENDED),
        dest("the destination's, and nobody says that it is suspended", Third::InUse, nobody, SUSPENDED),
    ];
    for Row { name, functions: [source, dest], third: how, rules, said, kept } in rows {
        let sides = [0xA0, 0xB1, 0xC2].map(|content| Side::of(9, BLOCKS, move |_| content));
        let [one, other, third] = &sides;
        let functions = [one.manager, one.guest, other.manager, other.guest, third.guest];
        let handles = boot::start(&functions);
        how.make(third);
        if !rules.is_empty() {
            misbehave(other, rules);
        }
        let line = format!(
            "migrate --source-manager 0 --source {source} --source-id 2 --dest-manager 2 --dest {dest} --dest-id 2"
        );
        let (status, out, _) = run(&line, &[]);
        assert_ne!(status, Status::SUCCESS, "{name}: {out}");
        let errors: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("nvme-lm: ")).collect();
        assert!(errors[0].starts_with(said), "{name}: {out}");
        let Some(kept) = kept else {
            // Nothing was begun.
            assert_eq!((errors.len(), one.guest.runs()), (1, true), "{name}: {out}");
            for handle in handles {
                assert_eq!(boot::users(handle), (true, 0), "{name}: {out}");
            }
            for function in functions {
                assert_eq!(function.written.get(), 0, "{name}: {out}");
            }
            continue;
        };
        assert!(
            errors.len() == 3 && errors[1].contains("pages of 4096 bytes stay set aside"),
            "{name}: {out}"
        );
        assert!(
            errors[2].starts_with("the controller is not seen to be disabled: it stays without"),
            "{name}: {out}"
        );
        let (stuck, free) = if kept == 0 { (one, other) } else { (other, one) };
        assert!(!stuck.guest.may_run() && free.guest.runs(), "{name}: {out}");
        assert!(!runs(stuck.manager) && !runs(third.guest), "{name}: {out}");
        // Its reset would have ended the suspension.
        assert_eq!(stuck.manager.register(CC) & 1, 1, "{name}: {out}");
        assert_eq!(free.manager.register(CC) & 1, 0, "{name}: {out}");
        assert_eq!(boot::users(handles[2 * kept]), (false, 0), "{name}: {out}");
        assert_eq!(boot::users(handles[2 - 2 * kept]), (true, 0), "{name}: {out}");
        // Nor does any command that follows end it.
        let attributes = stuck.manager.attributes.get();
        let commands = ["identify", "read 0 1", "log 2", "cdq watch --tracked 2 --entries 64 --seconds 0"];
        let commands = commands.map(|command| format!("{command} --controller {}", 2 * kept));
        for command in commands.iter().map(String::as_str).chain([LINE, &line]) {
            let (status, out, _) = run(command, &[]);
            assert_eq!((status, out.lines().count()), (Status::DEVICE_ERROR, 1), "{name}, {command}: {out}");
            let refused = "nvme-lm: the controller is enabled, without a driver and without access to memory";
            let not_in_use = "nvme-lm: the source's function (0000:01:02.3) is not in use";
            let unused = command == line && kept == 0;
            let expected = if unused { not_in_use } else { refused };
            assert!(out.starts_with(expected), "{name}, {command}: {out}");
        }
        let registers = format!("registers --controller {}", 2 * kept);
        for (command, said) in [(registers.as_str(), "CC"), ("list", "4  0000:01:02.3")] {
            let (status, out, _) = run(command, &[]);
            assert!(status == Status::SUCCESS && out.contains(said), "{name}, {command}: {out}");
        }
        assert_eq!(stuck.manager.register(CC) & 1, 1, "{name}");
        assert_eq!(stuck.manager.attributes.get(), attributes, "{name}");
        assert!(!stuck.guest.may_run() && free.guest.runs(), "{name}");
        assert_eq!(boot::users(handles[2 * kept]), (false, 0), "{name}");
        assert_eq!(boot::users(handles[2 - 2 * kept]), (true, 0), "{name}");
    }
}
