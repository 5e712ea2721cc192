// SPDX-License-Identifier: MIT OR Apache-2.0
//! One row for each misuse, done on purpose, and one for each use that is right.

use std::vec::Vec;

use super::*;
use crate::dma::{self, CdqReleased, CommandEnded, give_back};
use crate::testing::{PAGE, TestArena, TestProof};

type Checked<'s> = CheckingArena<'s, TestArena>;

const DATA: (Pool, usize) = (Pool::Data, 600);

fn region(arena: &Checked<'_>, direction: Direction) -> DmaRegion {
    arena.allocate(DATA.0, DATA.1, 64, direction).unwrap()
}

fn scattered(arena: &Checked<'_>, direction: Direction) -> DmaRegion {
    arena.allocate_scattered(Pool::Data, 2 * PAGE + 100, direction).unwrap()
}

/// A second handle of the same memory, as only unsafe code can make one.
fn forged(region: &DmaRegion) -> DmaRegion {
    let (pool, direction, layout) = (region.pool(), region.direction(), region.layout());
    // SAFETY: the memory belongs to a test arena that outlives the test; all access is atomic.
    unsafe {
        DmaRegion::from_raw_parts(region.cpu_address(), region.bus(), region.len(), pool, direction, layout)
    }
}

/// Releases with no evidence at all.
fn drop_without_proof(arena: &Checked<'_>, region: DmaRegion) {
    // SAFETY: no device exists.
    unsafe { arena.release(region) }
}

/// The device writes, as far as the arena is told and in its memory.
fn device_writes(arena: &Checked<'_>, address: BusAddr, bytes: &[u8]) {
    let _ = arena.device_access(address, bytes.len(), Access::Write);
    arena.inner().device_poke(address, bytes);
}

