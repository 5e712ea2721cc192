// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm track memory`: which host memory a controller writes.

use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Args;
use nvme_core::wire::identify::Capability;
use nvme_core::wire::track::{
    MemoryGranularity, MemoryRange, TrackMemoryRanges, TrackReceive, TrackSend, TrackedMemoryChanges,
};
use nvme_core::wire::{BusAddr, ControllerId};
use serde::Serialize;

use super::Tracked;
use crate::cli::action::{Action, CommandError, Output, Sessions, Target, beside_guest};
use crate::cli::load::{Load, LoadArgs};
use crate::cli::standing::{Standing, tracked};
use crate::cli::values;
use crate::memory::{AddressSpace, Window};
use crate::session::{Data, Session};

/// Bytes of a page, which is mapped whole or not at all.
const PAGE: u64 = 4096;
/// Bytes of one Track Receive.
const RECEIVE_BYTES: usize = 4096;
/// Track Receive commands for one look, at most: a controller always has more to report if it likes.
const RECEIVES: usize = 4096;
/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

pub(super) const HELP: &str = "\
With --range or --guest tracking starts; it stops at the end, or with --stop in a later line of the same script. What is \
shown once the controller forgets. Addresses are those of the controller's own memory; --guest tracks all memory of the \
guest unless ranges are given, and waits for the first changes.

Example: nvme-lm track memory embedded:demo --controller 2 --guest embedded:demo/2";

/// A range of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u64,
    bytes: u64,
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (start, bytes) = text.split_once('+').ok_or("write START+BYTES, such as 0x100000+64K")?;
        let bytes = match values::number(bytes) {
            Ok(bytes) => bytes,
            Err(_) => values::bytes(bytes)?,
        };
        Ok(Self { start: values::number(start)?, bytes })
    }
}

/// Options of `nvme-lm track memory`.
#[derive(Args, Clone, Debug)]
pub struct MemoryArgs {
    #[command(flatten)]
    pub(crate) tracked: Tracked,
    /// Track this range, START+BYTES; may be repeated.
    #[arg(long = "range", value_name = "RANGE")]
    ranges: Vec<Range>,
    /// Bytes that are told apart: a power of two from 4K on, up to 2M if --guest says what is tracked [default: the fewest
    /// that the controller can].
    #[arg(long, hide_short_help = true, value_name = "BYTES", value_parser = values::bytes)]
    granularity: Option<u64>,
    /// Show changes for so long, not only once.
    #[arg(long, value_name = "TIME", value_parser = values::run_time)]
    watch: Option<Duration>,
    /// Stop tracking afterwards.
    #[arg(long, hide_short_help = true)]
    stop: bool,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Serialize)]
