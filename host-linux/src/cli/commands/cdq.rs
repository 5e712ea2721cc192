// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nvme-lm cdq`: Controller Data Queues made and deleted by hand.

use clap::{Args, Subcommand};
use nvme_core::cdq::{CdqOptions, HeadPolicy, MemoryLimits, QueueLayout};
use nvme_core::migration::Quirks;
use nvme_core::wire::CdqId;
use nvme_core::wire::cdq::{ControllerDataQueueCommand, ENTRY_BYTES};
use nvme_core::wire::identify::Capability;
use serde::Serialize;

use super::Tracked;
use super::watch::WatchArgs;
use crate::address::Address;
use crate::cli::action::{Action, CommandError, Output, Sessions, Target};
use crate::cli::connect::ConnectArgs;
use crate::cli::standing::QueueName;
use crate::cli::values;
use crate::config::CdqLayout;
use crate::session::{Data, Session};

const CREATE_HELP: &str = "\
The queue lasts as long as the script that it is made in (nvme-lm script) and is deleted at its end.

Example: nvme-lm cdq create embedded:demo --controller 2";

const DELETE_HELP: &str = "\
Example: nvme-lm script --line 'cdq create embedded:demo --controller 2' --line 'cdq delete embedded:demo --id last'";

/// What to do with Controller Data Queues.
#[derive(Clone, Debug, Subcommand)]
pub enum CdqCommand {
    /// Make a queue for the changes of a controller.
    Create(Box<CreateArgs>),
    /// Show the changes of a controller as they come.
    Watch(Box<WatchArgs>),
    /// Delete a queue.
    Delete(Box<DeleteArgs>),
}

/// What a queue is like.
#[derive(Args, Clone, Debug)]
pub(crate) struct Shape {
    /// Entries, one of them always empty.
    #[arg(long, value_name = "N", default_value = "4096", value_parser = values::cdq_entries, help_heading = "Queue")]
    pub(crate) entries: u32,
    /// How it lies in memory: contiguous, or prp-list.
    #[arg(
        long,
        hide_short_help = true,
        value_name = "LAYOUT",
        default_value = "contiguous",
        hide_possible_values = true,
        help_heading = "Queue"
    )]
    pub(crate) layout: CdqLayout,
    /// Give entries back after so many [default: a quarter of the queue, and whenever it is empty].
    #[arg(long, hide_short_help = true, value_name = "N", value_parser = values::head_every, help_heading = "Queue")]
    pub(crate) head_every: Option<u32>,
    /// Have the controller raise an event so many entries after the next one.
    #[arg(long, hide_short_help = true, value_name = "N", default_value = "0", value_parser = values::number::<u32>, help_heading = "Queue")]
    pub(crate) trigger: u32,
}

impl Shape {
    /// A queue of a usual size.
    pub(crate) const USUAL: Self =
        Self { entries: 4096, layout: CdqLayout::Contiguous, head_every: None, trigger: 0 };

    /// Memory for it, its list included.
    pub(crate) fn bytes(&self) -> usize {
        let slots = self.entries as usize * ENTRY_BYTES as usize;
        // A page of a list names 511 pages.
        slots + (slots / (4096 * 511) + 2) * 4096
    }

    /// The managing controller, with memory for it.
    pub(crate) fn target(&self, manager: &Address) -> Target {
        let mut target = Target::new(manager);
        target.memory.controller_data = self.bytes().max(target.memory.controller_data);
        target
    }

    /// Says what a quirk makes of what was asked for.
    pub(crate) fn warn(&self, session: &Session<'_>, output: &Output) {
        if self.layout == CdqLayout::PrpList && session.quirks().contains(Quirks::CONTIGUOUS_QUEUES_ONLY) {
            output.note("the queue is contiguous, because of the quirk contiguous-queues-only");
        }
    }

    pub(crate) fn options(&self, session: &Session<'_>) -> CdqOptions {
        let (limits, quirks) = (&session.identity().migration, session.quirks());
        let usual = HeadPolicy::default();
        let trigger = match quirks {
            quirks if quirks.contains(Quirks::EVENTS_ONCE) => None,
            quirks if quirks.contains(Quirks::TRIGGER_ONE_EARLY) => Some(self.trigger.saturating_add(1)),
            _ => Some(self.trigger),
        };
        let head = HeadPolicy {
            every: self.head_every.unwrap_or(0),
            occupancy_percent: if self.head_every.is_some() { 0 } else { usual.occupancy_percent },
            wake_after: trigger,
            timeout: session.timeout(),
            ..usual
        };
        CdqOptions {
            entries: self.entries,
            layout: match self.layout {
                CdqLayout::Contiguous => QueueLayout::Contiguous,
                CdqLayout::PrpList if quirks.contains(Quirks::CONTIGUOUS_QUEUES_ONLY) => {
                    QueueLayout::Contiguous
                }
                CdqLayout::PrpList => QueueLayout::PrpList,
            },
            limits: MemoryLimits { ranges: limits.queue_memory_ranges, list_entries: limits.queue_prps },
            head,
            timeout: session.timeout(),
        }
    }
}