/// What the misuse `act` gives, run on a fresh arena.
fn found(act: impl FnOnce(&Checked<'_>)) -> Vec<Violation> {
    let below = TestArena::new();
    let (mut slots, mut violations) = ([const { RegionSlot::new() }; 8], [None; 8]);
    let arena = CheckingArena::new(&below, &mut slots, &mut violations);
    act(&arena);
    let count = arena.inspect();
    (0..count).map(|n| arena.violation(n).expect("kept")).collect()
}

#[test]
fn each_misuse_is_found() {
    use Direction::{Bidirectional, FromDevice, ToDevice};
    /// A name, what is done, and what is to be found: the kind, and for addresses the offset in the region.
    type Row = (&'static str, fn(&Checked<'_>) -> Vec<Violation>);
    let rows: &[Row] = &[
        ("double release", |arena| {
            let first = region(arena, ToDevice);
            let (region, second) = (first.bus(), forged(&first));
            give_back(arena, first);
            give_back(arena, second);
            std::vec![Violation::DoubleRelease { region, len: 600 }]
        }),
        ("release of a region of another arena", |arena| {
            let foreign = arena.inner().allocate(Pool::Data, 64, 64, ToDevice).unwrap();
            let (region, again) = (foreign.bus(), forged(&foreign));
            give_back(arena, foreign);
            give_back(arena.inner(), again);
            std::vec![Violation::ForeignRegion { region, len: 64 }]
        }),
        ("publish of a region of another arena", |arena| {
            let foreign = arena.inner().allocate(Pool::Data, 64, 64, ToDevice).unwrap();
            let region = foreign.bus();
            arena.publish(&foreign, 0..64);
            give_back(arena.inner(), foreign);
            std::vec![Violation::ForeignRegion { region, len: 64 }]
        }),
        ("release without proof", |arena| {
            let data = region(arena, ToDevice);
            let region = data.bus();
            drop_without_proof(arena, data);
            std::vec![Violation::ReleaseWithoutProof { region, len: 600, evidence: None }]
        }),
        ("queue memory released on the end of one command", |arena| {
            let queue = arena.allocate(Pool::ControllerData, 64, 4096, FromDevice).unwrap();
            let region = queue.bus();
            dma::release(arena, queue, &CommandEnded::new());
            let evidence = Some(Evidence::CommandEnded);
            std::vec![Violation::ReleaseWithoutProof { region, len: 64, evidence }]
        }),
        ("a Controller Data Queue given back as if in hand", |arena| {
            let queue = arena.allocate(Pool::ControllerData, 64, 4096, FromDevice).unwrap();
            let region = queue.bus();
            give_back(arena, queue);
            std::vec![Violation::ReleaseWithoutProof { region, len: 64, evidence: Some(Evidence::InHand) }]
        }),
        ("an I/O queue released on the end of one command", |arena| {
            let queue = arena.allocate(Pool::Queues, 64, 4096, ToDevice).unwrap();
            let region = queue.bus();
            dma::release(arena, queue, &CommandEnded::new());
            let evidence = Some(Evidence::CommandEnded);
            std::vec![Violation::ReleaseWithoutProof { region, len: 64, evidence }]
        }),
        ("an I/O queue released with a Controller Data Queue", |arena| {
            let queue = arena.allocate(Pool::Queues, 64, 4096, ToDevice).unwrap();
            let region = queue.bus();
            dma::release(arena, queue, &CdqReleased::new());
            let evidence = Some(Evidence::DataQueueReleased);
            std::vec![Violation::ReleaseWithoutProof { region, len: 64, evidence }]
        }),
        ("release under an outstanding command", |arena| {
            let data = region(arena, ToDevice);
            let region = data.bus();
            assert!(arena.hold(region.plus(599)) && arena.hold(region) && arena.let_go(region));
            give_back(arena, data);
            assert!(!arena.let_go(region), "it is gone");
            std::vec![Violation::ReleaseInUse { region, len: 600, commands: 1 }]
        }),
        ("device reads released memory", |arena| {
            let data = region(arena, ToDevice);
            let address = data.bus().plus(8);
            give_back(arena, data);
            let expected = Violation::UseAfterRelease { address, len: 16, side: Side::Device };
            assert_eq!(arena.device_access(address, 16, Access::Read), Err(expected));
            std::vec![expected]
        }),
        ("device writes released memory and says nothing", |arena| {
            let data = scattered(arena, FromDevice);
            let address = arena.bus_address(&data, PAGE + 300).unwrap();
            give_back(arena, data);
            arena.inner().device_poke(address, &[1]);
            std::vec![Violation::UseAfterRelease { address, len: 1, side: Side::Device }]
        }),
        ("processor writes released memory", |arena| {
            let data = region(arena, ToDevice);
            let (address, second) = (data.bus().plus(7), forged(&data));
            give_back(arena, data);
            second.write(7, &[1]).unwrap();
            std::vec![Violation::UseAfterRelease { address, len: 1, side: Side::Cpu }]
        }),
        ("released memory published", |arena| {
            let data = region(arena, ToDevice);
            let (address, second) = (data.bus(), forged(&data));
            give_back(arena, data);
            arena.publish(&second, 0..600);
            std::vec![Violation::UseAfterRelease { address, len: 600, side: Side::Cpu }]
        }),
        ("processor reads beyond the region", |arena| {
            let data = region(arena, FromDevice);
            assert!(data.read(599, &mut [0; 2]).is_err());
            std::vec![Violation::CpuOutOfRange { region: data.bus(), offset: 599, len: 2 }]
        }),
        ("processor writes a word beyond the region", |arena| {
            let data = region(arena, ToDevice);
            assert!(data.write_u64(600, 1).is_err());
            std::vec![Violation::CpuOutOfRange { region: data.bus(), offset: 600, len: 8 }]
        }),
        ("publish beyond the region", |arena| {
            let data = region(arena, ToDevice);
            arena.publish(&data, 512..601);
            std::vec![Violation::CpuOutOfRange { region: data.bus(), offset: 512, len: 89 }]
        }),
        ("device runs beyond a region", |arena| {
            let data = region(arena, FromDevice);
            let address = data.bus().plus(600);
            let expected = Violation::DeviceOutOfRange { address, access: Access::Write };
            assert_eq!(arena.device_access(data.bus().plus(590), 20, Access::Write), Err(expected));
            std::vec![expected]
        }),
        ("device runs on behind a scattered page", |arena| {
            let data = scattered(arena, FromDevice);
            let address = data.bus().plus(PAGE as u64);
            let expected = Violation::DeviceOutOfRange { address, access: Access::Write };
            assert_eq!(arena.device_access(data.bus(), PAGE + 1, Access::Write), Err(expected));
            std::vec![expected]
        }),
        ("device writes what it may only read", |arena| {
            let data = region(arena, ToDevice);
            let (address, access) = (data.bus(), Access::Write);
            let expected = Violation::WrongDirection { address, access };
            assert_eq!(arena.device_access(address, 4, access), Err(expected));
            std::vec![expected]
        }),
        ("device reads what it may only write", |arena| {
            let data = region(arena, FromDevice);
            arena.publish(&data, 0..600);
            let (address, access) = (data.bus(), Access::Read);
            let expected = Violation::WrongDirection { address, access };
            assert_eq!(arena.device_access(address, 4, access), Err(expected));
            std::vec![expected]
        }),
        ("device reads what was never published", |arena| {
            let data = region(arena, ToDevice);
            arena.publish(&data, 0..512);
            let address = data.bus().plus(512);
            let expected = Violation::MissingPublish { address, at: Moment::DeviceRead };
            assert_eq!(arena.device_access(data.bus(), 520, Access::Read), Err(expected));
            std::vec![expected]
        }),
        ("device reads what has changed since it was published", |arena| {
            let data = scattered(arena, ToDevice);
            arena.publish(&data, 0..data.len());
            data.zero(PAGE + 5..PAGE + 6).unwrap();
            let (page, address) =
                (arena.bus_address(&data, PAGE).unwrap(), arena.bus_address(&data, PAGE + 5).unwrap());
            let expected = Violation::MissingPublish { address, at: Moment::DeviceRead };
            assert_eq!(arena.device_access(page, 64, Access::Read), Err(expected));
            std::vec![expected]
        }),
        ("device writes over what was written and not published", |arena| {
            let data = region(arena, Bidirectional);
            data.write_words(8, &[1]).unwrap();
            let address = data.bus().plus(8);
            let expected = Violation::MissingPublish { address, at: Moment::DeviceWrite };
            assert_eq!(arena.device_access(data.bus(), 64, Access::Write), Err(expected));
            std::vec![expected]
        }),
        ("acquire over what was written and not published", |arena| {
            let data = region(arena, Bidirectional);
            data.write(17, &[1]).unwrap();
            arena.acquire(&data, 0..64);
            std::vec![Violation::MissingPublish { address: data.bus().plus(17), at: Moment::Acquire }]
        }),
        ("command ended, data changed and not published", |arena| {
            let data = region(arena, ToDevice);
            arena.publish(&data, 0..600);
            data.write(3, &[9]).unwrap();
            let address = data.bus().plus(3);
            dma::release(arena, data, &CommandEnded::new());
            std::vec![Violation::MissingPublish { address, at: Moment::Release }]
        }),
        ("command ended, nothing of its data published", |arena| {
            let data = region(arena, ToDevice);
            data.write(3, &[9]).unwrap();
            let address = data.bus().plus(3);
            dma::release(arena, data, &CommandEnded::new());
            std::vec![Violation::MissingPublish { address, at: Moment::Release }]
        }),
        ("processor reads what it did not acquire", |arena| {
            let data = region(arena, FromDevice);
            device_writes(arena, data.bus().plus(32), &[1; 16]);
            data.read(0, &mut [0; 64]).unwrap();
            std::vec![Violation::MissingAcquire { address: data.bus().plus(32), at: Moment::CpuRead }]
        }),
        ("processor reads an entry that it did not acquire", |arena| {
            let data = region(arena, FromDevice);
            device_writes(arena, data.bus(), &[1; 16]);
            assert_eq!(data.read_entry::<4>(0, |_| true), Ok(Some([0; 4])), "an old one");
            std::vec![Violation::MissingAcquire { address: data.bus(), at: Moment::CpuRead }]
        }),
        ("processor reads a phase tag that it did not acquire", |arena| {
            let data = region(arena, FromDevice);
            device_writes(arena, data.bus(), &[1; 16]);
            assert_eq!(data.read_u32_acquire(12), Ok(0), "an old one");
            std::vec![Violation::MissingAcquire { address: data.bus().plus(12), at: Moment::CpuRead }]
        }),
        ("publish over what the device wrote", |arena| {
            let data = region(arena, Bidirectional);
            arena.publish(&data, 0..600);
            device_writes(arena, data.bus().plus(5), &[1]);
            arena.publish(&data, 0..8);
            std::vec![Violation::MissingAcquire { address: data.bus().plus(5), at: Moment::Publish }]
        }),
        ("command ended, its data not acquired", |arena| {
            let data = region(arena, FromDevice);
            device_writes(arena, data.bus().plus(599), &[1]);
            let address = data.bus().plus(599);
            dma::release(arena, data, &CommandEnded::new());
            std::vec![Violation::MissingAcquire { address, at: Moment::Release }]
        }),
        ("command ended, its data not acquired, of a device that says nothing", |arena| {
            let data = region(arena, FromDevice);
            arena.publish(&data, 0..8);
            let address = data.bus().plus(4);
            arena.inner().device_poke(address, &[1]);
            dma::release(arena, data, &CommandEnded::new());
            std::vec![Violation::MissingAcquire { address, at: Moment::Release }]
        }),
        ("command ended, data that came after they were acquired, of a device that says nothing", |arena| {
            let data = region(arena, FromDevice);
            let address = data.bus().plus(4);
            arena.inner().device_poke(address, &[1]);
            arena.acquire(&data, 0..600);
            arena.inner().device_poke(address, &[2]);
            dma::release(arena, data, &CommandEnded::new());
            std::vec![Violation::MissingAcquire { address, at: Moment::Release }]
        }),
    ];
    for (name, act) in rows {
        let mut expected = Vec::new();
        let found = found(|arena| {
            expected = act(arena);
        });
        assert_eq!(found, expected, "{name}");
        assert!(found.iter().all(|violation| !std::format!("{violation}").is_empty()), "{name}");
    }
}

