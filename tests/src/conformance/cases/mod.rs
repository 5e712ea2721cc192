// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of raw hosts, by subject.

pub(crate) mod abort_and_events;
pub(crate) mod admin_commands;
pub(crate) mod blocks;
pub(crate) mod bring_up;
pub(crate) mod cdq_set_checks;
pub(crate) mod cdq_trigger_and_events;
pub(crate) mod data_queues;
pub(crate) mod features;
pub(crate) mod full_queue;
pub(crate) mod identify_and_logs;
pub(crate) mod logging_life_cycle;
pub(crate) mod migration_resets;
pub(crate) mod queue_commands;
pub(crate) mod register_access;
pub(crate) mod registers;
pub(crate) mod resets;
pub(crate) mod rings;
pub(crate) mod suspend_in_flight;
pub(crate) mod suspend_resume;
pub(crate) mod under_way;
