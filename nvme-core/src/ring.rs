// SPDX-License-Identifier: MIT OR Apache-2.0
//! Index arithmetic of rings, and the phase tag: pure values, no memory.
//!
//! A ring of `size` slots has indices below `size` and holds at most `size - 1` entries (NVMe Base 2.1 §3.3.1,
//! Queue Operation). Completion queues and Controller Data Queues are consumed alike: [`PhaseConsumer`] is the one
//! consumer of both, [`PhaseProducer`] its counterpart in a controller. They know indices and tags; where entries lie
//! and how a head is published differs and stays outside.
//!
//! Every function is total: an index outside the ring gives an unspecified value, never a panic.

/// The index after `index`. NVMe Base 2.1 §3.3.1.4, wrap of head and tail.
#[must_use]
pub const fn next(index: u32, size: u32) -> u32 {
    let after = index.wrapping_add(1);
    if after >= size { 0 } else { after }
}

/// The index `by` slots after `index`; `by` may be larger than the ring.
#[must_use]
pub const fn advance(index: u32, by: u32, size: u32) -> u32 {
    match (index as u64).wrapping_add(by as u64).checked_rem(size as u64) {
        Some(index) => index as u32,
        None => 0,
    }
}

/// Slots from `from` forward to `to`: 0 if they are equal, at most `size - 1`.
#[must_use]
pub const fn distance(from: u32, to: u32, size: u32) -> u32 {
    if to >= from { to.wrapping_sub(from) } else { size.wrapping_sub(from.wrapping_sub(to)) }
}

/// Whether a ring with this head and tail holds no entry. NVMe Base 2.1 §3.3.1.4, Empty Queue.
#[must_use]
pub const fn is_empty(head: u32, tail: u32) -> bool {
    head == tail
}

/// Whether a ring with this head and tail takes no further entry. NVMe Base 2.1 §3.3.1.5, Full Queue.
#[must_use]
pub const fn is_full(head: u32, tail: u32, size: u32) -> bool {
    next(tail, size) == head
}

/// Slots that can still be filled: `size - 1` minus the entries in the ring.
#[must_use]
pub const fn free(head: u32, tail: u32, size: u32) -> u32 {
    size.saturating_sub(1).saturating_sub(distance(head, tail, size))
}

/// Whether a peer that has reported `head` may now report `reported`: no way back and not past `tail`.
///
/// This is the check of a head that a device writes (SQHD) or a host writes (completion queue doorbell, Head Pointer
/// of a Controller Data Queue); staying in place is allowed here.
#[must_use]
pub const fn head_may_become(head: u32, reported: u32, tail: u32, size: u32) -> bool {
    reported < size && distance(head, reported, size) <= distance(head, tail, size)
}

/// The consumer of a ring whose entries carry a phase tag, for completion queues and Controller Data Queues.
///
/// The tag of a new entry is 1 in the first lap and inverts at every wrap; the memory starts with tag 0.
/// NVMe Base 2.1 §4.2.4, Phase Tag; §8.1.6.2 for Controller Data Queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseConsumer {
    head: u32,
    size: u32,
    phase: bool,
}

impl PhaseConsumer {
    /// The consumer of an empty ring of `size` slots whose memory has tag 0 everywhere.
    #[must_use]
    pub const fn new(size: u32) -> Self {
        Self { head: 0, size, phase: true }
    }

    /// Index of the slot that the next entry will be found in.
    #[must_use]
    pub const fn head(&self) -> u32 {
        self.head
    }

    /// Number of slots.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// The tag that a new entry at [`head`](Self::head) carries.
    #[must_use]
    pub const fn phase(&self) -> bool {
        self.phase
    }

    /// Whether an entry at [`head`](Self::head) with tag `tag` is a new one.
    #[must_use]
    pub const fn is_new(&self, tag: bool) -> bool {
        tag == self.phase
    }

    /// Moves past the entry at the head, which has been consumed.
    pub const fn advance(&mut self) {
        self.head = next(self.head, self.size);
        if self.head == 0 {
            self.phase = !self.phase;
        }
    }
}

/// The producer of a ring whose entries carry a phase tag: the controller's half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseProducer {
    tail: u32,
    head: u32,
    size: u32,
    phase: bool,
}

