// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm cdq watch`: the log of one controller, live.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use clap::Args;
use nvme_core::cdq::{CdqFigures, ControllerDataQueue, LogEvent, QueuePoll};
use nvme_core::wire::TrackedId;
use nvme_core::wire::identify::Capability;
use serde::Serialize;

use super::Tracked;
use super::cdq::Shape;
use crate::cli::action::{Action, CommandError, Output, Sessions, Target, beside_guest, outcome};
use crate::cli::heat::Heat;
use crate::cli::load::{Load, LoadArgs, namespaces};
use crate::cli::picture::{Picture, Size};
use crate::cli::standing::{QueueName, Standing, log_user_data, start_log};
use crate::driver::DriverError;
use crate::session::Session;

const HELP: &str = "\
A queue is made, changes of the controller are logged into it and shown: on a terminal as a heat map, otherwise one line for \
each event (with --json one document). Ctrl-C stops the log, deletes the queue and ends with status 130.

Example: nvme-lm cdq watch embedded:demo --controller 2 --guest embedded:demo/2 --seconds 1";

/// Entries read between two looks at anything else.
const BATCH: u32 = 4096;
/// Time between two pictures.
const PICTURE: Duration = Duration::from_millis(200);
/// How long the end of the log is waited for.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// So many head updates that fail in a row end a watch.
const HEAD_FAILURES: u32 = 3;
/// Events kept in the picture.
const RECENT: usize = 4;

/// Options of `nvme-lm cdq watch`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct WatchArgs {
    #[command(flatten)]
    pub(crate) tracked: Tracked,
    /// Stop after so many seconds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=31_536_000))]
    seconds: Option<u64>,
    /// Stop after so many entries.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    shape: Shape,
    #[command(flatten)]
    load: LoadArgs,
}

/// One event as JSON.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event {
    Watching { queue: u16, controller: u16, entries: u32 },
    LogStarted,
    Changed { namespace: u32, start: u64, blocks: u64, deallocated: bool },
    AllChanged { namespace: u32 },
    LogStopped,
    Suspended,
    Overflowed,
    Violation { what: String },
    Restarted,
    Summary(Summary),
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
struct Summary {
    entries: u64,
    /// Blocks, counted as often as reported.
    blocks: u64,
    markers: u64,
    overflows: u64,
    violations: u64,
    head_updates: u64,
    head_failures: u64,
    tail_events: u64,
    full_events: u64,
    /// Most entries that were in the queue at once, as far as seen.
    highest_fill: u32,
    microseconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    guest_writes: Option<u64>,
}

impl From<LogEvent> for Event {
    fn from(event: LogEvent) -> Self {
        match event {
            LogEvent::LogStarted => Self::LogStarted,
            LogEvent::Changed { namespace, start, blocks, deallocated } => {
                Self::Changed { namespace: namespace.get(), start: start.get(), blocks, deallocated }
            }
            LogEvent::AllChanged { namespace } => Self::AllChanged { namespace: namespace.get() },
            LogEvent::LogStopped => Self::LogStopped,
            LogEvent::Suspended => Self::Suspended,
            LogEvent::Overflowed => Self::Overflowed,
        }
    }
}

impl Event {
    fn text(&self) -> String {
        match self {
            Self::Watching { queue, controller, entries } => {
                format!("watching controller {controller} through queue {queue} of {entries} entries")
            }
            Self::LogStarted => "log started".into(),
            Self::Changed { namespace, start, blocks, deallocated } => {
                let what = if *deallocated { "deallocated" } else { "changed" };
                let last = start.saturating_add(blocks.saturating_sub(1));
                format!("{what:<11} namespace {namespace}, blocks {start} to {last} ({blocks})")
            }
            Self::AllChanged { namespace } => format!("changed     namespace {namespace}, all blocks"),
            Self::LogStopped => "log stopped".into(),
            Self::Suspended => "log ended: the controller is suspended, and every change was reported".into(),
            Self::Overflowed => "OVERFLOW: the queue became full; later changes are lost".into(),
            Self::Violation { what } => format!("VIOLATION: {what}"),
            Self::Restarted => "log starts again; every block may have changed since the overflow".into(),
            Self::Summary(summary) => summary.text(),
        }
    }
}

