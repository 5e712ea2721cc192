// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of raw hosts, by subject.

pub(crate) mod abort_and_events;
pub(crate) mod cdq_set_checks;
pub(crate) mod cdq_trigger_and_events;
pub(crate) mod features;
pub(crate) mod full_queue;
pub(crate) mod identify_and_logs;
pub(crate) mod logging_life_cycle;
pub(crate) mod queue_commands;
pub(crate) mod registers;
pub(crate) mod resets;
pub(crate) mod suspend_resume;
