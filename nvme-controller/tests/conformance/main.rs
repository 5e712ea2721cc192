// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the specification demands of a subsystem, row by row: registers, queues, Controller Data Queues, live migration
//! and the commands around them, judged from the host's side of the registers alone.

mod abort_and_events;
mod cdq_create_checks;
mod cdq_trigger_and_events;
mod configuration;
mod failure_and_shutdown;
mod fault_rules;
mod faults;
mod features;
mod get_controller_state;
mod harness;
mod hostile_host;
mod logging_life_cycle;
mod nvm_commands;
mod primary_resets;
mod queue_commands;
mod quirks;
mod registers;
mod resets;
mod set_controller_state;
mod suspend_resume;
mod track_memory;
mod vendor_state;
mod virtualization;
mod what_is_logged;
mod work_limits;