impl Summary {
    fn text(&self) -> String {
        let seconds = (self.microseconds as f64 / 1e6).max(1e-6);
        let mut text = format!(
            "entries       {} ({:.0} a second), {} of them markers\n\
             blocks        {}, counted as often as reported\n\
             fill          {} entries at most\n\
             head updates  {}, {} failed\n\
             events        {} of the trigger, {} of a full queue\n\
             overflows     {}\n\
             violations    {}\n\
             time          {seconds:.3} s",
            self.entries,
            self.entries as f64 / seconds,
            self.markers,
            self.blocks,
            self.highest_fill,
            self.head_updates,
            self.head_failures,
            self.tail_events,
            self.full_events,
            self.overflows,
            self.violations,
        );
        if let Some(writes) = self.guest_writes {
            text += &format!("\nguest         {writes} writes");
        }
        text
    }
}

/// What is shown, and where.
struct Screen<'a> {
    output: &'a Output,
    /// On a terminal: what is drawn.
    map: Option<Map>,
    blocks: u64,
    markers: u64,
    /// Standard output could not be written to.
    failed: Result<(), CommandError>,
}

struct Map {
    heat: Heat,
    recent: Vec<String>,
    picture: Picture,
    due: Instant,
    entries_before: u64,
    drawn_at: Instant,
}

impl Screen<'_> {
    fn event(&mut self, event: Event) {
        match &event {
            Event::Changed { blocks, .. } => self.blocks = self.blocks.saturating_add(*blocks),
            Event::AllChanged { .. } => {}
            Event::LogStarted | Event::LogStopped | Event::Suspended | Event::Overflowed => self.markers += 1,
            _ => {}
        }
        let Some(map) = &mut self.map else {
            let printed = self.output.stream(&event, |out| writeln!(out, "{}", event.text()));
            let failed = std::mem::replace(&mut self.failed, Ok(()));
            self.failed = failed.and(printed);
            return;
        };
        match event {
            Event::Changed { namespace, start, blocks, .. } => map.heat.touch(namespace, start, blocks),
            Event::AllChanged { namespace } => map.heat.touch_all(namespace),
            other => {
                if map.recent.len() == RECENT {
                    map.recent.remove(0);
                }
                map.recent.push(other.text());
            }
        }
    }

    /// Draws the picture if it is time.
    fn draw(&mut self, queue: &ControllerDataQueue, now: Instant) {
        let Some(map) = &mut self.map else { return };
        if now < map.due {
            return;
        }
        let figures = queue.figures();
        let seconds = (now - map.drawn_at).as_secs_f64().max(1e-3);
        let rate = (figures.entries - map.entries_before) as f64 / seconds;
        (map.entries_before, map.drawn_at, map.due) = (figures.entries, now, now + PICTURE);
        let size = Size::of_terminal();
        let status = status(queue, &figures, self.blocks, rate);
        // On a small terminal the figures stay, before the maps and before what happened.
        let mut maps = map.heat.lines(size.usable());
        if anstream::AutoStream::choice(&io::stdout()) == anstream::ColorChoice::Never {
            maps.iter_mut().for_each(|map| *map = anstream::adapter::strip_str(map).to_string());
        }
        let maps = maps.get(..size.lines().saturating_sub(status.len())).unwrap_or(&maps);
        let recent = size.lines().saturating_sub(status.len() + maps.len());
        let recent = &map.recent[map.recent.len().saturating_sub(recent)..];
        let lines = maps.iter().chain(&status).chain(recent).map(String::as_str);
        let text = map.picture.draw(lines, size);
        map.heat.cool();
        // It moves the cursor even where no colours are wanted.
        let printed = self.output.raw(text.as_bytes());
        let failed = std::mem::replace(&mut self.failed, Ok(()));
        self.failed = failed.and(printed);
    }

    /// Takes the picture away.
    fn clear(&mut self) {
        if let Some(map) = &mut self.map {
            // Whoever cannot be shown the end of the picture is told so by what follows it.
            let _ = self.output.raw(map.picture.erase(Size::of_terminal()).as_bytes());
        }
    }
}

/// Whether standard output is a terminal on which a picture can be drawn again and again.
fn can_draw() -> bool {
    let kind = std::env::var_os("TERM");
    io::stdout().is_terminal() && kind.is_some_and(|kind| !kind.is_empty() && kind != "dumb")
}

/// The figures below the map, what matters most first: a line has what fits.
fn status(queue: &ControllerDataQueue, figures: &CdqFigures, blocks: u64, rate: f64) -> [String; 2] {
    let CdqFigures { entries, highest_fill, head_updates, overflows, .. } = figures;
    let (fill, most) = (queue.fill(), queue.entries() - 1);
    [
        format!(
            "{rate:.0} entries a second; fill {fill} of {most}, {highest_fill} at most; {overflows} overflows"
        ),
        format!("{entries} entries; {blocks} blocks; {head_updates} head updates"),
    ]
}

