// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of bus address spaces: what a device reaches, and what it does not.

use super::*;
use nvme_core::dma::DmaArena;
use proptest::prelude::*;

const CAPACITY: Capacity = Capacity { queues: 16 * PAGE, data: 64 * PAGE, controller_data: 32 * PAGE };

fn space() -> AddressSpace {
    AddressSpace::new("test", CAPACITY).expect("address space")
}

fn reaches(space: &AddressSpace, address: u64, len: usize) -> bool {
    HostMemory::read(space, BusAddr::new(address), &mut vec![0; len]).is_ok()
}

#[test]
fn a_device_reaches_its_region_and_nothing_around_it() {
    let space = space();
    for pages in [1usize, 2, 5] {
        let len = pages * PAGE;
        let region = space.allocate(Pool::Data, len, PAGE, Direction::Bidirectional).expect("region");
        let bus = region.bus().get();
        let table = [
            ("first byte", bus, 1, true),
            ("all of it", bus, len, true),
            ("last byte", bus + len as u64 - 1, 1, true),
            ("byte before", bus - 1, 1, false),
            ("byte after", bus + len as u64, 1, false),
            ("across the start", bus - 4, 8, false),
            ("across the end", bus + len as u64 - 4, 8, false),
            ("its CPU address", region.cpu_address().as_ptr().addr() as u64, 8, false),
            ("address zero", 0, 8, false),
            ("end of the address space", u64::MAX - 3, 8, false),
        ];
        for (name, address, len, expected) in table {
            assert_eq!(reaches(&space, address, len), expected, "{pages} pages: {name}");
            let host = space.is_host_memory(BusAddr::new(address), len as u64);
            assert_eq!(host, expected, "{pages} pages: {name}: host memory");
        }
        space.give_back(region);
        assert!(!reaches(&space, bus, 1), "{pages} pages: released memory must fault");
    }
    assert_eq!(space.usage(Pool::Data), PoolUsage::default());
}

#[test]
fn an_address_means_nothing_in_another_space() {
    let (one, two) = (space(), space());
    let region = one.allocate(Pool::Queues, PAGE, PAGE, Direction::Bidirectional).expect("region");
    let _other = two.allocate(Pool::Queues, PAGE, PAGE, Direction::Bidirectional).expect("region");
    assert!(reaches(&one, region.bus().get(), 8));
    assert!(!reaches(&two, region.bus().get(), 8));
}

#[test]
fn rights_follow_the_direction() {
    let space = space();
    let table = [
        (Direction::ToDevice, true, false),
        (Direction::FromDevice, false, true),
        (Direction::Bidirectional, true, true),
    ];
    for (direction, may_read, may_write) in table {
        let region = space.allocate(Pool::Data, 64, 64, direction).expect("region");
        let read = HostMemory::read(&space, region.bus(), &mut [0; 16]);
        let write = HostMemory::write(&space, region.bus(), &[1; 16]);
        let entry = space.write_entry(region.bus(), &[1; 16]);
        assert_eq!(
            (read.is_ok(), write.is_ok(), entry.is_ok()),
            (may_read, may_write, may_write),
            "{direction:?}"
        );
        assert!(space.is_host_memory(region.bus(), 64), "{direction:?}");
        space.give_back(region);
    }
}

#[test]
fn scattered_pages_are_one_run_for_the_cpu_and_none_for_the_device() {
    let space = space();
    let pages = 9;
    let region = space
        .allocate_scattered(Pool::ControllerData, pages * PAGE - 100, Direction::Bidirectional)
        .expect("region");
    let addresses: Vec<u64> =
        (0..pages).map(|page| space.bus_address(&region, page * PAGE).expect("address").get()).collect();
    assert_eq!(addresses[0], region.bus().get());
    for (page, pair) in addresses.windows(2).enumerate() {
        assert_ne!(pair[0] + PAGE as u64, pair[1], "pages {page} and {} follow each other", page + 1);
        assert!(!reaches(&space, pair[0] + PAGE as u64 - 4, 8), "page {page} runs on");
    }
    for (page, address) in addresses.iter().enumerate() {
        let offset = page * PAGE + 24;
        HostMemory::write(&space, BusAddr::new(address + 24), &[page as u8 + 1; 8]).expect("device write");
        let mut bytes = [0; 8];
        region.read(offset, &mut bytes).expect("CPU read");
        assert_eq!(bytes, [page as u8 + 1; 8], "page {page}");
        assert_eq!(space.bus_address(&region, offset).expect("address").get(), address + 24);
    }
    assert_eq!(
        space.bus_address(&region, pages * PAGE - 100),
        Err(DmaError::OutOfRange { offset: pages * PAGE - 100, len: 1, region: pages * PAGE - 100 })
    );
    assert_eq!(space.usage(Pool::ControllerData), PoolUsage { regions: 1, bytes: pages * PAGE });
    space.give_back(region);
    assert!(addresses.iter().all(|address| !reaches(&space, *address, 1)));
}

