// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which calls of the firmware fail, for each test by itself.

use std::cell::RefCell;

use uefi::Status;

/// Calls of EFI_PCI_IO_PROTOCOL and of the boot services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    ReadRegister,
    WriteRegister,
    ReadConfiguration,
    Map,
    Unmap,
    AllocateBuffer,
    FreeBuffer,
    Flush,
    GetLocation,
    GetAttributes,
    SupportedAttributes,
    EnableAttributes,
    DisableAttributes,
    SetAttributes,
    /// OpenProtocol beside others.
    Look,
    /// OpenProtocol for oneself; the driver has gone by then.
    OpenExclusive,
    /// DisconnectController, by which the firmware makes way for that.
    Disconnect,
    Connect,
    OpenInformation,
    LocateHandles,
    CreateEvent,
    SetTimer,
}

/// Which of the calls of one kind fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// This one, counted from zero.
    Only(usize),
    /// This one and all later ones.
    From(usize),
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    call: Call,
    which: Which,
    calls: usize,
    failed: usize,
}

thread_local! {
    static PLANS: RefCell<Vec<Plan>> = const { RefCell::new(Vec::new()) };
}

/// From now on these calls fail.
pub(crate) fn refuse(plans: &[(Call, Which)]) {
    let plans = plans.iter().map(|(call, which)| Plan { call: *call, which: *which, calls: 0, failed: 0 });
    PLANS.with_borrow_mut(|all| *all = plans.collect());
}

/// No call fails any more. Returns how many of each plan have failed.
pub(crate) fn refuse_none() -> Vec<usize> {
    PLANS.with_borrow_mut(|all| all.drain(..).map(|plan| plan.failed).collect())
}

/// Counts a call. What it answers if it is to fail.
pub(crate) fn refused(call: Call) -> Option<Status> {
    PLANS.with_borrow_mut(|all| {
        let mut refused = None;
        for plan in all.iter_mut().filter(|plan| plan.call == call) {
            let fails = match plan.which {
                Which::Only(number) => plan.calls == number,
                Which::From(number) => plan.calls >= number,
            };
            plan.calls += 1;
            if fails {
                plan.failed += 1;
                refused = Some(Status::DEVICE_ERROR);
            }
        }
        refused
    })
}