struct Changed {
    start: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Changes {
    controller: u16,
    granularity: u64,
    changed: Vec<Changed>,
    /// The controller was suspended, and this is all.
    complete: bool,
}

/// So many bytes, if memory can be told apart by them.
fn unit(granularity: u64) -> Result<MemoryGranularity, CommandError> {
    let units = Some(granularity / PAGE).filter(|units| units.is_power_of_two());
    let exponent = units.and_then(|units| u8::try_from(units.trailing_zeros()).ok());
    exponent.filter(|_| granularity.is_multiple_of(PAGE)).and_then(MemoryGranularity::new).ok_or_else(|| {
        CommandError::Input(format!("granularity {granularity} is no power of two from 4096 on"))
    })
}

/// The data of the command that starts tracking.
fn ranges(ranges: &[Range], granularity: u64) -> Result<Vec<u8>, CommandError> {
    let wrong = |what: String| CommandError::Input(what);
    let unit = unit(granularity)?;
    let mut list = Vec::new();
    for Range { start, bytes } in ranges {
        let granules = u32::try_from(bytes / granularity).ok().filter(|count| *count > 0);
        match granules {
            Some(granules) if bytes.is_multiple_of(granularity) && start.is_multiple_of(granularity) => {
                list.push(MemoryRange { start: BusAddr::new(*start), granules });
            }
            _ => {
                return Err(wrong(format!(
                    "range {start:#x}+{bytes}: both numbers must be multiples of {granularity}, the second not zero"
                )));
            }
        }
    }
    let mut data = vec![0; 8 + 12 * list.len()];
    TrackMemoryRanges::build(&mut data, unit, &list).map_err(|error| wrong(error.to_string()))?;
    Ok(data)
}

/// Those granules that hold memory of `ranges`, which are in order.
fn widened(ranges: &[Range], granularity: u64) -> Vec<Range> {
    let mut wide: Vec<Range> = Vec::new();
    for Range { start, bytes } in ranges {
        let first = start - start % granularity;
        let end = (start + bytes).checked_next_multiple_of(granularity).unwrap_or(u64::MAX);
        match wide.last_mut() {
            Some(last) if last.start + last.bytes >= first => last.bytes = end - last.start,
            _ => wide.push(Range { start: first, bytes: end - first }),
        }
    }
    wide
}

/// Those granules that hold memory of `used`, which lies in `windows`, and none that reaches beyond: a controller may refuse
/// to track what is no host memory, and what lies there is not the guest's.
fn granules(windows: &[Window], used: &[Range], granularity: u64) -> Result<Vec<Range>, CommandError> {
    unit(granularity)?;
    let fit = |granularity: u64| {
        let wide = widened(used, granularity);
        let is_inside = |Range { start, bytes }: &Range| {
            windows.iter().any(|Window { address, len, .. }| {
                start.checked_sub(address.get()).is_some_and(|before| before + bytes <= *len)
            })
        };
        wide.iter().all(is_inside).then_some(wide)
    };
    if let Some(ranges) = fit(granularity) {
        return Ok(ranges);
    }
    let mut largest = granularity / 2;
    while largest > PAGE && fit(largest).is_none() {
        largest /= 2;
    }
    Err(CommandError::Input(format!(
        "granules of {} reach beyond the guest's memory, in which those of {} fit and no larger ones: give --granularity no \
         more than that, or say by --range what to track",
        values::show_bytes(granularity),
        values::show_bytes(largest)
    )))
}

/// The memory that the controller of a guest reaches.
fn in_use(space: &AddressSpace) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for window in space.windows() {
        let first = window.address.get();
        for start in (first..first + window.len).step_by(PAGE as usize) {
            if !space.is_mapped(BusAddr::new(start)) {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if last.start + last.bytes == start => last.bytes += PAGE,
                _ => ranges.push(Range { start, bytes: PAGE }),
            }
        }
    }
    ranges
}

/// Takes everything that the controller reports now.
fn receive(session: &mut Session<'_>, controller: ControllerId) -> Result<Changes, CommandError> {
    let command = TrackReceive { controller, dwords: RECEIVE_BYTES as u64 / 4 };
    let mut changes =
        Changes { controller: controller.get(), granularity: 0, changed: Vec::new(), complete: false };
    for _ in 0..RECEIVES {
        let (_, bytes) = session.command("Track Receive", &command, Data::Receive(RECEIVE_BYTES))?;
        let report = TrackedMemoryChanges::parse(&bytes)
            .map_err(|error| CommandError::Failed(format!("Track Receive: {error}")))?;
        changes.granularity = report.granularity().bytes();
        changes.complete = report.is_final();
        changes.changed.extend(report.iter().map(|range| Changed {
            start: range.start.get(),
            bytes: range.bytes(report.granularity()).unwrap_or(0),
        }));
        if !report.more() {
            return Ok(changes);
        }
    }
    Err(CommandError::Failed(format!(
        "the controller reports changes without end, {RECEIVES} times in a row"
    )))
}

fn show(changes: &Changes, output: &Output) -> Result<(), CommandError> {
    output.stream(changes, |out| {
        for Changed { start, bytes } in &changes.changed {
            writeln!(out, "{start:#018x}  {}", values::show_bytes(*bytes))?;
        }
        if changes.complete {
            writeln!(out, "controller {} is suspended: nothing more will come", changes.controller)?;
        }
        Ok(())
    })
}

impl Action for MemoryArgs {
    fn targets(&self) -> Vec<Target> {
        let mut targets = vec![Target::new(&self.tracked.manager)];
        targets.extend(self.load.target());
        targets
    }