#[test]
fn copies_cross_pages_at_odd_offsets() {
    let space = space();
    let region = space.allocate(Pool::Data, 4 * PAGE, PAGE, Direction::Bidirectional).expect("region");
    for (offset, len) in
        [(0, 4 * PAGE), (1, 1), (PAGE - 3, 7), (PAGE - 8, PAGE + 16), (13, 3 * PAGE), (4095, 2)]
    {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + offset) as u8).collect();
        region.zero(0..4 * PAGE).expect("zero");
        HostMemory::write(&space, region.bus().plus(offset as u64), &bytes).expect("write");
        let mut seen = vec![0xEE; 4 * PAGE];
        region.read(0, &mut seen).expect("read");
        assert_eq!(seen[offset..offset + len], bytes, "{offset}+{len}");
        assert!(seen[..offset].iter().chain(&seen[offset + len..]).all(|byte| *byte == 0), "{offset}+{len}");
        let mut back = vec![0; len];
        HostMemory::read(&space, region.bus().plus(offset as u64), &mut back).expect("read");
        assert_eq!(back, bytes, "{offset}+{len}");
    }
}

#[test]
fn a_partly_mapped_write_changes_nothing() {
    let space = space();
    let region = space.allocate(Pool::Data, PAGE, PAGE, Direction::Bidirectional).expect("region");
    let address = region.bus().plus(PAGE as u64 - 8);
    assert_eq!(HostMemory::write(&space, address, &[9; 16]), Err(MemoryFault { address, len: 16 }));
    assert_eq!(space.write_entry(address, &[9; 16]), Err(MemoryFault { address, len: 16 }));
    let mut bytes = [1; 8];
    region.read(PAGE - 8, &mut bytes).expect("read");
    assert_eq!(bytes, [0; 8]);
}

#[test]
fn pools_are_apart_and_exhaust_by_themselves() {
    let space = space();
    let mut taken = Vec::new();
    while let Ok(region) = space.allocate(Pool::ControllerData, 4 * PAGE, PAGE, Direction::FromDevice) {
        taken.push(region);
    }
    assert_eq!(taken.len(), 8, "32 pages in regions of four");
    assert_eq!(
        space.allocate(Pool::ControllerData, 1, 1, Direction::FromDevice),
        Err(DmaError::Exhausted { pool: Pool::ControllerData, bytes: 1 })
    );
    let data = space.allocate(Pool::Data, 64 * PAGE, PAGE, Direction::ToDevice).expect("the other pool");
    assert_eq!(space.usage(Pool::Queues), PoolUsage::default());
    taken.into_iter().for_each(|region| space.give_back(region));
    assert_eq!(space.usage(Pool::ControllerData), PoolUsage::default());
    assert_eq!(space.usage(Pool::Data), PoolUsage { regions: 1, bytes: 64 * PAGE });
    space.give_back(data);
}

#[test]
fn bad_requests_are_named() {
    let space = space();
    let table = [
        ("empty", 0usize, PAGE, DmaError::Empty),
        ("alignment 3", 8, 3, DmaError::Alignment { bytes: 3 }),
        ("too much", 65 * PAGE, PAGE, DmaError::Exhausted { pool: Pool::Data, bytes: 65 * PAGE }),
        ("huge", usize::MAX, PAGE, DmaError::Exhausted { pool: Pool::Data, bytes: usize::MAX }),
    ];
    for (name, len, align, error) in table {
        assert_eq!(space.allocate(Pool::Data, len, align, Direction::ToDevice), Err(error), "{name}");
    }
    assert_eq!(space.usage(Pool::Data), PoolUsage::default());
}

