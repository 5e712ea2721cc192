// SPDX-License-Identifier: MIT OR Apache-2.0
//! Physical Region Pages: what the builder writes, and where the controller's walker goes.

use nvme_controller::host::HostMemory;
use nvme_core::dma::{Direction, DmaArena, Pool, give_back};
use nvme_core::prp::{self, ListMemory};
use nvme_core::wire::nvm::Read;
use nvme_core::wire::{BusAddr, Command, Lba, NamespaceId, StatusCode};
use nvme_host_linux::memory::{AddressSpace, Capacity};

use crate::Input;
use crate::rig::{BASE, DATA, MANAGER, PAGE, PAGES, with_rig};

const FILL: u8 = 0x6B;

/// Builds or walks, as the first byte says.
///
/// # Panics
/// A property does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    if input.rarely(2) { build(&mut input) } else { walk(&mut input) }
}

/// The builder against a walk along its list, page by page.
fn build(input: &mut Input<'_>) {
    let flags = input.u8();
    let page = if flags & 1 != 0 { 8192 } else { 4096 };
    let pages = if flags & 2 != 0 { 505 + input.below(20) } else { input.below(8) } as usize + 1;
    let len = pages * 4096;
    let capacity = Capacity { queues: 16 * 4096, data: len + 4096, controller_data: 4096 };
    let space = AddressSpace::new("prp", capacity).expect("memory");
    let data = if flags & 4 != 0 {
        space.allocate_scattered(Pool::Data, len, Direction::Bidirectional)
    } else {
        space.allocate(Pool::Data, len, 4096, Direction::Bidirectional)
    }
    .expect("enough memory");
    let lists = 4 * 4096;
    let list = if flags & 8 != 0 {
        space.allocate_scattered(Pool::Queues, lists, Direction::Bidirectional)
    } else {
        space.allocate(Pool::Queues, lists, 8192, Direction::Bidirectional)
    }
    .expect("enough memory");
    list.write(0, &vec![FILL; lists]).expect("inside");
    let (cut, first) = (usize::from(input.u16()) % 9000, 4096 * input.below(4) as usize);
    let range = usize::from(input.u16()) % len..len.saturating_sub(cut);
    let lent = first..first + 4096 * input.below(5) as usize;
    let queue = flags & 16 != 0;
    let memory = ListMemory { region: &list, range: lent.clone() };
    let built = if queue {
        prp::build_queue_list(&space, &data, range.clone(), page, memory).map(|base| (None, Some(base)))
    } else {
        prp::build(&space, &data, range.clone(), page, memory).map(|pointer| (Some(pointer), None))
    };
    let mut used = 0;
    if let Ok((pointer, base)) = built {
        assert!(range.start < range.end && range.end <= len);
        let address = |offset| space.bus_address(&data, offset).expect("inside").get();
        let mut at = range.start;
        let mut entries = Vec::new();
        if let Some(pointer) = pointer {
            assert_eq!(pointer.prp1.get(), address(range.start));
            at += page - (pointer.prp1.get() as usize & (page - 1));
        }
        while at < range.end {
            entries.push(address(at));
            at += page;
        }
        let listed = match (pointer, entries.as_slice()) {
            (Some(pointer), []) => {
                assert_eq!(pointer.prp2.get(), 0);
                None
            }
            (Some(pointer), [second]) => {
                assert_eq!(pointer.prp2.get(), *second);
                None
            }
            (Some(pointer), _) => Some(pointer.prp2.get()),
            (None, _) => base.map(BusAddr::get),
        };
        if let Some(start) = listed {
            used = prp::list_bytes(entries.len(), page);
            let read = |at: u64| {
                let mut bytes = [0; 8];
                space.read(BusAddr::new(at), &mut bytes).ok()?;
                Some(u64::from_le_bytes(bytes))
            };
            let (found, _) = follow(start, entries.len() as u64, page as u64, read).expect("a whole list");
            assert_eq!(found, entries);
        }
    }
    // Nothing but the list was written, and that inside what was lent.
    let mut bytes = vec![0; lists];
    list.read(0, &mut bytes).expect("inside");
    if built.is_ok() {
        assert!(used <= lent.len(), "{used} bytes of {}", lent.len());
        assert!(bytes[lent.start + used..].iter().all(|byte| *byte == FILL));
    }
    assert!(bytes[..lent.start.min(lists)].iter().all(|byte| *byte == FILL));
    assert!(bytes[lent.end.min(lists)..].iter().all(|byte| *byte == FILL));
    give_back(&space, data);
    give_back(&space, list);
}

/// The `count` entries of the list at `start`, and where lists lie; an error is a status and what was found before.
fn follow(
    start: u64,
    count: u64,
    page: u64,
    read: impl Fn(u64) -> Option<u64>,
) -> Result<(Vec<u64>, u64), (StatusCode, Vec<u64>)> {
    let (mut at, mut found) = (start, Vec::new());
    for left in (1..=count).rev() {
        if left > 1 && at % page == page - 8 {
            at = read(at).ok_or((StatusCode::DATA_TRANSFER_ERROR, found.clone()))?;
            if at % page != 0 {
                return Err((StatusCode::PRP_OFFSET_INVALID, found));
            }
        }
        let entry = read(at).ok_or((StatusCode::DATA_TRANSFER_ERROR, found.clone()))?;
        if entry % page != 0 {
            return Err((StatusCode::PRP_OFFSET_INVALID, found));
        }
        found.push(entry);
        at = at.wrapping_add(8);
    }
    Ok((found, at))
}