    fn prepare(&mut self, _output: &Output) -> Result<(), CommandError> {
        self.granularity.map(unit).transpose()?;
        if self.granularity.is_some() && self.ranges.is_empty() && self.load.guest.is_none() {
            return Err(CommandError::Input(
                "--granularity is of what is tracked from now on; give --range or --guest with it".into(),
            ));
        }
        Ok(())
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let device = self.load.guest.as_ref().map(|address| sessions.device(address)).transpose()?;
        let Tracked { manager, controller, .. } = &self.tracked;
        let (session, standing, controller) =
            sessions.tracked(manager, Capability::TrackHostMemory, *controller)?;
        let Some(device) = device else {
            return self.track(session, standing, self.ranges.clone(), None, output);
        };
        let load = Load::start(&self.load, device, session, standing, controller)?;
        load.begin();
        let until = session.now().after(session.timeout());
        while load.commands() == 0
            && !load.has_failed()
            && !output.is_interrupted()
            && !session.now().has_reached(until)
        {
            session.nap();
        }
        let ranges = match self.ranges.is_empty() {
            true => granules(&device.space().windows(), &in_use(device.space()), self.unit(session)),
            false => Ok(self.ranges.clone()),
        };
        let tracked = match output.is_interrupted() {
            true => Err(CommandError::Interrupted),
            false => ranges.and_then(|ranges| self.track(session, standing, ranges, Some(&load), output)),
        };
        beside_guest(tracked, load.finish().map(drop), output)
    }
}

impl MemoryArgs {
    /// Bytes that are told apart.
    fn unit(&self, session: &Session<'_>) -> u64 {
        let least = 4096_u64 << session.identity().migration.minimum_granularity.min(31);
        self.granularity.unwrap_or(least)
    }