#[test]
fn memory_given_back_is_never_changed_under_its_next_owner() {
    use std::sync::atomic::AtomicBool;
    const ROUNDS: u32 = 3000;
    // One page: whoever comes next gets the very same.
    let space =
        AddressSpace::new("test", Capacity { queues: 1, data: PAGE, controller_data: 1 }).expect("space");
    let (target, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let writes = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let address = BusAddr::new(target.load(Ordering::Acquire));
                let entry = HostMemory::write_entry(&space, address, &[0xEE; 16]).is_ok();
                if HostMemory::write(&space, address, &[0xEE; PAGE]).is_ok() && entry {
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        for round in 0..ROUNDS {
            let take = || space.allocate(Pool::Data, PAGE, PAGE, Direction::Bidirectional).expect("the page");
            let region = take();
            let before = writes.load(Ordering::Relaxed);
            target.store(region.bus().get(), Ordering::Release);
            while writes.load(Ordering::Relaxed) == before {
                std::thread::yield_now();
            }
            // Each round gives back at another point of the next write.
            (0..round % 1000).for_each(|_| std::hint::spin_loop());
            let cpu = region.cpu_address();
            space.give_back(region);
            let next = take();
            assert_eq!(next.cpu_address(), cpu, "round {round}: the same page");
            assert_ne!(next.bus().get(), target.load(Ordering::Relaxed), "round {round}: another address");
            let mine = [round as u8 | 1; PAGE];
            next.write(0, &mine).expect("write");
            let mut found = [0; PAGE];
            for look in 0..4 {
                next.read(0, &mut found).expect("read");
                if found != mine {
                    ended.store(true, Ordering::Relaxed);
                }
                assert_eq!(found, mine, "round {round}, look {look}: changed under its new owner");
            }
            space.give_back(next);
        }
        ended.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_linear_space_lies_on_the_bus_as_in_its_file() {
    let capacity = Capacity { queues: 3 * PAGE, data: 64 * PAGE, controller_data: 8 * PAGE };
    let space = AddressSpace::linear("test", capacity).expect("space");
    let windows = space.windows();
    let lengths: Vec<u64> = windows.iter().map(|window| window.len / PAGE as u64).collect();
    assert_eq!(lengths, [3, 64, 8]);
    for pair in windows.windows(2) {
        assert_eq!(pair[0].offset + pair[0].len, pair[1].offset, "one file");
        assert!(pair[0].address.get() + pair[0].len < pair[1].address.get(), "unmapped between");
    }
    for Window { address, len, .. } in &windows {
        assert!(address.get().is_multiple_of(HUGE_PAGE as u64), "{address:?}: a unit of tracking");
        // A device reaches it, whether it is allocated or not.
        assert!(space.is_host_memory(*address, *len) && !space.is_mapped(*address), "{address:?}");
        assert!(!space.is_host_memory(*address, len + 1), "{address:?}");
        let before = BusAddr::new(address.get() - 1);
        assert!(!space.is_host_memory(before, 2), "{address:?}");
    }
    let rows = [
        ("queue", 0, Pool::Queues, 2 * PAGE, PAGE, false),
        ("data", 1, Pool::Data, 5 * PAGE, PAGE, false),
        ("aligned", 1, Pool::Data, PAGE, 16 * PAGE, false),
        ("scattered", 2, Pool::ControllerData, 3 * PAGE, PAGE, true),
    ];
    let mut live = Vec::new();
    for (name, window, pool, len, align, scattered) in rows {
        let region = if scattered {
            space.allocate_scattered(pool, len, Direction::Bidirectional)
        } else {
            space.allocate(pool, len, align, Direction::Bidirectional)
        };
        let region = region.expect(name);
        let bus = space.bus_address(&region, 0).expect(name).get();
        assert_eq!(bus % align as u64, 0, "{name}");
        let window = windows[window];
        let file = bus - window.address.get() + window.offset;
        region.write(0, name.as_bytes()).expect(name);
        let mut found = vec![0; name.len()];
        space.mapping.read(file as usize, &mut found);
        assert_eq!(found, name.as_bytes(), "{name}");
        let last = space.bus_address(&region, len - 1).expect(name).get();
        assert_eq!(last - bus, len as u64 - 1, "{name}: adjacent");
        assert_eq!(space.region_windows(&region).len(), 1, "{name}");
        live.push(region);
    }
    live.into_iter().for_each(|region| space.give_back(region));
    let whole = space.allocate(Pool::Data, 64 * PAGE, PAGE, Direction::ToDevice).expect("all came back");
    space.give_back(whole);
}

#[test]
fn windows_of_a_region_lead_to_its_bytes() {
    let space = space();
    assert!(space.windows().is_empty(), "not linear");
    for scattered in [false, true] {
        let region = if scattered {
            space.allocate_scattered(Pool::Data, 5 * PAGE, Direction::Bidirectional)
        } else {
            space.allocate(Pool::Data, 5 * PAGE, PAGE, Direction::Bidirectional)
        };
        let region = region.expect("memory");
        let windows = space.region_windows(&region);
        assert_eq!(windows.len(), if scattered { 5 } else { 1 });
        assert_eq!(windows.iter().map(|window| window.len).sum::<u64>(), 5 * PAGE as u64);
        for window in windows {
            space.mapping.write(window.offset as usize, &[7]);
            let mut found = [0];
            HostMemory::read(&space, window.address, &mut found).expect("mapped");
            assert_eq!(found, [7]);
            space.mapping.write(window.offset as usize, &[0]);
        }
        space.give_back(region);
    }
}

#[test]
fn everything_can_be_taken_back_at_once() {
    for (name, space) in
        [("paged", space()), ("linear", AddressSpace::linear("test", CAPACITY).expect("space"))]
    {
        let pages = |pool| {
            (0..).take_while(|_| space.allocate(pool, PAGE, PAGE, Direction::Bidirectional).is_ok()).count()
        };
        let scattered = space.allocate_scattered(Pool::Data, 2 * PAGE, Direction::Bidirectional).expect(name);
        let bus = space.bus_address(&scattered, PAGE).expect(name);
        for pool in [Pool::Queues, Pool::Data, Pool::ControllerData] {
            pages(pool);
        }
        assert!(HostMemory::read(&space, bus, &mut [0]).is_ok(), "{name}");
        space.give_all_back();
        assert!(HostMemory::read(&space, bus, &mut [0]).is_err(), "{name}: still mapped");
        for pool in [Pool::Queues, Pool::Data, Pool::ControllerData] {
            assert_eq!(space.usage(pool), PoolUsage::default(), "{name}");
        }
        let first = pages(Pool::Data);
        space.give_all_back();
        assert_eq!((first > 2, pages(Pool::Data)), (true, first), "{name}: all of it came back");
    }
}

proptest! {
    #[test]
    fn live_regions_never_overlap_and_everything_comes_back(
        steps in proptest::collection::vec((0usize..4, 1usize..5 * PAGE, 12u32..16), 1..80)
    ) {
        let space = space();
        let mut live: Vec<(DmaRegion, u8)> = Vec::new();
        for (number, (what, len, align)) in steps.into_iter().enumerate() {
            let tag = number as u8 | 1;
            let made = match what {
                0 => space.allocate(Pool::Data, len, 1 << align, Direction::Bidirectional).ok(),
                1 => space.allocate_scattered(Pool::Data, len, Direction::Bidirectional).ok(),
                _ if live.is_empty() => None,
                _ => {
                    let (region, _) = live.swap_remove(len % live.len());
                    space.give_back(region);
                    None
                }
            };
            if let Some(region) = made {
                let mut bytes = vec![1; len];
                region.read(0, &mut bytes).expect("read");
                prop_assert!(bytes.iter().all(|byte| *byte == 0), "memory handed out is zeroed");
                if region.layout() == Layout::Contiguous {
                    prop_assert_eq!(region.bus().get() % (1 << align), 0);
                }
                region.write(0, &vec![tag; len]).expect("write");
                live.push((region, tag));
            }
            for (region, tag) in &live {
                for offset in (0..region.len()).step_by(PAGE) {
                    let address = space.bus_address(region, offset).expect("address");
                    let mut byte = [0];
                    HostMemory::read(&space, address, &mut byte).expect("device read");
                    prop_assert_eq!(byte[0], *tag);
                }
            }
        }
        live.into_iter().for_each(|(region, _)| space.give_back(region));
        prop_assert_eq!(space.usage(Pool::Data), PoolUsage::default());
    }
}

#[test]
fn a_linear_space_lies_where_it_is_told() {
    const ORDINARY: Backing = Backing::Ordinary;
    for (name, start, capacity) in [
        ("least", 0x1000, Capacity { queues: 1, data: 0, controller_data: PAGE }),
        ("more", 0x00FE_F000_0000, Capacity { queues: 5 * PAGE, data: 33 * PAGE, controller_data: 2 * PAGE }),
    ] {
        let space = AddressSpace::linear_at("test", capacity, BusAddr::new(start), ORDINARY).expect(name);
        let end = start + AddressSpace::linear_span(capacity, ORDINARY);
        let windows = space.windows();
        assert_eq!(windows.len(), 3, "{name}");
        for window in windows {
            let first = window.address.get();
            assert!(
                start <= first && first + window.len <= end,
                "{name}: {window:?} from {start:#x} to {end:#x}"
            );
        }
        let region = space.allocate(Pool::Queues, 1, PAGE, Direction::ToDevice).expect(name);
        assert_eq!(region.bus(), space.windows()[0].address, "{name}");
        space.give_back(region);
    }
}

#[test]
fn what_cannot_be_made_is_refused_before_anything_is_taken() {
    let least = Capacity { queues: PAGE, data: PAGE, controller_data: PAGE };
    let of = |data: usize| Capacity { data, ..least };
    let whole = |data: usize| SpaceError::TooLarge((data as u64).saturating_add(2 * PAGE as u64));
    let rows = [
        ("half a page", least, 0x1800, Backing::Ordinary, SpaceError::Start { address: 0x1800, page: PAGE }),
        (
            "a page of another kind",
            least,
            0x10_1000,
            Backing::Huge,
            SpaceError::Start { address: 0x10_1000, page: HUGE_PAGE },
        ),
        ("as many pages as an entry has numbers", of(1 << 42), 0, Backing::Ordinary, whole(1 << 42)),
        ("more pages than a word has numbers", of(1 << 60), 0, Backing::Ordinary, whole(1 << 60)),
        ("all there is", of(usize::MAX), 0, Backing::Huge, SpaceError::TooLarge(u64::MAX)),
    ];
    for (name, capacity, start, backing, expected) in rows {
        let made = AddressSpace::linear_at("test", capacity, BusAddr::new(start), backing);
        assert_eq!(made.map(|space| space.windows()), Err(expected), "{name}");
        assert!(AddressSpace::linear_span(capacity, backing) >= 3 * backing.page() as u64, "{name}");
    }
    let error = AddressSpace::new("test", of(1 << 42)).expect_err("too large");
    assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
    assert!(error.to_string().contains("4398046519296"), "{error}");
}

#[test]
fn huge_pages_that_are_not_there_are_counted() {
    // Two terabytes of them, which no computer has set aside.
    let capacity = Capacity { queues: 1, data: 1, controller_data: 2 << 40 };
    let error = AddressSpace::linear_at("test", capacity, BusAddr::new(0), Backing::Huge);
    let error = error.map(|space| space.windows()).expect_err("so many");
    let text = error.to_string();
    match error {
        SpaceError::HugePages { needed, free } => {
            assert_eq!(needed, (1 << 20) + 2);
            assert!(free < needed && text.contains("nr_hugepages"), "{text}");
        }
        error => assert_eq!(error, SpaceError::NoHugePages, "{text}"),
    }
    // Pools lie so that each page of memory is one of the bus.
    let span = AddressSpace::linear_span(Capacity { queues: 1, data: 1, controller_data: 1 }, Backing::Huge);
    assert_eq!(span, 7 * HUGE_PAGE as u64);
}

#[test]
fn a_region_outlives_the_space_it_was_not_given_back_to() {
    let capacity = Capacity { queues: 4096, data: 4096, controller_data: 4096 };
    let region = {
        let space = AddressSpace::new("short", capacity).expect("address space");
        let region = space.allocate(Pool::Data, 8, 8, Direction::ToDevice).expect("memory");
        region.write(0, b"not gone").expect("written");
        region
    };
    let mut bytes = [0; 8];
    region.read(0, &mut bytes).expect("read");
    assert_eq!(&bytes, b"not gone");
}
