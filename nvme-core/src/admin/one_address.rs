// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controllers whose arenas have no bytes and so may have one address: what shows something about the one shows nothing
//! about the other.

use core::time::Duration;

use super::*;
use crate::cdq::{CdqCreation, CdqOptions};
use crate::controller::{EnableOptions, Link};
use crate::dma::{self, Pool};
use crate::io::{CreateIoQueuePair, CreateOutcome, DeleteIoQueuePair, DeleteOutcome, IoQueueOptions, IoSlot};
use crate::queue::Slot;
use crate::testing::device::Device;
use crate::testing::empty::{First, Second, at_one_address};
use crate::testing::life::{disabled, ready, slots};
use crate::time::{Instant, Step};
use crate::wire::{ControllerId, ManagerId, QueueId, TrackedId};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn memory_of_one_controller_does_not_go_back_on_what_another_shows() {
    let arenas = at_one_address();
    assert_eq!(dma::identity(arenas.0), dma::identity(arenas.1));
    let devices = [Device::new(First::memory()), Device::new(Second::memory())];
    let links = [Link::new(), Link::new()];
    let mut memory = slots(8);
    let options = EnableOptions::default();
    let mut one = ready(&devices[0], arenas.0, &links[0], &options, &mut memory);
    let two = disabled(&devices[1], arenas.1, &links[1]);
    let tracked = TrackedId::new(ControllerId::new(1), ManagerId::new(ControllerId::new(7))).unwrap();
    let mut quarantined = || {
        let mut creation = CdqCreation::new(one.admin(), tracked, &CdqOptions::default()).unwrap();
        let mut now = Instant::ZERO;
        loop {
            let _ = one.poll(now);
            if let Some(ended) = creation.poll(one.admin(), now) {
                break ended.unwrap_err().quarantined.expect("not answered");
            }
            now = now.after(SECOND);
        }
    };
    let (early, late) = (quarantined(), quarantined());
    let live = || First::memory().live(Pool::ControllerData);
    assert_eq!(live(), 2);
    early.release(arenas.0, &two.quiesced());
    assert_eq!(live(), 2, "leaked: the first controller may still write it");
    let mut machine = one.disable();
    let mut now = Instant::ZERO;
    crate::testing::life::run(&mut now, |now| machine.poll(now)).unwrap();
    late.release(arenas.0, &machine.finish().unwrap().quiesced());
    assert_eq!(live(), 1, "its own proof");
}

#[test]
fn queues_of_one_controller_are_not_deleted_through_another() {
    let (first, second) = at_one_address();
    let devices = [Device::new(First::memory()), Device::new(Second::memory())];
    let links = [Link::new(), Link::new()];
    let (mut mine, mut theirs) = (slots(8), slots(8));
    let options = EnableOptions::default();
    let mut one = ready(&devices[0], first, &links[0], &options, &mut mine);
    let mut two = ready(&devices[1], second, &links[1], &options, &mut theirs);
    assert_eq!(dma::identity(one.admin().arena()), dma::identity(two.admin().arena()));
    let mut memory: [IoSlot<()>; 2] = [Slot::new(), Slot::new()];
    let queue = IoQueueOptions { max_transfer: 4096, ..IoQueueOptions::new(QueueId::new(1), 4) };
    let mut machine =
        CreateIoQueuePair::new(one.admin(), &queue, &mut memory).map_err(|(error, _)| error).unwrap();
    while machine.poll(one.admin(), Instant::ZERO) != Step::Done {
        one.poll(Instant::ZERO).unwrap();
    }
    let Ok(CreateOutcome::Created(pair)) = machine.finish() else { panic!("created") };
    let live = First::memory().live(Pool::Queues);
    devices[1].on_command(|_, _| crate::testing::device::SUCCESS);
    let mut deletion = DeleteIoQueuePair::new(pair, SECOND);
    while deletion.poll(two.admin(), Instant::ZERO) != Step::Done {
        two.poll(Instant::ZERO).unwrap();
    }
    let Ok(DeleteOutcome::Quarantined { error, .. }) = deletion.finish() else { panic!("not deleted") };
    assert_eq!(error, CallError::NotSubmitted(SubmitError::NotReady));
    assert_eq!(First::memory().live(Pool::Queues), live, "the first controller still has them");
    assert_eq!(devices[0].io_queues(), (1, 1));
}