#[test]
fn right_use_is_not_complained_of() {
    type Row = (&'static str, fn(&Checked<'_>));
    let rows: &[Row] = &[
        ("data to the device", |arena| {
            let data = scattered(arena, Direction::ToDevice);
            data.write(PAGE - 2, b"text").unwrap();
            arena.publish(&data, 0..data.len());
            let mut seen = [0; 2];
            let second = arena.bus_address(&data, PAGE).unwrap();
            assert_eq!(arena.device_access(second, 2, Access::Read), Ok(()));
            arena.inner().device_look(second, &mut seen);
            assert_eq!(&seen, b"xt");
            dma::release(arena, data, &CommandEnded::new());
        }),
        ("data from a device that says nothing", |arena| {
            let data = scattered(arena, Direction::FromDevice);
            arena.inner().device_poke(data.bus().plus(7), b"text");
            arena.acquire(&data, 0..data.len());
            let mut seen = [0; 4];
            data.read(7, &mut seen).unwrap();
            assert_eq!(&seen, b"text");
            dma::release(arena, data, &CommandEnded::new());
        }),
        ("data from the device", |arena| {
            let data = scattered(arena, Direction::FromDevice);
            device_writes(arena, arena.bus_address(&data, PAGE).unwrap(), b"text");
            arena.acquire(&data, PAGE..PAGE + 4);
            let mut seen = [0; 4];
            data.read(PAGE, &mut seen).unwrap();
            assert_eq!(&seen, b"text");
            dma::release(arena, data, &CommandEnded::new());
        }),
        ("written, given back and never submitted", |arena| {
            let data = region(arena, Direction::ToDevice);
            data.write(0, &[1]).unwrap();
            give_back(arena, data);
        }),
        ("cleared for nobody but the processor, and a command that wrote nothing", |arena| {
            let data = region(arena, Direction::FromDevice);
            data.zero(0..600).unwrap();
            dma::release(arena, data, &CommandEnded::new());
        }),
        ("queues that no command named", |arena| {
            give_back(arena, arena.allocate(Pool::Queues, 64, 4096, Direction::ToDevice).unwrap());
        }),
        ("results of a lost command that nobody wants", |arena| {
            let data = region(arena, Direction::FromDevice);
            assert!(arena.hold(data.bus()));
            device_writes(arena, data.bus(), &[1]);
            arena.let_go_of_all();
            give_back(arena, data);
        }),
        ("a queue that is gone, with entries nobody read", |arena| {
            let queue = arena.allocate(Pool::ControllerData, 64, 4096, Direction::FromDevice).unwrap();
            device_writes(arena, queue.bus(), &[1; 32]);
            dma::release(arena, queue, &CdqReleased::new());
        }),
        ("a phase tag polled while the device writes the next entry", |arena| {
            let queue = arena.allocate(Pool::Queues, 64, 4096, Direction::FromDevice).unwrap();
            queue.zero(0..64).unwrap();
            arena.publish(&queue, 0..64);
            device_writes(arena, queue.bus(), &[1; 16]);
            arena.acquire(&queue, 0..16);
            device_writes(arena, queue.bus().plus(16), &[1; 16]);
            assert_eq!(queue.read_entry::<4>(0, |_| true), Ok(Some([0x0101_0101; 4])));
            dma::release(arena, queue, &TestProof);
        }),
    ];
    for (name, act) in rows {
        assert_eq!(found(act), [], "{name}");
    }
}