/// The host set a head that lies outside the ring or past the entries posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHead {
    /// The head the host set.
    pub value: u32,
    /// The head it had set before.
    pub head: u32,
    /// The slot that will be filled next.
    pub tail: u32,
}

impl core::error::Error for InvalidHead {}

impl core::fmt::Display for InvalidHead {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "head {} is not between the last head {} and the tail {}; set a slot in that range",
            self.value, self.head, self.tail
        )
    }
}

impl PhaseProducer {
    /// The producer of an empty ring of `size` slots.
    #[must_use]
    pub const fn new(size: u32) -> Self {
        Self { tail: 0, head: 0, size, phase: true }
    }

    /// The producer of a ring taken over with entries in it, `None` if an index lies outside the ring.
    ///
    /// `slot_zero` is the tag that slot 0 holds now, as a saved controller state carries it (S0PT).
    #[must_use]
    pub const fn restore(size: u32, head: u32, tail: u32, slot_zero: bool) -> Option<Self> {
        if head >= size || tail >= size {
            return None;
        }
        Some(Self { tail, head, size, phase: if tail == 0 { !slot_zero } else { slot_zero } })
    }

    /// Index of the slot that will be filled next.
    #[must_use]
    pub const fn tail(&self) -> u32 {
        self.tail
    }

    /// The last head the host reported.
    #[must_use]
    pub const fn head(&self) -> u32 {
        self.head
    }

    /// Number of slots.
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// The tag of the next entry.
    #[must_use]
    pub const fn phase(&self) -> bool {
        self.phase
    }

    /// The tag that slot 0 holds now (S0PT of a saved controller state).
    #[must_use]
    pub const fn slot_zero(&self) -> bool {
        if self.tail == 0 { !self.phase } else { self.phase }
    }

    /// Entries posted that the host has not reported as consumed.
    #[must_use]
    pub const fn occupied(&self) -> u32 {
        distance(self.head, self.tail, self.size)
    }

    /// Entries that can be posted before the host reports another head.
    #[must_use]
    pub const fn free(&self) -> u32 {
        free(self.head, self.tail, self.size)
    }

