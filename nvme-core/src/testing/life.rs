// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bring-up of the scripted device, for tests that start with a controller in use.
#![allow(unsafe_code, reason = "attaching takes the test's word that the fake device is a device")]

use std::vec::Vec;

use super::TestArena;
use super::device::Device;
use crate::admin::AdminSlot;
use crate::controller::{Disabled, Disabling, EnableOptions, Fault, Link, Ready, attach};
use crate::dma::DmaArena;
use crate::time::{Instant, Step};

pub(crate) type TestReady<'d, 'a, 's> = Ready<'d, 's, Device<'a>, TestArena>;

/// Runs a machine to its end, jumping to each time it waits for; the result and the time that passed.
pub(crate) fn run(
    now: &mut Instant,
    mut poll: impl FnMut(Instant) -> Result<Step, Fault>,
) -> Result<(), Fault> {
    for _ in 0..200_000 {
        match poll(*now)? {
            Step::Again => {}
            Step::Wait(until) => {
                assert!(until > *now, "waits for a time that has not come");
                *now = until;
            }
            Step::Done => return Ok(()),
        }
    }
    panic!("the machine does not end");
}

pub(crate) fn slots(count: usize) -> Vec<AdminSlot> {
    (0..count).map(|_| AdminSlot::new()).collect()
}

pub(crate) fn attach_to<'d, 'a, 's, A: DmaArena>(
    device: &'d Device<'a>,
    arena: &'d A,
    link: &'d Link,
) -> Disabling<'d, 's, Device<'a>, A> {
    // SAFETY: the device is a fake of this test and has no other driver; nothing is released early.
    unsafe { attach(device, arena, link) }.unwrap()
}

pub(crate) fn disabled<'d, 'a, 's, A: DmaArena>(
    device: &'d Device<'a>,
    arena: &'d A,
    link: &'d Link,
) -> Disabled<'d, 's, Device<'a>, A> {
    let mut machine = attach_to(device, arena, link);
    run(&mut Instant::ZERO.clone(), |now| machine.poll(now)).unwrap();
    machine.finish().unwrap()
}

pub(crate) fn ready<'d, 'a, 's, A: DmaArena>(
    device: &'d Device<'a>,
    arena: &'d A,
    link: &'d Link,
    options: &EnableOptions,
    slots: &'s mut [AdminSlot],
) -> Ready<'d, 's, Device<'a>, A> {
    let mut machine = disabled(device, arena, link).enable(options, slots).unwrap();
    run(&mut Instant::ZERO.clone(), |now| machine.poll(now)).unwrap();
    machine.finish().unwrap()
}