/// What a look at the queue found.
struct Look {
    /// Nothing new was there.
    empty: bool,
    /// There is nothing to do until the controller interrupts, or for a while.
    may_sleep: bool,
}

/// What is to be remembered from one look to the next.
#[derive(Default)]
struct Course {
    /// Head updates that failed in a row.
    failures: u32,
    /// The last marker ended the log, and not because the queue was full.
    ended: bool,
}

/// Reads what is in the queue.
fn look(
    session: &mut Session<'_>,
    queue: &mut ControllerDataQueue,
    screen: &mut Screen<'_>,
    limit: u32,
    course: &mut Course,
) -> Result<Look, CommandError> {
    let now = session.now();
    session.controller().poll(now).map_err(DriverError::from)?;
    let mut marked = false;
    let updates = queue.figures().head_updates;
    let (drained, polled) = queue.poll_events(session.controller().admin(), now, limit, false, |event| {
        marked |= event == LogEvent::Overflowed;
        match event {
            // That of a full queue is started again.
            LogEvent::LogStarted | LogEvent::Overflowed => course.ended = false,
            LogEvent::LogStopped | LogEvent::Suspended => course.ended = true,
            _ => {}
        }
        screen.event(event.into());
    });
    if queue.figures().head_updates != updates {
        course.failures = 0;
    }
    let found = |may_sleep| Ok(Look { empty: drained.empty, may_sleep });
    if drained.overflowed && !marked {
        // Only the controller's event told of it.
        screen.event(Event::Overflowed);
    }
    while let Some(violation) = queue.take_violation() {
        screen.event(Event::Violation { what: violation.to_string() });
    }
    match polled {
        Ok(QueuePoll::MaySleep) => found(true),
        Ok(QueuePoll::Again) => found(false),
        Ok(QueuePoll::Gone) => {
            Err(CommandError::Failed("the managing controller was reset, and the queue went with it".into()))
        }
        Err(error) => {
            course.failures += 1;
            if course.failures >= HEAD_FAILURES {
                return Err(CommandError::Failed(format!(
                    "the head of the queue could not be moved, {HEAD_FAILURES} times in a row: {error}"
                )));
            }
            // It is sent again.
            found(true)
        }
    }
}

impl Action for WatchArgs {
    fn targets(&self) -> Vec<Target> {
        let mut targets = vec![self.shape.target(&self.tracked.manager)];
        targets.extend(self.load.target());
        targets
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let device = self.load.guest.as_ref().map(|address| sessions.device(address)).transpose()?;
        let Tracked { manager, controller, .. } = &self.tracked;
        let (session, standing, tracked) =
            sessions.tracked(manager, Capability::TrackUserData, *controller)?;
        let load =
            device.map(|device| Load::start(&self.load, device, session, standing, tracked)).transpose()?;
        let watched = self.watch(session, standing, tracked, load.as_ref(), output);
        let ended = load.map(Load::finish).transpose();
        // The guest is at rest: whatever it changed is in the log.
        let writes = ended.as_ref().ok().and_then(Option::as_ref).map(|report| report.writes);
        let watched = watched
            .and_then(|(screen, begun, failed)| self.end(session, standing, screen, begun, failed, writes));
        beside_guest(watched, ended.map(drop), output)
    }
}

/// What is being watched.
struct Begun {
    queue: QueueName,
    /// The queue was made, and logging started, by this command.
    made: bool,
    started: bool,
    at: Instant,
}

