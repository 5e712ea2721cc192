// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls of the firmware that fail, each kind at every place where the program makes it: once, and from there on. Whatever
//! fails is told with what to do, the controller is disabled or kept from memory, and everything is given back or told of.

use std::collections::BTreeSet;

use nvme_core::controller::{Fault, Link};
use nvme_core::register::Offset;
use nvme_core::wire::Lba;
use nvme_core::wire::register::{CC, CSTS};
use nvme_host_uefi::arena::{ArenaSlot, PciArena};
use nvme_host_uefi::program;
use nvme_host_uefi::registers::{PciRegisters, RegisterError};
use nvme_host_uefi::session::{SessionError, Storage};
use nvme_host_uefi::sys::attributes::{BUS_MASTER, MEMORY};
use nvme_host_uefi::takeover::{HandBackError, Takeover, TakeoverError};
use nvme_host_uefi::time::FirmwareTime;
use uefi::{Handle, Status};

use crate::calls::{Call, Which, refuse, refuse_none};
use crate::faults::misbehave;
use crate::sys::{Function, boot};
use crate::world::{NAMESPACE, Side};

/// Blocks of the namespace, few because each row has a subsystem of its own.
const BLOCKS: u64 = 16;
const STILL: &str = "the controller is not seen to be disabled";
const DRIVERLESS: &str = "no driver of the firmware takes the controller: ";
const NOT_AS_BEFORE: &str = "the function's attributes are not restored: ";

fn machine() -> (Side, Handle) {
    let side = Side::of(9, BLOCKS, |lba| lba as u8);
    let handles = boot::start(&[side.manager]);
    (side, handles[0])
}

fn is_disabled(function: &Function) -> bool {
    function.register(CC) & 1 == 0 && function.register(CSTS) & 1 == 0
}

/// Fails unless everything is as it was, or the program has told of what is not.
fn as_it_was_or_told(name: &str, side: &Side, handle: Handle, before: u64, out: &str) {
    let function = side.manager;
    let told = |words: &str| out.contains(words);
    let (driver, others) = boot::users(handle);
    assert_eq!((others, boot::pool()), (0, 0), "{name}: opens and memory of the pool: {out}");
    // One that was not touched is still its driver's.
    let untouched = function.written.get() == 0 && driver;
    if told(STILL) {
        let kept = function.attributes.get() & BUS_MASTER == 0;
        assert_ne!(kept, told("nor its access to memory to be taken away"), "{name}: {out}");
        assert!(!driver, "{name}: {out}");
    } else {
        assert!(is_disabled(function) || untouched, "{name}: {out}");
        assert_eq!(driver, !told(DRIVERLESS), "{name}: {out}");
        assert_eq!(function.attributes.get() == before, !told(NOT_AS_BEFORE), "{name}: {out}");
    }
    // What is left is told of, to the page.
    let left = function.memory.pages();
    let words = format!("nvme-lm: {left} pages of 4096 bytes stay set aside");
    assert_eq!(left != 0, told(&words), "{name}: {left} {out}");
    assert_eq!(left != 0, told("stay set aside: "), "{name}: {left} {out}");
    assert!(left != 0 || function.memory.live() == (0, 0), "{name}: {out}");
}

/// Runs the program with the calls of one plan failing. Returns what it said, and whether any call has failed.
fn run(name: &str, plans: &[(Call, Which)]) -> (String, bool) {
    let (side, handle) = machine();
    let before = side.manager.attributes.get();
    refuse(plans);
    let mut out = String::new();
    let status = program::run("read 0 8".split(' '), &mut out);
    let failed = refuse_none().iter().any(|failed| *failed != 0);
    as_it_was_or_told(name, &side, handle, before, &out);
    let errors: Vec<&str> = out.lines().filter(|line| line.starts_with("nvme-lm: ")).collect();
    assert_eq!(status != Status::SUCCESS, !errors.is_empty(), "{name}: {status} {out}");
    if errors.is_empty() {
        assert!(out.starts_with("0000000000  00") && out.contains("0000000ff0  07 07"), "{name}: {out}");
    }
    (errors.join("\n"), failed)
}

