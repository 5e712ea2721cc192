// SPDX-License-Identifier: MIT OR Apache-2.0
//! What controllers do wrong, on request: fault rules, as plain data and as text.
//!
//! A [`FaultRule`] says on which occasion which [`FaultAction`] happens. Rules lie in [`FaultSlot`]s, which count, and
//! a [`FaultTable`] of them is given to a subsystem with [`Subsystem::set_faults`](crate::Subsystem::set_faults).
//! Everything is deterministic: the same rules and the same calls give the same faults.
//!
//! ```
//! use nvme_controller::fault::{FaultAction, FaultRule, FaultSlot, FaultTable, HeldSlot, QueueMatch};
//!
//! // The third Read of any I/O queue is never completed.
//! let rule = FaultRule::parse("drop,queue=io,opcode=02,nth=3")?;
//! assert_eq!(rule, FaultRule::new(FaultAction::Drop).on(QueueMatch::Io).opcode(0x02).nth(3));
//! let (rules, mut held) = ([FaultSlot::new(rule)], [HeldSlot::new(); 4]);
//! let table = FaultTable::new(&rules, &mut held);
//! // subsystem.set_faults(table);
//! assert_eq!(table.fired(), 0);
//! # Ok::<(), nvme_controller::fault::FaultRuleError>(())
//! ```
//!
//! # Rules as text
//!
//! `ACTION[=VALUE][,CONDITION=VALUE]...`, spaces around commas allowed. [`FaultKind::ALL`] lists the actions with the
//! form of their value; these are the conditions, each given once at most:
//!
//! | Condition | Value | The rule acts |
//! |---|---|---|
//! | `controller` | number, or `0x` and hexadecimal digits | only at this controller |
//! | `queue` | `any`, `admin`, `io` or a number | only on commands of these submission queues |
//! | `opcode` | two hexadecimal digits | only on commands with this opcode |
//! | `dw0` to `dw15` | `VALUE` or `VALUE/MASK`, hexadecimal | only on commands with this dword, as far as the mask reaches; four at most |
//! | `nth` | number from 1 | only on this occurrence; with `every` from it on |
//! | `every` | number from 1 | only on each occurrence at this distance |
//! | `times` | number from 1 | so often at most |
//! | `ppm` | 0 to 1000000 | with this probability, in parts per million |
//! | `seed` | number | deciding probability and data by this number |
//!
//! Values in brackets may be left out: `XOR`, hexadecimal, is 8000 then, `ESA` is 4, and an entry written after the
//! deletion of its queue comes one poll later. `SCT/SC` is hexadecimal.
//!
//! # Commands that are held back
//!
//! A command that a rule delays is executed and keeps its completion slot and its place among the commands under way.
//! So Suspend and a shutdown wait for it, as the specification demands of commands that were fetched (NVMe Base 2.1
//! §5.1.17.1.1); a delay that is longer than any time-out makes them wait as long. Abort ends it, the deletion of its
//! queue ends it, a reset forgets it. A command that is dropped is forgotten at once: nothing waits for it, and its
//! identifier may be used again.
//!
//! # Silent corruption
//!
//! A bit inverted on its way to the host shows in what the host reads. A bit inverted on its way from the host is
//! stored, or taken as a parameter: the command succeeds, and only a comparison of the content finds it.

mod action;
mod data_queue;
mod inject;
mod random;
mod rule;
mod table;
mod text;

pub use action::{Delay, FaultAction, FaultKind, Occasion, ReservedSequence};
pub(crate) use inject::Flip;
pub use rule::{DwordMatch, FaultRule, MAX_DWORDS, Probability, QueueMatch};
pub use table::{FaultSlot, FaultTable, HeldSlot};
pub use text::{FaultRuleError, FaultRuleProblem};
