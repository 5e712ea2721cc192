// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ring between a device and a driver that sleeps: the order of an entry and what its writer did before, and the
//! one-shot trigger of a Controller Data Queue.

// Not loom's: it cannot be dropped once a model has failed, and two of them are to fail.
use std::sync::Arc;
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::model;
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use nvme_core::ring::{self, PhaseConsumer, PhaseProducer};

use crate::sync::Signal;

const SIZE: u32 = 3;
const NO_LIMIT: Duration = Duration::MAX;

/// What the device knows. It does one thing at a time, as the lock says.
struct Device {
    producer: PhaseProducer,
    /// The tail at which an event is raised, once.
    trigger: Option<u32>,
}

/// A slot: the word with the phase tag, and memory that the entry's order has to protect. loom tracks accesses to it.
struct Slot {
    word: AtomicU32,
    rest: UnsafeCell<()>,
}

struct Queue {
    slots: Vec<Slot>,
    device: Mutex<Device>,
    signal: Signal,
}

impl Queue {
    fn new() -> Arc<Self> {
        let slot = || Slot { word: AtomicU32::new(0), rest: UnsafeCell::new(()) };
        Arc::new(Self {
            slots: (0..SIZE).map(|_| slot()).collect(),
            device: Mutex::new(Device { producer: PhaseProducer::new(SIZE), trigger: None }),
            signal: Signal::new(),
        })
    }

    /// The device posts an entry. With `always` it signals each one, as an interrupt vector does, else only the one
    /// that brings the tail to the trigger.
    fn post(&self, value: u32, always: bool) {
        let mut device = self.device.lock().unwrap();
        let (slot, tag) = (&self.slots[device.producer.tail() as usize], device.producer.phase());
        assert!(device.producer.advance(), "the model never fills the queue");
        slot.rest.with_mut(|_| ());
        slot.word.store(value << 1 | u32::from(tag), Ordering::Release);
        let fires = device.trigger == Some(device.producer.tail());
        if fires {
            device.trigger = None;
        }
        drop(device);
        if fires || always {
            self.signal.notify();
        }
    }

    /// The driver takes the next entry, looking at the phase tag in the given order.
    fn take(&self, consumer: &mut PhaseConsumer, order: Ordering) -> Option<u32> {
        let slot = &self.slots[consumer.head() as usize];
        let word = slot.word.load(order);
        consumer.is_new(word & 1 != 0).then(|| {
            slot.rest.with(|_| ());
            consumer.advance();
            word >> 1
        })
    }

    /// The command that publishes the head and arms the trigger. A trigger at or behind the tail never fires.
    fn publish_and_arm(&self, head: u32) {
        let mut device = self.device.lock().unwrap();
        device.producer.set_head(head).unwrap();
        device.trigger = Some(ring::next(head, SIZE));
    }
}

/// The device posts two entries while the driver takes them; `rescan` is the look after arming.
fn armed(order: Ordering, rescan: bool) {
    model(move || {
        let queue = Queue::new();
        let theirs = Arc::clone(&queue);
        let device = thread::spawn(move || {
            for value in 1..=2 {
                theirs.post(value, false);
            }
        });
        let mut consumer = PhaseConsumer::new(SIZE);
        let mut expected = 1;
        while expected <= 2 {
            while let Some(value) = queue.take(&mut consumer, order) {
                assert_eq!(value, expected);
                expected += 1;
            }
            if expected > 2 {
                break;
            }
            queue.publish_and_arm(consumer.head());
            if rescan && let Some(value) = queue.take(&mut consumer, order) {
                assert_eq!(value, expected);
                expected += 1;
                continue;
            }
            queue.signal.wait(NO_LIMIT);
        }
        device.join().unwrap();
    });
}

#[test]
fn publish_and_arm_then_look_again_then_sleep_misses_nothing() {
    armed(Ordering::Acquire, true);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_second_look_an_entry_is_missed() {
    armed(Ordering::Acquire, false);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_phase_tag_read_without_acquire_orders_nothing() {
    armed(Ordering::Relaxed, true);
}

/// The completion queue's way: every entry is signalled, and the signal is remembered.
#[test]
fn post_and_signal_against_look_and_sleep_misses_nothing() {
    model(|| {
        let queue = Queue::new();
        let theirs = Arc::clone(&queue);
        let device = thread::spawn(move || {
            for value in 1..=2 {
                theirs.post(value, true);
            }
        });
        let mut consumer = PhaseConsumer::new(SIZE);
        let mut expected = 1;
        while expected <= 2 {
            match queue.take(&mut consumer, Ordering::Acquire) {
                Some(value) => {
                    assert_eq!(value, expected);
                    expected += 1;
                }
                None => assert!(queue.signal.wait(NO_LIMIT)),
            }
        }
        device.join().unwrap();
    });
}
