// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines of the core polled to their end: bring-up, one admin command, the deletion of queues, the end.

use core::time::Duration;

use nvme_core::admin::{AdminPort, AdminRequest, AdminSlot, Call};
use nvme_core::cdq::Quarantined;
use nvme_core::controller::{Disabled, Disabling, EnableOptions, Fault, Quiesced, Ready};
use nvme_core::dma::DmaArena;
use nvme_core::io::{DeleteIoQueuePair, DeleteOutcome, QuarantinedQueuePair};
use nvme_core::register::RegisterIo;
use nvme_core::time::{Instant, Step};
use nvme_core::wire::CompletionQueueEntry;

use super::{DISABLE_TRIES, MAX_ADMIN_TRANSFER, NAP, Pair, READY_LIMIT, SessionError, Undeleted};
use crate::time::Wait;

/// Polls a step machine to its end.
pub(super) fn run<W: Wait + ?Sized, E>(
    time: &W,
    mut poll: impl FnMut(Instant) -> Result<Step, E>,
) -> Result<(), E> {
    loop {
        match poll(time.now())? {
            Step::Again => {}
            Step::Wait(until) => time.sleep(until.since(time.now())),
            Step::Done => return Ok(()),
        }
    }
}

pub(super) fn disable<'d, 's, R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    mut disabling: Disabling<'d, 's, R, A>,
    time: &W,
) -> Result<Disabled<'d, 's, R, A>, SessionError> {
    let mut tries = 1_u32;
    // Nothing else brings memory back: a register that cannot be accessed once is accessed again, from the beginning on.
    while let Err(fault) = run(time, |now| disabling.poll(now)) {
        if !matches!(fault, Fault::RegisterAccess(_)) || tries == DISABLE_TRIES {
            return Err(fault.into());
        }
        tries = tries.saturating_add(1);
        time.sleep(NAP);
    }
    disabling.finish().map_err(|_| Fault::NotDisabledInTime.into())
}

pub(super) fn bring_up<'d, 's, R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    disabling: Disabling<'d, 's, R, A>,
    slots: &'s mut [AdminSlot],
    time: &W,
) -> Result<Ready<'d, 's, R, A>, SessionError> {
    let options = EnableOptions {
        max_transfer: MAX_ADMIN_TRANSFER,
        ready_limit: READY_LIMIT,
        ..EnableOptions::default()
    };
    let mut enabling = match disable(disabling, time)?.enable(&options, slots) {
        Ok(enabling) => enabling,
        Err(rejected) => {
            rejected.disabled.detach();
            return Err(SessionError::Enable(rejected.error));
        }
    };
    let fault = match run(time, |now| enabling.poll(now)) {
        Ok(()) => match enabling.finish() {
            Ok(ready) => return Ok(ready),
            Err(unfinished) => {
                enabling = unfinished;
                Fault::NotReadyInTime
            }
        },
        Err(fault) => fault,
    };
    // It has queues by now, which come back only with its disable.
    if let Ok(disabled) = disable(enabling.abort(), time) {
        disabled.detach();
    }
    Err(fault.into())
}
pub(super) fn release_all<R: RegisterIo, A: DmaArena>(
    proof: &Quiesced<'_>,
    arena: &A,
    undeleted: Undeleted<'_, '_, R, A>,
    kept: &mut [Option<Quarantined>],
) {
    if let Some(pair) = undeleted {
        // The pair is this controller's, so the proof is taken; buffers of its commands go back with it.
        let _ = pair.retire(proof);
    }
    for queue in kept.iter_mut().filter_map(Option::take) {
        queue.release(arena, proof);
    }
}

pub(super) fn delete_pair<'d, 's, R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    controller: &mut Ready<'d, 's, R, A>,
    pair: Pair<'d, 's, R, A>,
    timeout: Duration,
    time: &W,
) -> Result<(), (SessionError, QuarantinedQueuePair<'d, 's, R, A, u64>)> {
    const WHAT: &str = "the deletion of an I/O queue pair";
    let busy = pair.unfinished().next().is_some();
    let mut deletion = DeleteIoQueuePair::new(pair, timeout);
    if busy {
        // A command was given up; the disable that follows ends it.
        return Err((SessionError::TimedOut("an I/O command"), deletion.abandon(controller.admin())));
    }
    while deletion.poll(controller.admin(), time.now()) != Step::Done {
        if let Err(fault) = controller.poll(time.now()) {
            return Err((fault.into(), deletion.abandon(controller.admin())));
        }
        time.sleep(NAP);
    }
    match deletion.finish() {
        Ok(DeleteOutcome::Deleted { .. }) => Ok(()),
        Ok(DeleteOutcome::Quarantined { error, pair }) => Err((SessionError::Admin(WHAT, error), pair)),
        Err(deletion) => Err((SessionError::TimedOut(WHAT), deletion.abandon(controller.admin()))),
    }
}

/// Sends one admin command and waits for it.
pub(super) fn call<R: RegisterIo, A: DmaArena, W: Wait + ?Sized>(
    controller: &mut Ready<'_, '_, R, A>,
    what: &'static str,
    request: AdminRequest,
    bytes: &mut [u8],
    time: &W,
) -> Result<CompletionQueueEntry, SessionError> {
    let mut call = Call::new();
    // A fresh call has room.
    let _ = call.start(request);
    loop {
        let now = time.now();
        if let Err(fault) = controller.poll(now) {
            call.abandon(controller.admin());
            return Err(fault.into());
        }
        if let Some(result) = call.poll(controller.admin(), now) {
            let arena = controller.admin().arena();
            return result.read(arena, bytes).map_err(|error| SessionError::Admin(what, error));
        }
        time.sleep(NAP);
    }
}
