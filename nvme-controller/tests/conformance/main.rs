// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the specification demands of a subsystem, row by row: registers, queues, Controller Data Queues, live migration
//! and the commands around them, judged from the host's side of the registers alone.

mod cdq_create_checks;
mod cdq_set_checks;
mod cdq_trigger_and_events;
mod full_queue;
mod get_controller_state;
mod harness;
mod logging_life_cycle;
mod set_controller_state;
mod suspend_resume;
mod what_is_logged;