#[test]
fn whatever_call_fails_is_told_and_nothing_is_left() {
    // What is said of the first thing that fails, each for some call at least; nothing: it does not matter.
    let rows: [(Call, &[&str]); 18] = [
        // At the disable, in use, and at the hand-back.
        (Call::ReadRegister, &["register 0x", STILL]),
        (
            Call::WriteRegister,
            &[
                "register 0x14 ",
                "register 0x24 ",
                "register 0x1000 ",
                "cannot be accessed",
                ": lost with",
                STILL,
            ],
        ),
        (Call::ReadConfiguration, &["the function does not say what it is"]),
        (Call::Map, &["device memory"]),
        (Call::AllocateBuffer, &["device memory"]),
        (Call::Unmap, &["pages of 4096 bytes stay set aside"]),
        (Call::FreeBuffer, &["pages of 4096 bytes stay set aside"]),
        (Call::Flush, &[]),
        (Call::GetAttributes, &["the function does not say what it is"]),
        (Call::SupportedAttributes, &["the function does not say what it is"]),
        (Call::EnableAttributes, &["memory space and bus mastering of the function cannot be enabled"]),
        (Call::SetAttributes, &[NOT_AS_BEFORE]),
        (
            Call::Look,
            &["the function does not say what it is", "the firmware does not give the function away"],
        ),
        (Call::OpenExclusive, &["the firmware does not give the function away"]),
        (Call::Disconnect, &["the firmware does not give the function away"]),
        (Call::Connect, &[DRIVERLESS]),
        (Call::OpenInformation, &["the function does not say what it is, or who has it"]),
        (Call::LocateHandles, &["the function does not say what it is"]),
    ];
    let (mut total, mut wrong) = (0, Vec::new());
    for (call, expected) in rows {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut made = 0;
        for kind in [Which::Only as fn(usize) -> Which, Which::From] {
            made = 0;
            loop {
                let which = kind(made);
                let name = format!("{call:?} {which:?}");
                let (errors, failed) = run(&name, &[(call, which)]);
                if !failed {
                    assert_eq!(errors, "", "{name}");
                    break;
                }
                let found: Vec<&str> =
                    expected.iter().copied().filter(|words| errors.contains(words)).collect();
                if errors.is_empty() != found.is_empty() {
                    wrong.push(format!("{name}: {errors}"));
                }
                seen.extend(found);
                made += 1;
            }
            total += made;
        }
        assert_ne!(made, 0, "{call:?} is not made");
        println!("{call:?}: {made} calls, each failing alone and with all later ones");
        if seen.len() != expected.len() {
            wrong.push(format!("{call:?}: not all is said, but {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{total} runs with calls that failed");
}

/// How a take-over ended, and the hand-back behind it.
type Ended = Result<Result<(), HandBackError>, TakeoverError>;

/// A take-over with one session, in which blocks are read unless something fails.
fn once(handle: Handle) -> Ended {
    let taken = Takeover::open(handle)?;
    let (mut slots, mut storage) = ([const { ArenaSlot::new() }; 32], Storage::new());
    let (registers, time, link) = (PciRegisters::new(taken.io()), FirmwareTime::new(), Link::new());
    let arena = PciArena::new(taken.io(), &mut slots);
    match taken.session(&registers, &arena, &link, &mut storage, &time) {
        Err(TakeoverError::Session(_)) => {}
        Err(error) => return Err(error),
        Ok(mut session) => {
            let read = session.read(NAMESPACE, Lba::new(0), 8, |_| Ok::<(), SessionError>(()));
            assert_eq!((read, session.close()), (Ok(()), Ok(())));
        }
    }
    Ok(taken.hand_back())
}

#[test]
fn what_fails_at_a_take_over_is_typed() {
    use Which::{From, Only};
    const ERROR: Status = Status::DEVICE_ERROR;
    const DENIED: Status = Status::ACCESS_DENIED;
    type Row<'r> = (&'r str, &'r [(Call, Which)], Ended, bool);
    let disconnect = (Call::Disconnect, From(0));
    // (name, calls that fail, what comes of it, whether the driver has the function then)
    let rows: [Row<'_>; 15] = [
        ("nothing", &[], Ok(Ok(())), true),
        ("it is not opened", &[(Call::Look, Only(0))], Err(TakeoverError::Open(ERROR)), true),
        ("no class", &[(Call::ReadConfiguration, Only(0))], Err(TakeoverError::Look(ERROR)), true),
        ("no attributes", &[(Call::GetAttributes, Only(0))], Err(TakeoverError::Look(ERROR)), true),
        (
            "none that are supported",
            &[(Call::SupportedAttributes, Only(0))],
            Err(TakeoverError::Look(ERROR)),
            true,
        ),
        (
            "nobody says who has it",
            &[(Call::OpenInformation, Only(0))],
            Err(TakeoverError::Look(ERROR)),
            true,
        ),
        ("the driver stays", &[disconnect], Err(TakeoverError::Open(DENIED)), true),
        (
            "it stays, and nobody says so",
            &[disconnect, (Call::OpenInformation, Only(1))],
            Err(TakeoverError::NotUndone(DENIED, HandBackError::Connect(Status::NOT_FOUND))),
            true,
        ),
        ("it goes for nothing", &[(Call::OpenExclusive, Only(0))], Err(TakeoverError::Open(ERROR)), true),
        (
            "it goes and does not come back",
            &[(Call::OpenExclusive, Only(0)), (Call::Connect, Only(0))],
            Err(TakeoverError::NotUndone(ERROR, HandBackError::Connect(ERROR))),
            false,
        ),
        ("nothing is enabled", &[(Call::EnableAttributes, Only(0))], Err(TakeoverError::Enable(ERROR)), true),
        (
            "nor is it undone",
            &[(Call::EnableAttributes, Only(0)), (Call::SetAttributes, Only(0))],
            Err(TakeoverError::NotUndone(ERROR, HandBackError::Attributes(ERROR))),
            true,
        ),
        (
            "attributes stay",
            &[(Call::SetAttributes, Only(0))],
            Ok(Err(HandBackError::Attributes(ERROR))),
            true,
        ),
        ("no driver takes it", &[(Call::Connect, Only(0))], Ok(Err(HandBackError::Connect(ERROR))), false),
        (
            "neither disabled nor kept from memory",
            &[(Call::WriteRegister, From(0)), (Call::DisableAttributes, Only(0))],
            Ok(Err(HandBackError::StillMaster(ERROR))),
            false,
        ),
    ];
    for (name, plans, expected, driver) in rows {
        let (side, handle) = machine();
        refuse(plans);
        let ended = once(handle);
        let failed = refuse_none();
        assert!(failed.iter().all(|failed| *failed != 0), "{name}: {failed:?}");
        assert_eq!(ended, expected, "{name}");
        assert_eq!((boot::users(handle), boot::pool()), ((driver, 0), 0), "{name}");
        assert_eq!(side.manager.memory.live(), (0, 0), "{name}");
        // Each says what to do.
        let words = match ended {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        assert!(
            words.contains("; ") && (words.contains(" in the shell)") || words.contains("reset")),
            "{words}"
        );
        // Not all drivers of the machine: those of other controllers would be reset.
        assert_eq!(
            words.matches("connect -r").count(),
            words.matches("connect -r HANDLE").count(),
            "{words}"
        );
    }
}

#[test]
fn a_controller_that_is_kept_from_memory_is_not_taken_over() {
    const BOTH: u64 = MEMORY | BUS_MASTER;
    let unread = &[(Call::ReadRegister, Which::From(0))];
    // (name, whether it has a driver, attributes, CC.EN, calls that fail, how it ends)
    type Row<'r> = (&'r str, bool, u64, u32, &'r [(Call, Which)], Result<(), TakeoverError>);
    let look = Err(TakeoverError::Look(Status::DEVICE_ERROR));
    let rows: [Row<'_>; 8] = [
        ("kept", false, MEMORY, 1, &[], Err(TakeoverError::Kept)),
        ("nothing shows that it is not", false, MEMORY, 1, unread, look),
        ("it has a driver", true, MEMORY, 1, &[], Ok(())),
        ("it has bus mastering", false, BOTH, 1, &[], Ok(())),
        ("it has both", true, BOTH, 1, &[], Ok(())),
        ("it is disabled", false, MEMORY, 0, &[], Ok(())),
        ("nobody drives it", false, 0, 0, &[], Ok(())),
        ("without its memory space", false, 0, 1, &[], Ok(())),
    ];
    for (name, driver, attributes, enabled, calls, expected) in rows {
        let (side, handle) = machine();
        if !driver {
            boot::disconnect(handle);
        }
        side.manager.set_register(CC, enabled);
        side.manager.attributes.set(attributes);
        side.manager.written.set(0);
        refuse(calls);
        let ended = once(handle);
        let failed = refuse_none();
        assert!(failed.iter().all(|failed| *failed != 0), "{name}: {failed:?}");
        match expected {
            Ok(()) => assert_eq!(ended, Ok(Ok(())), "{name}"),
            Err(error) => assert_eq!(ended, Err(error), "{name}"),
        }
        assert_eq!(side.manager.written.get() != 0, expected.is_ok(), "{name}");
        assert_eq!((side.manager.attributes.get(), boot::users(handle)), (attributes, (driver, 0)), "{name}");
    }
    assert!(TakeoverError::Kept.to_string().ends_with("; reset the machine"));
}

#[test]
fn all_ones_are_no_rest_unless_the_function_is_gone() {
    let still = Err(HandBackError::StillEnabled);
    for (name, gone, expected, driver) in
        [("registers only", false, still, false), ("configuration space, too", true, Ok(()), true)]
    {
        let (side, handle) = machine();
        let taken = Takeover::open(handle).expect(name);
        let (mut slots, mut storage) = ([const { ArenaSlot::new() }; 32], Storage::new());
        let (registers, time, link) = (PciRegisters::new(taken.io()), FirmwareTime::new(), Link::new());
        let arena = PciArena::new(taken.io(), &mut slots);
        let session = taken.session(&registers, &arena, &link, &mut storage, &time).expect(name);
        misbehave(&side, "all-ones");
        side.manager.gone.set(gone);
        assert_eq!(session.close(), Err(SessionError::Fault(Fault::Removed)), "{name}");
        assert_ne!(arena.held(), 0, "{name}");
        assert_eq!(taken.hand_back(), expected, "{name}");
        let is_master = side.manager.attributes.get() & BUS_MASTER != 0;
        assert_eq!((is_master, boot::users(handle)), (driver, (driver, 0)), "{name}");
    }
}

#[test]
fn registers_that_fail_are_named() {
    let (side, _) = machine();
    let registers = PciRegisters::new(&side.manager.io);
    let error = RegisterError { offset: Offset::CSTS, status: Status::DEVICE_ERROR };
    refuse(&[(Call::ReadRegister, Which::Only(0)), (Call::WriteRegister, Which::Only(0))]);
    use nvme_core::register::RegisterIo;
    assert_eq!(registers.read32(Offset::CSTS), Err(error));
    assert_eq!(registers.write32(Offset::CSTS, 0), Err(error));
    assert_eq!(refuse_none(), [1, 1]);
    assert!(error.to_string().contains("register 0x1c: ") && error.to_string().contains("; see whether"));
}