    /// Whether no entry can be posted.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        is_full(self.head, self.tail, self.size)
    }

    /// Moves past the slot at the tail, which now holds an entry; `false`, and nothing happens, if the ring is full.
    ///
    /// Call it only after the entry has been written: a failed write then leaves tail and tag as they were.
    #[must_use]
    pub const fn advance(&mut self) -> bool {
        if self.is_full() {
            return false;
        }
        self.tail = next(self.tail, self.size);
        if self.tail == 0 {
            self.phase = !self.phase;
        }
        true
    }

    /// Takes the head the host reports; returns how many slots became free, zero if the head did not move.
    ///
    /// # Errors
    /// [`InvalidHead`] if it lies outside the ring or past the tail; nothing changes then.
    pub const fn set_head(&mut self, head: u32) -> Result<u32, InvalidHead> {
        if !head_may_become(self.head, head, self.tail, self.size) {
            return Err(InvalidHead { value: head, head: self.head, tail: self.tail });
        }
        let freed = distance(self.head, head, self.size);
        self.head = head;
        Ok(freed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wrap_at_every_index_of_small_rings() {
        for size in [2, 3, 4, 5, 8, 63, 64, 65] {
            for index in 0..size {
                assert_eq!(next(index, size), (index + 1) % size, "next of {index} in {size}");
                for by in [0, 1, size - 1, size, size + 1, 3 * size + 2] {
                    assert_eq!(advance(index, by, size), (index + by) % size, "{index} + {by} in {size}");
                }
                for to in 0..size {
                    let walked = (0..size).find(|&n| advance(index, n, size) == to);
                    assert_eq!(Some(distance(index, to, size)), walked, "{index} to {to} in {size}");
                    assert_eq!(free(index, to, size) == 0, is_full(index, to, size));
                }
                assert!(is_empty(index, index));
                assert_eq!(free(index, index, size), size - 1);
            }
        }
    }

    #[test]
    fn largest_rings() {
        for size in [65_536, 1 << 29, u32::MAX] {
            assert_eq!(next(size - 1, size), 0);
            assert_eq!(distance(size - 1, 0, size), 1);
            assert_eq!(distance(1, 0, size), size - 1);
            assert_eq!(advance(size - 1, size, size), size - 1);
            assert!(is_full(0, size - 1, size));
        }
    }

    #[test]
    fn indices_outside_the_ring_do_not_panic() {
        for (name, value) in [
            ("advance in a ring without slots", advance(3, 4, 0)),
            ("next past the end", next(u32::MAX, 8)),
            ("next at the end of the numbers", next(u32::MAX, u32::MAX)),
            ("free of nothing", free(5, 2, 0)),
        ] {
            assert_eq!(value, 0, "{name}");
        }
        assert!(!head_may_become(0, 8, 4, 8));
    }

    #[test]
    fn heads_a_peer_may_report() {
        for (name, head, reported, tail, size, legal) in [
            ("stays", 2, 2, 5, 8, true),
            ("moves to the tail", 2, 5, 5, 8, true),
            ("past the tail", 2, 6, 5, 8, false),
            ("backwards", 2, 1, 5, 8, false),
            ("over the wrap", 6, 1, 2, 8, true),
            ("over the wrap, past the tail", 6, 3, 2, 8, false),
            ("empty ring, other slot", 3, 4, 3, 8, false),
            ("outside", 2, 8, 5, 8, false),
            ("far outside", 2, u32::MAX, 5, 8, false),
        ] {
            assert_eq!(head_may_become(head, reported, tail, size), legal, "{name}");
        }
    }

    #[test]
    fn state_taken_over_with_the_tag_of_slot_zero() {
        for size in [2, 3, 8] {
            let mut producer = PhaseProducer::new(size);
            for _ in 0..3 * size {
                let copy =
                    PhaseProducer::restore(size, producer.head(), producer.tail(), producer.slot_zero());
                assert_eq!(copy, Some(producer));
                assert!(producer.advance());
                assert_eq!(producer.set_head(producer.tail()), Ok(1));
            }
        }
        assert_eq!(PhaseProducer::restore(4, 4, 0, true), None);
        assert_eq!(PhaseProducer::restore(4, 0, 9, true), None);
    }

    proptest! {
        /// Producer and consumer over a real array of tags against a queue of numbers.
        #[test]
        fn producer_and_consumer_agree_with_a_queue(size in 2_u32..40, steps in prop::collection::vec(0_u8..4, 0..400)) {
            let mut memory: Vec<(u32, bool)> = std::vec![(0, false); size as usize];
            let (mut producer, mut consumer) = (PhaseProducer::new(size), PhaseConsumer::new(size));
            let (mut model, mut number) = (VecDeque::new(), 0);
            // Consumed by the host and not yet reported.
            let mut unreported = 0_u32;
            for step in steps {
                match step {
                    0 | 1 => {
                        let room = model.len() as u32 + unreported < size - 1;
                        prop_assert_eq!(room, !producer.is_full());
                        let (slot, tag) = (producer.tail() as usize, producer.phase());
                        if producer.advance() {
                            number += 1;
                            memory[slot] = (number, tag);
                            model.push_back(number);
                        }
                    }
                    2 => {
                        let (value, tag) = memory[consumer.head() as usize];
                        if consumer.is_new(tag) {
                            prop_assert_eq!(model.pop_front(), Some(value));
                            consumer.advance();
                            unreported += 1;
                        } else {
                            prop_assert!(model.is_empty());
                        }
                    }
                    _ => {
                        prop_assert_eq!(producer.set_head(consumer.head()), Ok(unreported));
                        unreported = 0;
                    }
                }
                prop_assert_eq!(producer.slot_zero(), memory[0].1);
                prop_assert_eq!(producer.occupied(), model.len() as u32 + unreported);
                prop_assert_eq!(producer.free(), size - 1 - producer.occupied());
            }
        }

        #[test]
        fn a_head_is_legal_exactly_between_head_and_tail(size in 2_u32..50, head in 0_u32..50, used in 0_u32..50, reported in 0_u32..60) {
            let head = head % size;
            let used = used % size;
            let tail = advance(head, used, size);
            let legal = (0..=used).any(|n| advance(head, n, size) == reported);
            prop_assert_eq!(head_may_become(head, reported, tail, size), legal);
        }
    }
}
