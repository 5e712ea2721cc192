// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a controller refuses of a head update, and what becomes of it.

use super::*;

#[test]
fn a_strict_controller_keeps_the_last_entry() {
    let arena = TestArena::new();
    let mut port = port(&arena);
    port.device.strict_head = true;
    let mut queue = create(&mut port, &options(8, QueueLayout::Contiguous));
    let mut dirty = set();
    assert!(port.post(queue.id(), EntrySequence::First, Change::None));
    for lap in 0..20 {
        assert!(port.post(queue.id(), EntrySequence::Ordinary, range(lap, 1)));
        settle(&mut port, &mut queue, &mut dirty);
    }
    assert!(queue.keeps_one_entry());
    assert_eq!((queue.figures().head_failures, queue.figures().overflows), (0, 0));
    assert_eq!(port.device.queues[&queue.id().get()].producer.occupied(), 1);
    delete(&mut port, queue).unwrap();
}

#[test]
fn a_controller_that_refuses_triggers_is_polled() {
    for (name, strict) in [("takes every head", false), ("keeps the last entry", true)] {
        let arena = TestArena::new();
        let mut port = port(&arena);
        (port.device.refuses_trigger, port.device.strict_head) = (true, strict);
        let mut queue = create(&mut port, &options(8, QueueLayout::Contiguous));
        let mut dirty = set();
        assert!(port.post(queue.id(), EntrySequence::First, Change::None));
        for lap in 0..20 {
            assert!(port.post(queue.id(), EntrySequence::Ordinary, range(lap, 1)), "{name}, lap {lap}");
            settle(&mut port, &mut queue, &mut dirty);
        }
        assert_eq!(queue.keeps_one_entry(), strict, "{name}: the cause that it was");
        assert_eq!((queue.figures().head_failures, queue.figures().overflows), (0, 0), "{name}");
        assert_eq!(queue.figures().entries, 21, "{name}");
        assert_eq!(port.device.queues[&queue.id().get()].producer.occupied(), u32::from(strict), "{name}");
        delete(&mut port, queue).unwrap();
    }
}
