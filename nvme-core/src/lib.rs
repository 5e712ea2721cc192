// SPDX-License-Identifier: MIT OR Apache-2.0
//! NVMe driver core with Controller Data Queues and Host Managed Live Migration (NVMe Base 2.1).
//!
//! The crate is the host's side of the protocol, for firmware, hypervisors and user space alike. It has no allocator,
//! no clock, no executor and no thread: memory is lent by the caller, time is passed to every `poll`, and long jobs
//! are step machines that say when to poll again. The device's side is the crate `nvme-controller`.
//!
//! # Bringing a controller up
//!
//! ```
//! use nvme_core::admin::AdminSlot;
//! use nvme_core::controller::{EnableOptions, Link, Ready, attach};
//! use nvme_core::dma::DmaArena;
//! use nvme_core::register::RegisterIo;
//! use nvme_core::time::{Instant, Step};
//!
//! /// Takes a controller over and makes it ready; `sleep` comes back at the time told, or earlier, and says what time it is.
//! fn bring_up<'d, 'q, R: RegisterIo, A: DmaArena>(
//!     registers: &'d R,
//!     arena: &'d A,
//!     link: &'d Link,
//!     slots: &'q mut [AdminSlot],
//!     mut sleep: impl FnMut(Instant) -> Instant,
//! ) -> Option<Ready<'d, 'q, R, A>> {
//!     let mut now = Instant::ZERO;
//!     // SAFETY: nothing else drives this controller, `arena` serves it alone, and both outlive it.
//!     let mut disabling = unsafe { attach(registers, arena, link) }.ok()?;
//!     loop {
//!         match disabling.poll(now).ok()? {
//!             Step::Done => break,
//!             Step::Wait(deadline) => now = sleep(deadline),
//!             Step::Again => {}
//!         }
//!     }
//!     let mut enabling = disabling.finish().ok()?.enable(&EnableOptions::default(), slots).ok()?;
//!     loop {
//!         match enabling.poll(now).ok()? {
//!             Step::Done => break enabling.finish().ok(),
//!             Step::Wait(deadline) => now = sleep(deadline),
//!             Step::Again => {}
//!         }
//!     }
//! }
//! ```
//!
//! [`io::CreateIoQueuePair`] over the admin queue of the [`Ready`](controller::Ready) controller makes queue pairs.
//! [`recovery::Supervisor`] does all of it, and brings a controller that fails back.
//!
//! # Migrating
//!
//! A host brings up the managing controllers of both subsystems, implements
//! [`DataMover`](migration::DataMover) and [`Platform`](migration::Platform), and polls a
//! [`Migrator`](migration::Migrator) until it is done:
//!
//! ```
//! use nvme_core::controller::Ready;
//! use nvme_core::dirty::{DirtyMap, DirtySet, Granularity};
//! use nvme_core::dma::DmaArena;
//! use nvme_core::migration::{
//!     DataMover, DestinationOptions, MigrationOptions, Migrator, Outcome, Platform, Ports, Quirks,
//!     Round, Timeouts,
//! };
//! use nvme_core::register::RegisterIo;
//! use nvme_core::time::{Instant, Step};
//! use nvme_core::wire::{ControllerId, NamespaceId};
//!
//! /// Moves the controller `guest` with its namespace 1 of `blocks` blocks; `true` if it runs at the destination.
//! fn migrate<R: RegisterIo, A: DmaArena, V: DataMover, P: Platform>(
//!     (source, destination): (&mut Ready<'_, '_, R, A>, &mut Ready<'_, '_, R, A>),
//!     (mover, platform): (&mut V, &mut P),
//!     guest: ControllerId,
//!     blocks: u64,
//!     mut wait_until: impl FnMut(Instant) -> Instant,
//! ) -> bool {
//!     // All memory is lent: a bit for each eight blocks, a place for each round, room for the controller state.
//!     let mut words = [0; 1024];
//!     let mut rounds = [Round::default(); 32];
//!     let mut image = [0; 4096];
//!     let granularity = Granularity::new(8).unwrap();
//!     let mut maps = [DirtyMap::new(NamespaceId::new(1), blocks, granularity, &mut words).unwrap()];
//!     let dirty = DirtySet::new(&mut maps).unwrap();
//!
//!     let mut migrator = Migrator::new(
//!         MigrationOptions::new(guest),
//!         DestinationOptions {
//!             controller: guest,
//!             limits: None,
//!             quirks: Quirks::empty(),
//!             timeouts: Timeouts::default(),
//!         },
//!         dirty,
//!         &mut rounds,
//!         &mut image,
//!     );
//!     let mut now = Instant::ZERO;
//!     loop {
//!         // Takes completions. A controller that has failed loses its commands, from which the migrator learns of it.
//!         let _ = source.poll(now);
//!         let _ = destination.poll(now);
//!         let ports = Ports { source: source.admin(), destination: destination.admin() };
//!         match migrator.poll(now, ports, mover, platform) {
//!             Step::Done => break matches!(migrator.outcome(), Some(Outcome::Completed { .. })),
//!             // Comes back at the time told, or earlier, as at an interrupt of either controller.
//!             Step::Wait(deadline) => now = wait_until(deadline),
//!             Step::Again => now = wait_until(now),
//!         }
//!     }
//! }
//! ```
//!
//! What the log of changes does can be seen without a device: entries become a dirty map, and the map gives back runs
//! of blocks to copy.
//!
//! ```
//! use nvme_core::dirty::{BlockRun, DirtyMap, Granularity};
//! use nvme_core::wire::lba_migration::{Change, EntrySequence, LbaMigrationEntry};
//! use nvme_core::wire::{Lba, NamespaceId};
//!
//! // An entry as a controller writes it: eight blocks (zero-based 7) of namespace 1 from block 100h on, phase tag 1.
//! let mut bytes = [0; 32];
//! bytes[0] = 1;
//! bytes[4] = 7;
//! bytes[9] = 1;
//! bytes[31] = 1;
//! let entry = LbaMigrationEntry::parse_bytes(&bytes)?;
//! assert_eq!(entry.sequence, EntrySequence::Ordinary);
//! let Change::Range { namespace, start, blocks, .. } = entry.change else { panic!("a range") };
//!
//! let mut words = [0; 128];
//! let mut map = DirtyMap::new(namespace, 8192, Granularity::BLOCK, &mut words)?;
//! map.mark(start, blocks)?;
//! map.mark(Lba::new(0x108), 1)?;
//! assert_eq!(map.take(u64::MAX), Some(BlockRun { start: Lba::new(0x100), blocks: 9 }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Data flow
//!
//! Everything flows one way: registers and rings → typed entries → dirty map → migration steps → host.
//!
//! ```text
//!  host:  RegisterIo, DmaArena                    DataMover, Platform
//!             │                                          ▲
//!  register, mmio, dma, prp                              │ extents, hand-over
//!             │                                          │
//!  ring ── queue ── controller, admin, io ── cdq ── dirty ── migration
//!             │               └─ recovery     │                  │
//!             └────────────── wire: bytes ↔ values ──────────────┘
//! ```
//!
//! | To add or change | go to |
//! |---|---|
//! | a command, structure, feature, log page, status | [`wire`]: one module for each figure's subject, nothing else knows bytes; what a controller answers is in `nvme-controller`, `admin` and `nvm` |
//! | an entry type of a Controller Data Queue | [`wire`], beside [`wire::lba_migration`]; [`cdq::LogEvent`] |
//! | what is done about time-outs, failures, resets and removal, in which order | [`recovery`] |
//! | a host on another system | a crate beside `host-linux` that implements [`RegisterIo`](register::RegisterIo) and [`DmaArena`](dma::DmaArena) |
//! | how registers are reached | [`register`] (the trait), [`mmio`] (memory mapping) |
//! | how memory is lent, who owns it, when it returns | [`dma`], [`prp`] |
//! | ring arithmetic and phase tags | [`ring`]: pure functions, shared with the device's side |
//! | command tracking, submission and completion rings | [`queue`] |
//! | bring-up, shutdown, faults, removal | [`controller`] |
//! | the shared admin queue, events, time-outs of commands | [`admin`] |
//! | I/O queue pairs | [`io`] |
//! | reading a Controller Data Queue, its head, its memory | [`cdq`] |
//! | which blocks have changed | [`dirty`] |
//! | steps, rounds, roll-back of a migration | [`migration`]: the table of steps is [`migration::MigrationStep`] |
//! | what a step machine tells its caller | [`time`] |
//!
//! A module uses those before it and none after it: [`wire`] knows no queue, [`queue`] no Controller Data Queue, and
//! none of them a host.
//!
//! # Three questions about Controller Data Queues
//!
//! **A Controller Data Queue has no submission queue. What must a queue implementation change?** A queue is not a pair.
//! Ring consumption (head, lap, phase tag) is [`ring::PhaseConsumer`]; command tracking (identifiers, time-outs,
//! buffers) is [`queue::Tracker`]. The completion ring ([`queue::CompletionRing`]) and the Controller Data Queue
//! ([`cdq::CdqReader`]) are two users of the one consumer. They differ in the type of their entries, in how the head is
//! published (a doorbell; a Set Features command chosen by [`cdq::HeadPolicy`]) and in how they wake (a vector; a
//! one-shot event). Overflow is a value, [`cdq::LogEvent::Overflowed`], not an error.
//!
//! **Should its memory be segregated?** Yes. It has a pool of its own ([`dma::Pool::ControllerData`]) and lives as long
//! as the migration, not the controller ([`cdq::CdqMemory`]). It returns only with proof that the device let go
//! ([`dma::LetGo`]): the deletion or the suspension that deletes it succeeded, or the controller is
//! [`Quiesced`](controller::Quiesced). Otherwise it is [`cdq::Quarantined`], a value nobody can lose by accident.
//!
//! **What does live migration require of it?** That the log is complete where it says so. The reader gives decoded
//! events of one tracked controller and never raw memory ([`cdq::LogEvent`]); the map of changes can turn into
//! "everything" ([`dirty::DirtySet::mark_all`]); the migration reads up to the entry that closes the log before the
//! last copy ([`migration::MigrationStep::Drain`]); and manager and tracked controller are different types
//! ([`wire::ManagerId`], [`wire::TrackedId`]), because one is commanded and the other only named.
//!
//! # Safety
//!
//! Memory that a device can write is never referenced, only copied with atomic accesses ([`dma::DmaRegion`]). The duty
//! to vouch for a device is taken once, in [`controller::attach`], or by whoever implements [`admin::AdminPort`] over
//! something else than this crate's admin queue. Whether a command that failed had an effect all the same is decided in
//! one place, [`wire::Status::effect`]. Bytes from a device are hostile: what they cannot be is a value
//! ([`controller::Fault`]), after which nothing the device says is believed.
#![no_std]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

#[cfg(test)]
extern crate std;

pub mod admin;
pub mod cdq;
pub mod controller;
pub mod dirty;
pub mod dma;
#[cfg(test)]
pub(crate) mod fake;
pub mod io;
pub mod migration;
pub mod mmio;
pub mod prp;
pub mod queue;
pub mod recovery;
pub mod register;
pub mod ring;
#[cfg(test)]
pub(crate) mod testing;
pub mod time;
pub mod wire;