/// Options of `nvme-lm cdq create`.
#[derive(Args, Clone, Debug)]
#[command(after_help = CREATE_HELP)]
pub struct CreateArgs {
    #[command(flatten)]
    pub(crate) tracked: Tracked,
    #[command(flatten)]
    shape: Shape,
}

#[derive(Serialize)]
struct Limits {
    /// MCUDMQ and MNSUDMQ.
    queues: u16,
    subsystem_queues: u16,
    /// MCMR and NMCMR.
    memory_ranges: u16,
    subsystem_memory_ranges: u16,
    /// MCDQPC.
    list_entries: u16,
}

#[derive(Serialize)]
struct Created {
    id: u16,
    controller: u16,
    entries: u32,
    bytes: u64,
    layout: CdqLayout,
    limits: Limits,
}

impl Action for CreateArgs {
    fn targets(&self) -> Vec<Target> {
        vec![self.shape.target(&self.tracked.manager)]
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let Tracked { manager, controller, .. } = &self.tracked;
        let (session, standing, tracked) =
            sessions.tracked(manager, Capability::TrackUserData, *controller)?;
        let options = self.shape.options(session);
        self.shape.warn(session, output);
        let announced = session.identity().migration;
        let queue = &standing.create(session, tracked, &options)?.queue;
        let created = Created {
            id: queue.id().get(),
            controller: tracked.controller().get(),
            entries: queue.entries(),
            bytes: u64::from(queue.entries()) * u64::from(ENTRY_BYTES),
            layout: match options.layout {
                QueueLayout::Contiguous => CdqLayout::Contiguous,
                QueueLayout::PrpList => CdqLayout::PrpList,
            },
            limits: Limits {
                queues: announced.controller_queues,
                subsystem_queues: announced.subsystem_queues,
                memory_ranges: announced.queue_memory_ranges,
                subsystem_memory_ranges: announced.subsystem_memory_ranges,
                list_entries: announced.queue_prps,
            },
        };
        output.emit(&created, |out| {
            let Created { id, controller, entries, bytes, layout, limits } = &created;
            let layout = match layout {
                CdqLayout::Contiguous => "contiguous",
                CdqLayout::PrpList => "pages in a PRP list",
            };
            writeln!(out, "queue       {id}")?;
            writeln!(out, "controller  {controller}")?;
            writeln!(out, "entries     {entries}, one of which stays empty")?;
            writeln!(out, "memory      {}, {layout}", values::show_bytes(*bytes))?;
            writeln!(
                out,
                "limits      {} queues (MCUDMQ), {} in the subsystem (MNSUDMQ)",
                limits.queues, limits.subsystem_queues
            )?;
            writeln!(
                out,
                "            {} memory ranges (MCMR), {} in the subsystem (NMCMR), {} list entries (MCDQPC)",
                limits.memory_ranges, limits.subsystem_memory_ranges, limits.list_entries
            )
        })
    }
}

/// Options of `nvme-lm cdq delete`.
#[derive(Args, Clone, Debug)]
#[command(after_help = DELETE_HELP)]
pub struct DeleteArgs {
    /// The managing controller.
    #[arg(value_name = "MANAGER")]
    manager: Address,
    /// The queue: its identifier, or last.
    #[arg(long, value_name = "ID")]
    id: QueueName,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Serialize)]
struct Deleted {
    id: u16,
    /// Entries read from it.
    entries: u64,
    head_updates: u64,
    overflows: u64,
}

impl Action for DeleteArgs {
    fn targets(&self) -> Vec<Target> {
        vec![Target::new(&self.manager)]
    }

    fn run(&self, sessions: &mut Sessions<'_>, output: &Output) -> Result<(), CommandError> {
        let (session, standing) = sessions.standing(&self.manager, Capability::TrackUserData)?;
        let deleted = match (standing.delete(session, self.id), self.id) {
            (Ok((id, figures)), _) => Deleted {
                id: id.get(),
                entries: figures.entries,
                head_updates: figures.head_updates,
                overflows: figures.overflows,
            },
            // A queue that nobody here has made.
            (Err(CommandError::Input(_)), QueueName::Id(id)) if self.connect.force => {
                delete_unknown(session, id)?;
                Deleted { id: id.get(), entries: 0, head_updates: 0, overflows: 0 }
            }
            (Err(error), _) => return Err(error),
        };
        output.emit(&deleted, |out| writeln!(out, "queue {} is deleted", deleted.id))
    }
}

fn delete_unknown(session: &mut Session<'_>, id: CdqId) -> Result<(), CommandError> {
    let command = ControllerDataQueueCommand::Delete(id);
    session.command("Controller Data Queue, Delete", &command, Data::None)?;
    Ok(())
}