/// A controller reads blocks into memory that PRPs of the input's choice name.
fn walk(input: &mut Input<'_>) {
    with_rig(|rig| {
        assert!(rig.bring_up(MANAGER) && rig.make_queues(MANAGER));
        let space = rig.spaces[MANAGER].clone();
        let blocks = 1 + input.below(32);
        let len = u64::from(blocks) * 512;
        let address = |input: &mut Input<'_>| match input.u8() {
            choice @ 0..=0x7F => DATA + u64::from(choice % 20) * PAGE,
            choice @ 0x80..=0xBF => DATA + u64::from(choice % 16) * PAGE + 4 * u64::from(input.u8()),
            0xC0..=0xEF => {
                DATA + u64::from(input.u8() % 16) * PAGE + PAGE - 8 * (1 + u64::from(input.u8() % 8))
            }
            _ => input.u64(),
        };
        let (prp1, prp2) = (address(input), address(input));
        for _ in 0..input.below(8) {
            let page = 8 + u64::from(input.u8()) % (PAGES - 8);
            let present = !input.rarely(6);
            space.map(page, present);
        }
        // Lists are written behind the PRPs, and wherever else the input wants.
        let mut at = prp2;
        for _ in 0..input.below(16) {
            let entry = address(input);
            if (BASE + 8 * PAGE..BASE + PAGES * PAGE).contains(&at) {
                space.put(at, &entry.to_le_bytes());
            }
            at = if input.rarely(4) { entry } else { at.wrapping_add(8) };
        }
        let read_word = |at: u64| {
            let mut bytes = [0; 8];
            space.is_host_memory(BusAddr::new(at), 8).then(|| {
                space.get(at, &mut bytes);
                u64::from_le_bytes(bytes)
            })
        };
        let expected =
            model(prp1, prp2, len, read_word, |at, len| space.is_host_memory(BusAddr::new(at), len));
        let read = Read::new(NamespaceId::new(1), Lba::new(0), blocks);
        let entry = read.encode().with_prps(BusAddr::new(prp1), BusAddr::new(prp2));
        // A list that the data overwrite may lead anywhere; the model does not know.
        let overlaps = |segments: &[(u64, u64)]| {
            segments.iter().any(|(at, len)| {
                *at < prp2.saturating_add(17 * PAGE) && prp2 < at.saturating_add(*len + 17 * PAGE)
            })
        };
        space.take_touched();
        let done = rig.command(MANAGER, 1, entry).expect("every command is completed");
        let touched = space.take_touched();
        let written: Vec<(u64, u64)> = touched
            .iter()
            // The completion is none of the data, which the host may want in its completion queue's page, too.
            .filter(|touch| touch.write && !touch.refused && !touch.entry)
            .map(|touch| (touch.address, touch.len as u64))
            .collect();
        let total: u64 = written.iter().map(|(_, len)| len).sum();
        assert!(total <= len, "{total} bytes written of {len}");
        match expected {
            Ok(segments) => {
                if !overlaps(&segments) || len <= 2 * PAGE - prp1 % PAGE {
                    assert!(done.status().is_success(), "{:?}", done.status());
                    assert_eq!(merged(&written), merged(&segments));
                }
            }
            Err((code, segments)) => {
                if !overlaps(&segments) {
                    assert_eq!(done.status().code(), code);
                    let (written, segments) = (merged(&written), merged(&segments));
                    let covered = written.iter().all(|one| {
                        segments.iter().any(|all| all.0 <= one.0 && one.0 + one.1 <= all.0 + all.1)
                    });
                    assert!(covered, "{written:x?} is written of {segments:x?}");
                }
            }
        }
    });
}

/// Addresses and lengths.
type Runs = Vec<(u64, u64)>;

/// The runs of memory that the data go to, or the status and the runs before the error.
fn model(
    prp1: u64,
    prp2: u64,
    len: u64,
    read: impl Fn(u64) -> Option<u64>,
    mapped: impl Fn(u64, u64) -> bool,
) -> Result<Runs, (StatusCode, Runs)> {
    let invalid = |found: Vec<(u64, u64)>| Err((StatusCode::PRP_OFFSET_INVALID, found));
    let first = (PAGE - prp1 % PAGE).min(len);
    let left = len - first;
    let wrong = match left {
        0 => false,
        1..=PAGE => !prp2.is_multiple_of(PAGE),
        _ => !prp2.is_multiple_of(8),
    };
    if !prp1.is_multiple_of(4) || wrong {
        return invalid(Vec::new());
    }
    let mut error = None;
    let pages = match left {
        0 => Vec::new(),
        1..=PAGE => vec![prp2],
        _ => match follow(prp2, left.div_ceil(PAGE), PAGE, read) {
            Ok((pages, _)) => pages,
            Err((code, pages)) => {
                error = Some(code);
                pages
            }
        },
    };
    let mut segments = Vec::new();
    let mut rest = left;
    let runs = core::iter::once((prp1, first)).chain(pages.into_iter().map(|page| {
        let run = rest.min(PAGE);
        rest -= run;
        (page, run)
    }));
    for (at, run) in runs {
        if !mapped(at, run) {
            return Err((StatusCode::DATA_TRANSFER_ERROR, segments));
        }
        segments.push((at, run));
    }
    match error {
        Some(code) => Err((code, segments)),
        None => Ok(segments),
    }
}

/// Runs that follow each other in one.
fn merged(runs: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (at, len) in runs {
        match all.last_mut() {
            Some((before, so_far)) if *before + *so_far == *at => *so_far += len,
            _ => all.push((*at, *len)),
        }
    }
    all
}
