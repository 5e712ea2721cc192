// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every NVMe subsystem must do, as one list of named cases for every back end.
//!
//! [`CASES`] is the list, [`run`] runs a case, a [`Backend`] is where. A back end makes fresh subsystems and gives
//! registers, memory, interrupts and time to work; a case knows nothing else of it. What a back end cannot give it says
//! by name ([`Need`], or an error of [`Backend::open`]), and the case is then [`Verdict::NotApplicable`] with that
//! reason. Every case applies to [`Embedded`] and to [`VfioUser`](vfio_user::VfioUser), which is the same controller in
//! another process. Those of the driver run on the controllers of other people, too: [`Vfio`](vfio::Vfio).
//!
//! | Family | Who acts | Runs on |
//! |---|---|---|
//! | [`Family::Raw`] | hosts that write entries word by word and judge completions and memory byte by byte | subsystems of a described topology, nearly always with managing controllers |
//! | [`Family::Driver`] | the driver of `nvme-core` | any controller that has registers and memory for DMA |
//!
//! # Running it on a back end of your own
//!
//! 1. Implement [`Backend`] (what it lacks, and how to open a subsystem), [`Device`] (registers, memory, arena, work,
//!    interrupts, function level reset) and [`backend::BusMemory`]. [`Embedded`] is the example.
//! 2. Make a test target with `harness = false` that calls [`runner::run_list`] and exits with what it says, as
//!    `tests/conformance_embedded.rs` does. [`runner::Applicability`] decides whether cases that do not apply are shown
//!    as ignored, with the reason, or fail.
//! 3. `cargo test --test THAT_TARGET -- NAME` runs the cases whose names contain NAME; `-- --list` lists them.
//!
//! A back end with one controller lacks [`Need::Topology`] and nearly all raw cases; those of the driver still run. Cases
//! write blocks: give it a namespace that nobody needs.
//!
//! # What is here and what is in the controller's own suite
//!
//! Here is what a foreign subsystem can be asked through its registers and its memory. The suite of `nvme-controller`
//! keeps what only that crate can be asked: memory and media that fail at a chosen access, what is done between two
//! halves of a poll, the order of two writes, quirks, time, the vendor's state format, and the tables of statuses of
//! commands that exist in no other controller's full width (Create Controller Data Queue, controller states, tracking
//! of memory). No case is in both. Both use the same raw host: the entries, queues and images are one text.

pub mod backend;
mod cases;
mod driver;
mod embedded;
mod list;
pub mod runner;
pub mod vfio;
pub mod vfio_user;
mod world;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

pub use backend::{Backend, Device, Need};
pub use embedded::{Embedded, EmbeddedDevice, Media};
pub use list::CASES;
#[cfg(test)]
pub(crate) use tests::Recorded;

/// Who acts in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Raw hosts.
    Raw,
    /// The driver of the core.
    Driver,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Driver => "driver",
        })
    }
}

/// One case of the list.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name: subject and what must hold.
    pub name: &'static str,
    /// Who acts in it.
    pub family: Family,
    /// What it demands of a back end.
    pub needs: &'static [Need],
    run: fn(&dyn Backend),
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it holds.
    Passed,
    /// The back end, or the controller behind it, lacks what the case is about.
    NotApplicable(String),
    /// Something does not hold.
    Failed(String),
}

/// Why a case does not apply, on its way out of the case.
struct NotApplicable(String);

/// Ends a case that does not apply.
fn not_applicable(reason: String) -> ! {
    resume_unwind(Box::new(NotApplicable(reason)))
}

/// Runs `case` on `backend`.
#[must_use]
pub fn run(case: &Case, backend: &dyn Backend) -> Verdict {
    for need in case.needs {
        if let Some(reason) = backend.lacks(*need) {
            return Verdict::NotApplicable(format!("not to be had: {need}: {reason}"));
        }
    }
    match catch_unwind(AssertUnwindSafe(|| (case.run)(backend))) {
        Ok(()) => Verdict::Passed,
        Err(payload) => match payload.downcast::<NotApplicable>() {
            Ok(reason) => Verdict::NotApplicable(reason.0),
            Err(payload) => Verdict::Failed(message(&*payload)),
        },
    }
}

/// Runs a part of a case, so that others run whatever becomes of it.
fn attempt<T>(part: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(part)).map_err(|payload| {
        if payload.is::<NotApplicable>() {
            resume_unwind(payload);
        }
        message(&*payload)
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests;