#[test]
fn stale_data_show() {
    let below = TestArena::new();
    let (mut slots, mut violations) = ([const { RegionSlot::new() }; 4], [None; 1]);
    let arena = CheckingArena::new(&below, &mut slots, &mut violations);
    let data = region(&arena, Direction::Bidirectional);
    let (mut cpu, mut device) = ([1; 2], [1; 2]);
    data.write(0, &[7]).unwrap();
    below.device_look(data.bus(), &mut device);
    assert_eq!(device, [FRESH; 2], "nothing was published");
    arena.publish(&data, 0..1);
    below.device_look(data.bus(), &mut device);
    assert_eq!(device, [7, FRESH], "as much as was published");
    below.device_poke(data.bus(), &[8, 9]);
    data.read(0, &mut cpu).unwrap();
    assert_eq!(cpu, [7, 0], "nothing was acquired");
    arena.acquire(&data, 1..2);
    data.read(0, &mut cpu).unwrap();
    assert_eq!(cpu, [7, 9], "as much as was acquired");
    let bus = data.bus();
    give_back(&arena, data);
    below.device_look(bus, &mut device);
    assert_eq!(device, [RELEASED; 2]);
    assert_eq!(arena.count(), 0);
}

#[test]
fn quarantine_is_bounded_and_gives_way() {
    let below = TestArena::new();
    let (mut slots, mut violations) = ([const { RegionSlot::new() }; 4], [None; 2]);
    let arena = CheckingArena::new(&below, &mut slots, &mut violations).with_quarantine(2);
    let pieces = |regions: usize| 3 * regions;
    let addresses: Vec<BusAddr> = (0..3)
        .map(|_| {
            let data = region(&arena, Direction::ToDevice);
            let bus = data.bus();
            give_back(&arena, data);
            bus
        })
        .collect();
    assert_eq!((arena.live(), below.live_total()), (0, pieces(2)), "the oldest went back");
    assert!(arena.device_access(addresses[0], 1, Access::Read).is_err());
    assert_eq!(
        arena.violation(0),
        Some(Violation::DeviceOutOfRange { address: addresses[0], access: Access::Read })
    );
    below.device_poke(addresses[1], &[0]);
    let held: Vec<DmaRegion> = (0..3).map(|_| region(&arena, Direction::ToDevice)).collect();
    assert_eq!(
        arena.violation(1),
        Some(Violation::UseAfterRelease { address: addresses[1], len: 1, side: Side::Device }),
        "seen when the region had to make room"
    );
    assert_eq!((arena.live(), below.live_total()), (3, pieces(4)));
    below.fail_after(0);
    assert_eq!(
        arena.allocate(Pool::Data, 64, 64, Direction::ToDevice),
        Err(DmaError::Exhausted { pool: Pool::Data, bytes: 64 })
    );
    assert_eq!(below.live_total(), pieces(3), "quarantine gave way first");
    below.fail_after(2);
    assert!(arena.allocate(Pool::Data, 64, 64, Direction::ToDevice).is_err(), "no memory for notes");
    assert_eq!(below.live_total(), pieces(3), "what was had went back");
    below.fail_after(6);
    held.into_iter().for_each(|data| give_back(&arena, data));
    let all: Vec<DmaRegion> = (0..2).map(|_| region(&arena, Direction::ToDevice)).collect();
    assert_eq!(arena.live(), 2);
    // More violations than fit are counted.
    assert!(arena.device_access(BusAddr::new(8), 1, Access::Read).is_err());
    assert_eq!((arena.count(), arena.violation(2)), (3, None));
    assert_eq!((arena.take_count(), arena.count(), arena.violation(0)), (3, 0, None));
    all.into_iter().for_each(|data| give_back(&arena, data));
    assert_eq!(arena.inspect(), 0);
}

#[test]
fn slots_bound_the_regions() {
    let below = TestArena::new();
    let (mut slots, mut violations) = ([const { RegionSlot::new() }; 1], [None; 1]);
    let arena = CheckingArena::new(&below, &mut slots, &mut violations);
    let only = region(&arena, Direction::ToDevice);
    assert_eq!(
        arena.allocate_scattered(Pool::Data, 64, Direction::ToDevice),
        Err(DmaError::Exhausted { pool: Pool::Data, bytes: 64 })
    );
    assert_eq!((arena.live_in(Pool::Data), arena.live_in(Pool::Queues), below.live_total()), (1, 0, 3));
    give_back(&arena, only);
    assert_eq!((arena.inspect(), below.live_total()), (0, 0), "no quarantine in half a slot");
}
