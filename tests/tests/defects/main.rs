// SPDX-License-Identifier: MIT OR Apache-2.0
//! Defects found in other implementations, each a test that would fail if this one had it.
//!
//! The tests run the driver and the reader of this project against its controllers, or against a device made for the
//! purpose. Each was seen failing with the defect put in by hand.

mod controller;
mod driver;
mod reader;

/// Every defect, in the order of the list that they were collected in: readers and memory of Controller Data Queues, head
/// updates, memory, overflow, controller models, driver cores.
const DEFECTS: [&str; 25] = [
    "short_count_when_a_read_wraps",
    "phase_compare_that_works_only_for_mask_one",
    "no_read_barrier_between_phase_and_payload",
    "unswapped_fields",
    "size_overflow_of_32_bits",
    "unknown_queue_in_an_event_dereferenced",
    "event_against_delete_race",
    "prp_list_pages_not_chained",
    "chunk_table_indexed_wrongly_when_contiguous",
    "acknowledged_head_advances_on_failure",
    "trigger_requested_while_an_update_is_in_flight_never_sent",
    "trigger_already_behind_the_tail_never_fires",
    "memory_freed_although_delete_failed",
    "dead_ring_left_after_a_controller_reset",
    "entries_hidden_after_full",
    "phase_not_rolled_back_when_the_write_fails",
    "ranges_dropped_when_not_adjacent",
    "copy_not_logged",
    "logging_resumes_after_full",
    "deallocate_length_off_by_one",
    "identifier_reused_while_outstanding",
    "waiting_for_ready_without_a_limit",
    "panic_on_an_unknown_identifier_or_head",
    "prp_list_runs_into_the_next_commands_page",
    "pmrmsc_read_as_one_misaligned_register",
];

#[test]
fn every_defect_has_its_test() {
    let source =
        [include_str!("controller.rs"), include_str!("driver.rs"), include_str!("reader.rs")].concat();
    for defect in DEFECTS {
        let test = format!("#[test]\nfn defect_{defect}() {{");
        assert_eq!(source.matches(&test).count(), 1, "{defect}");
    }
    assert_eq!(source.matches("fn defect_").count(), DEFECTS.len(), "a test that the list does not name");
}