    fn track(
        &self,
        session: &mut Session<'_>,
        standing: &mut Standing,
        chosen: Vec<Range>,
        load: Option<&Load>,
        output: &Output,
    ) -> Result<(), CommandError> {
        let controller = tracked(session, self.tracked.controller)?.controller();
        let id = controller.get();
        if !chosen.is_empty() {
            let data = ranges(&chosen, self.unit(session))?;
            let command = TrackSend::TrackMemoryChanges { start: true, controller };
            session.command("Track Send, Track Memory Changes", &command, Data::Send(&data))?;
            standing.tracks_memory(session, controller, true);
        } else if !standing.is_memory_tracked(session, controller) && !self.stop {
            return Err(CommandError::Input(format!(
                "host memory is not tracked for controller {id}; name what to track by --range"
            )));
        }
        if standing.is_memory_tracked(session, controller) {
            let until = self.watch.map(|time| Instant::now() + time);
            let first = session.now().after(session.timeout());
            loop {
                // Whatever it changed before is reported below.
                let failed = load.is_some_and(Load::has_failed);
                let changes = receive(session, controller)?;
                // A guest that has only just started changes something soon.
                let patient =
                    load.is_some() && changes.changed.is_empty() && !session.now().has_reached(first);
                let last =
                    changes.complete || failed || until.map_or(!patient, |until| Instant::now() >= until);
                if last || !changes.changed.is_empty() {
                    show(&changes, output)?;
                }
                if output.is_interrupted() {
                    return Err(CommandError::Interrupted);
                }
                if last || self.watch.is_some() && output.is_closed() {
                    break;
                }
                std::thread::sleep(INTERVAL);
            }
        }
        if self.stop {
            let command = TrackSend::TrackMemoryChanges { start: false, controller };
            session.command("Track Send, stop tracking memory", &command, Data::None)?;
            standing.tracks_memory(session, controller, false);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_use_is_tracked_in_whole_granules() {
        type Pairs = &'static [(u64, u64)];
        let rows: [(&str, u64, Pairs, Pairs); 6] = [
            ("nothing", 0x10000, &[], &[]),
            ("as it is", 0x1000, &[(0x3000, 0x2000)], &[(0x3000, 0x2000)]),
            ("to both sides", 0x10000, &[(0x23000, 0x36000)], &[(0x20000, 0x40000)]),
            (
                "joined",
                0x10000,
                &[(0x1000, 0x1000), (0x3000, 0x1000), (0x2F000, 0x2000)],
                &[(0, 0x10000), (0x20000, 0x20000)],
            ),
            ("adjacent", 0x10000, &[(0xF000, 0x1000), (0x10000, 0x1000)], &[(0, 0x20000)]),
            ("one in another", 0x10000, &[(0x1000, 0x1F000), (0x21000, 0x1000)], &[(0, 0x30000)]),
        ];
        for (name, granularity, used, expected) in rows {
            let ranges = |pairs: Pairs| -> Vec<Range> {
                pairs.iter().map(|(start, bytes)| Range { start: *start, bytes: *bytes }).collect()
            };
            assert_eq!(widened(&ranges(used), granularity), ranges(expected), "{name}");
        }
    }

    #[test]
    fn granules_keep_to_the_memory_of_the_guest() {
        const MIB: u64 = 1 << 20;
        const AT: u64 = 1 << 40;
        type Pairs = &'static [(u64, u64)];
        type Row = (&'static str, u64, Pairs, Result<Pairs, &'static str>);
        // Granularity, what is used of a window of 2 MiB and of one of 4 MiB and a page behind it, from their beginnings on.
        let rows: [Row; 8] = [
            ("pages", PAGE, &[(PAGE, PAGE)], Ok(&[(PAGE, PAGE)])),
            ("a whole window", 2 * MIB, &[(2 * MIB - PAGE, PAGE)], Ok(&[(0, 2 * MIB)])),
            ("both", 2 * MIB, &[(0, PAGE), (8 * MIB - PAGE, PAGE)], Ok(&[(0, 2 * MIB), (6 * MIB, 2 * MIB)])),
            (
                "beyond an end",
                4 * MIB,
                &[(PAGE, PAGE)],
                Err("granules of 4 MiB reach beyond the guest's memory, in which those of 2 MiB fit"),
            ),
            (
                "beyond an end in part",
                8 * MIB,
                &[(4 * MIB, 4 * MIB)],
                Err("those of 4 MiB fit and no larger ones"),
            ),
            ("more than there are addresses", 1 << 63, &[(PAGE, PAGE)], Err("those of 2 MiB fit")),
            ("a page that is left", 8192, &[(8 * MIB, PAGE)], Err("in which those of 4 KiB fit")),
            ("no granularity", 0, &[(0, PAGE)], Err("granularity 0 is no power of two")),
        ];
        let windows = [(0, 2 * MIB), (4 * MIB, 4 * MIB + PAGE)].map(|(start, len)| Window {
            offset: 0,
            address: BusAddr::new(AT + start),
            len,
        });
        for (name, granularity, used, expected) in rows {
            let at = |pairs: Pairs| -> Vec<Range> {
                pairs.iter().map(|(start, bytes)| Range { start: AT + start, bytes: *bytes }).collect()
            };
            match (granules(&windows, &at(used), granularity), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, at(expected), "{name}"),
                (Err(CommandError::Input(said)), Err(words)) => {
                    assert!(said.contains(words), "{name}: {said}")
                }
                (found, expected) => panic!("{name}: {found:?} where {expected:?} should be"),
            }
        }
    }

    #[test]
    fn ranges_keep_to_the_granularity() {
        let rows: [(&str, &str, u64, Result<u32, &str>); 8] = [
            ("one granule", "0x1000+4096", 4096, Ok(1)),
            ("units", "0x100000+1M", 65536, Ok(16)),
            ("hexadecimal length", "4096+0x2000", 4096, Ok(2)),
            ("start between granules", "0x800+4K", 4096, Err("must be multiples of 4096")),
            ("length between granules", "0+5000", 4096, Err("must be multiples of 4096")),
            ("nothing", "0+0", 4096, Err("the second not zero")),
            ("odd granularity", "0+4K", 6144, Err("granularity 6144")),
            ("too small a granularity", "0+4K", 2048, Err("granularity 2048")),
        ];
        for (name, text, granularity, expected) in rows {
            let range: Range = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
            match (ranges(&[range], granularity), expected) {
                (Ok(data), Ok(granules)) => {
                    let parsed = TrackMemoryRanges::parse(&data, false).expect("what was built");
                    assert_eq!(parsed.granularity().bytes(), granularity, "{name}");
                    assert!(parsed.iter().eq([MemoryRange { start: BusAddr::new(range.start), granules }]));
                }
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{name}: {error}"),
                (found, expected) => panic!("{name}: {found:?} where {expected:?} should be"),
            }
        }
        assert!("5".parse::<Range>().is_err_and(|error| error.contains("START+BYTES")));
    }
}