impl WatchArgs {
    /// Starts the log and shows it until it is time to stop, or until that fails.
    fn watch<'o>(
        &self,
        session: &mut Session<'_>,
        standing: &mut Standing,
        tracked: TrackedId,
        load: Option<&Load>,
        output: &'o Output,
    ) -> Result<(Screen<'o>, Begun, Result<(), CommandError>), CommandError> {
        let mut screen = Screen { output, map: None, blocks: 0, markers: 0, failed: Ok(()) };
        if !output.is_json() && can_draw() {
            let mut heat = Heat::default();
            for (namespace, identity) in namespaces(session, 8)? {
                heat.add(namespace.get(), identity.blocks);
            }
            let now = Instant::now();
            let (recent, picture) = (Vec::new(), Picture::default());
            screen.map = Some(Map { heat, recent, picture, due: now, entries_before: 0, drawn_at: now });
        }
        let options = self.shape.options(session);
        let made = standing.queue_of(session, tracked).is_none();
        if made {
            self.shape.warn(session, output);
            standing.create(session, tracked, &options)?;
        }
        let held = standing.queue_of(session, tracked).ok_or(CommandError::Interrupted)?;
        let id = held.queue.id();
        let controller = tracked.controller().get();
        screen.event(Event::Watching { queue: id.get(), controller, entries: held.queue.entries() });
        let started = !held.logging;
        if started {
            start_log(session, held)?;
            held.logging = true;
        }
        // Not before: what it writes is in the log, all of it.
        if let Some(load) = load {
            load.begin();
        }
        let at = Instant::now();
        let begun = Begun { queue: QueueName::Id(id), made, started, at };
        let until = self.seconds.map(|seconds| at + Duration::from_secs(seconds));
        let first = held.queue.figures().entries;
        let mut course = Course::default();
        loop {
            let seen = held.queue.figures().entries - first;
            let left = self.count.map_or(u64::from(BATCH), |count| count.saturating_sub(seen));
            let now = Instant::now();
            let over = left == 0 || until.is_some_and(|until| now >= until);
            if over || output.is_interrupted() || output.is_closed() || screen.failed.is_err() {
                return Ok((screen, begun, Ok(())));
            }
            if let Some(load) = load
                && load.has_failed()
            {
                return Ok((screen, begun, Ok(())));
            }
            let overflows = held.queue.figures().overflows;
            let limit = u32::try_from(left).unwrap_or(BATCH).min(BATCH);
            let look = match look(session, &mut held.queue, &mut screen, limit, &mut course) {
                Ok(look) => look,
                Err(error) => return Ok((screen, begun, Err(error))),
            };
            held.logging &= held.queue.figures().overflows == overflows;
            screen.draw(&held.queue, now);
            if look.empty && course.ended {
                // Whoever stopped the log, or suspended the controller, leaves nothing to watch.
                held.logging = false;
                return Ok((screen, begun, Ok(())));
            }
            if !held.logging && look.empty && held.queue.is_published() {
                // Everything before the overflow has been shown and given back.
                if let Err(error) = start_log(session, held) {
                    return Ok((screen, begun, Err(error)));
                }
                held.logging = true;
                screen.event(Event::Restarted);
            }
            if look.may_sleep {
                session.nap();
            }
        }
    }

    /// Ends what was begun, and shows what came of it.
    fn end(
        &self,
        session: &mut Session<'_>,
        standing: &mut Standing,
        mut screen: Screen<'_>,
        begun: Begun,
        failed: Result<(), CommandError>,
        guest_writes: Option<u64>,
    ) -> Result<(), CommandError> {
        screen.clear();
        let (summary, stopped) = match self.finish(session, standing, &mut screen, begun) {
            Ok((summary, stopped)) => (Some(Summary { guest_writes, ..summary }), stopped),
            Err(error) => (None, Err(error)),
        };
        let output = screen.output;
        screen.map = None;
        if let Some(summary) = summary {
            screen.event(Event::Summary(summary));
        }
        let worked = if output.is_interrupted() { Err(CommandError::Interrupted) } else { Ok(()) };
        let others = [failed, stopped, screen.failed].into_iter().filter_map(Result::err);
        outcome(worked, others.collect(), output)
    }

    /// Stops what this command started, and counts; the second result says whether everything could be stopped.
    fn finish(
        &self,
        session: &mut Session<'_>,
        standing: &mut Standing,
        screen: &mut Screen<'_>,
        begun: Begun,
    ) -> Result<(Summary, Result<(), CommandError>), CommandError> {
        let held = standing.queue(session, begun.queue)?;
        let mut stopped = Ok(());
        if begun.started && held.logging {
            stopped = log_user_data(session, held.queue.id(), false);
            held.logging = false;
            let until = Instant::now() + LAST_LOOK;
            let (markers, mut course) = (screen.markers, Course::default());
            while stopped.is_ok() && self.count.is_none() && Instant::now() < until {
                match look(session, &mut held.queue, screen, BATCH, &mut course) {
                    Ok(look) if look.empty && screen.markers > markers => break,
                    Ok(_) => {}
                    Err(error) => stopped = Err(error),
                }
            }
        }
        let mut figures = held.queue.figures();
        if begun.made {
            match standing.delete(session, begun.queue) {
                Ok((_, last)) => figures = last,
                Err(error) => stopped = stopped.and(Err(error)),
            }
        }
        let summary = Summary {
            entries: figures.entries,
            blocks: screen.blocks,
            markers: screen.markers,
            overflows: figures.overflows,
            violations: figures.violations,
            head_updates: figures.head_updates,
            head_failures: figures.head_failures,
            tail_events: figures.tail_events,
            full_events: figures.full_events,
            highest_fill: figures.highest_fill,
            microseconds: u64::try_from(begun.at.elapsed().as_micros()).unwrap_or(u64::MAX),
            guest_writes: None,
        };
        Ok((summary, stopped))
    }
}
