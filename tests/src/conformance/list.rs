// SPDX-License-Identifier: MIT OR Apache-2.0
//! The list.

use super::Need::{FunctionLevelReset, Interrupts, OddAccesses, SharedMemory, Topology};
use super::{Case, Family, cases, driver};

/// Cases of both families: for raw ones what they need, module and functions, for those of the driver module and
/// functions.
macro_rules! cases {
    (
        raw { $($needs:tt $module:ident: $($function:ident),+;)+ }
        driver { $($driver:ident: $($drives:ident),+;)+ }
    ) => {
        &[
            $($(Case {
                name: concat!(stringify!($module), "::", stringify!($function)),
                family: Family::Raw,
                needs: &$needs,
                run: cases::$module::$function,
            },)+)+
            $($(Case {
                name: concat!("driver::", stringify!($driver), "::", stringify!($drives)),
                family: Family::Driver,
                needs: &[],
                run: driver::$driver::$drives,
            },)+)+
        ]
    };
}

/// Every case.
pub const CASES: &[Case] = cases! {
    raw {
        [Topology] registers:
            capabilities_say_what_was_configured,
            ready_within_the_time_that_is_promised,
            bring_up_takes_what_is_legal_and_fails_fatally_on_the_rest,
            queue_registers_change_only_while_disabled,
            page_size_command_set_and_arbitration_are_fixed_while_enabled,
            read_only_and_reserved_properties_ignore_writes,
            bad_doorbell_writes_raise_error_events_and_break_only_their_queue,
            a_tail_that_overtakes_the_head_is_an_invalid_value,
            doorbells_do_nothing_while_disabled,
            a_disabled_controller_that_was_shut_down_is_enabled_with_one_write,
            entries_of_every_lap_carry_the_right_phase_and_head,
            a_full_completion_queue_stalls_its_submission_queues_and_no_others,
            invalid_opcodes_are_answered;
        [Topology, Interrupts] registers:
            interrupts_come_for_their_vector_unless_masked_or_disabled;
        [Topology] abort_and_events:
            abort_of_what_cannot_be_aborted_succeeds_and_says_so,
            abort_itself_is_not_aborted,
            an_event_request_is_aborted_before_the_abort_completes,
            event_requests_up_to_the_limit,
            event_requests_hold_no_completion_slot,
            an_event_waits_for_a_request_and_is_reported_once,
            a_reported_type_is_masked_until_its_page_is_read,
            requests_are_used_in_their_order_and_need_distinct_identifiers;
        [Topology] queue_commands:
            every_check_of_create_completion_queue_has_its_status,
            every_check_of_create_submission_queue_has_its_status,
            every_check_of_deletion_has_its_status,
            limits_from_registers_and_features_apply,
            entry_sizes_must_be_set_before_queues_are_created,
            queues_of_every_size_and_memory_carry_commands,
            the_largest_queues_wrap;
        [Topology] features:
            every_check_of_features_has_its_status,
            a_namespace_on_a_feature_of_the_controller_is_refused,
            what_is_set_is_read_back,
            the_number_of_queues_granted_is_what_exists_at_most,
            capabilities_tell_what_can_be_set,
            host_behavior_support_is_512_bytes,
            features_belong_to_their_controller;
        [Topology] identify_and_logs:
            every_check_of_identify_has_its_status,
            a_command_set_that_is_not_there_is_refused,
            identify_controller_tells_the_limits_of_live_migration,
            identify_controller_tells_what_the_controller_is,
            namespaces_are_described,
            active_namespaces_above_the_given_one,
            command_sets_are_the_nvm_command_set,
            every_check_of_get_log_page_has_its_status,
            the_error_log_names_the_newest_error_first,
            the_health_log_counts,
            the_commands_log_lists_what_is_answered,
            prp2_means_what_the_length_of_the_command_makes_of_it,
            what_is_wrong_in_the_data_of_a_command_has_no_location_in_the_command;
        [Topology, FunctionLevelReset] resets:
            a_reset_returns_features_to_their_defaults,
            a_controller_reset_alone_keeps_the_admin_queue_registers,
            a_reset_of_one_controller_leaves_the_others_alone,
            r8_effects_of_resets_on_a_migration,
            r16_after_a_reset_of_the_owner_the_queue_memory_is_the_hosts;
        [Topology] resets:
            a_subsystem_reset_resets_every_controller_and_says_so,
            r8_a_reset_drops_a_state_that_is_under_way,
            r16_a_data_queue_survives_a_shutdown_of_the_target;
        [Topology] suspend_resume:
            every_check_of_suspend_has_its_status,
            every_check_of_resume_has_its_status,
            a_notification_changes_nothing,
            r9_event_requests_stay_outstanding_over_a_suspension,
            doorbells_are_latched_while_suspended,
            a_full_completion_queue_delays_the_suspend_until_its_head_moves,
            properties_can_be_read_while_suspended,
            only_the_target_is_suspended,
            what_ends_a_suspension,
            r8_a_reset_of_the_target_ends_a_suspend_that_waits,
            r8_a_reset_of_the_manager_ends_a_suspend_that_waits,
            a_suspended_controller_can_be_suspended_and_resumed_many_times;
        [Topology] logging_life_cycle:
            every_check_of_log_user_data_changes_has_its_status,
            every_trigger_posts_its_entry,
            a_log_stopped_during_the_suspension_does_not_start_by_itself,
            a_reset_of_the_target_keeps_queue_and_log,
            a_reset_of_the_suspended_target_goes_on_logging_with_a_first_entry,
            two_targets_are_logged_apart,
            r9_a_late_marker_is_posted_before_a_quick_resume,
            r9_a_late_marker_is_posted_before_a_reset_that_comes_between;
        [Topology] cdq_trigger_and_events:
            the_trigger_fires_when_its_slot_is_filled,
            a_trigger_behind_the_tail_waits_for_the_next_lap,
            the_trigger_fires_once,
            disarming_and_deleting_prevent_the_event,
            what_becomes_of_an_event_nobody_asked_for_yet,
            the_full_event_is_always_enabled,
            both_events_of_a_queue_and_events_of_two_queues_are_all_reported,
            events_go_to_the_owner_alone,
            an_event_that_waits_is_not_given_to_the_next_controller_that_asks,
            one_shot_events_are_not_masked,
            a_full_admin_completion_queue_delays_the_event_and_loses_none,
            the_phase_tag_is_one_in_the_first_lap_and_inverts_at_every_wrap;
        [Topology] full_queue:
            the_entry_in_the_last_free_slot_says_so_and_keeps_its_range,
            a_marker_in_the_last_free_slot_becomes_the_overflow_marker,
            what_happens_after_the_queue_was_full,
            a_command_of_many_ranges_fills_the_queue_part_way,
            full_queues_keep_their_phase_in_order_over_many_laps;
        [Topology] cdq_set_checks:
            every_check_of_set_has_its_status,
            a_namespace_with_the_feature_is_refused,
            every_head_of_every_small_queue_is_judged_by_its_distance,
            a_refused_set_changes_nothing,
            every_check_of_get_has_its_status,
            get_returns_512_bytes_and_the_state_of_the_trigger,
            the_feature_can_be_changed_but_not_saved;
        [Topology] register_access:
            every_property_reads_alike_in_every_width,
            pairs_of_properties_can_be_reached_by_one_64_bit_access,
            reserved_offsets_read_zero_and_ignore_writes,
            properties_of_features_that_are_absent_are_inert,
            accesses_beyond_the_last_doorbell_are_harmless,
            doorbells_read_without_effect;
        [Topology, OddAccesses] register_access:
            narrow_and_misaligned_accesses_are_refused_or_harmless;
        [Topology] bring_up:
            a_reset_and_an_enable_work_from_every_state,
            writing_what_cc_holds_already_changes_nothing;
        [Topology, FunctionLevelReset] bring_up:
            a_function_level_reset_and_an_enable_work_from_every_state;
        [Topology, Interrupts] bring_up:
            a_fatal_controller_does_nothing_more;
        [Topology] rings:
            batches_of_every_size_wrap_at_every_index,
            one_doorbell_for_a_full_submission_queue,
            a_full_completion_queue_loses_nothing_and_nothing_is_fetched_without_a_slot,
            two_submission_queues_share_a_full_completion_queue,
            a_command_identifier_is_free_once_its_completion_is_there,
            an_identifier_of_an_outstanding_command_is_refused,
            a_fused_pair_may_lie_across_the_end_of_its_ring,
            a_fused_pair_ends_also_where_only_one_completion_fits,
            halves_of_fused_pairs_do_not_find_each_other_over_a_doorbell;
        [Topology] blocks:
            data_at_every_offset_around_page_ends,
            lists_of_one_page_and_of_several,
            a_list_that_breaks_a_rule_is_refused_and_changes_nothing,
            ranges_that_are_not_adjacent_are_all_deallocated_and_all_logged,
            copies_put_blocks_in_order_and_are_logged,
            every_controller_sees_the_same_blocks;
        [Topology] admin_commands:
            an_abort_in_the_queue_of_its_command_ends_both_once,
            an_abort_of_an_io_command_ends_it_once,
            aborting_half_of_a_fused_pair_ends_both_and_writes_nothing,
            aborts_up_to_the_limit_are_all_answered,
            every_feature_that_can_be_changed_goes_there_and_back,
            the_number_of_queues_goes_there_and_back_once;
        [Topology, FunctionLevelReset] under_way:
            a_reset_with_commands_under_way_drops_them_and_writes_nothing_later,
            old_queues_are_gone_after_a_reset,
            many_resets_in_a_row;
        [Topology] under_way:
            a_shutdown_with_commands_under_way_completes_what_it_took,
            a_shutdown_ends_in_a_reset_whenever_it_comes,
            an_abrupt_shutdown_may_follow_a_normal_one,
            a_shutdown_of_a_suspended_controller_and_of_its_manager;
        [Topology, FunctionLevelReset] migration_resets:
            a_reset_of_the_manager_in_each_state_ends_in_running,
            a_reset_of_the_tracked_controller_in_each_state_keeps_the_managers_part;
        [Topology] migration_resets:
            a_subsystem_reset_in_each_state_leaves_nothing;
        [Topology] suspend_in_flight:
            suspend_with_io_in_flight_from_depth_one_to_full_a_thousand_times,
            suspend_and_resume_in_one_batch_with_io_in_flight,
            wrong_doorbells_during_a_suspension_are_told_after_it,
            a_suspend_with_full_completion_queues_ends_and_loses_nothing;
        [Topology, Interrupts] suspend_in_flight:
            unmasking_during_a_suspension_interrupts_after_it;
        [Topology, SharedMemory] suspend_in_flight:
            a_guest_goes_on_elsewhere_with_what_it_had_in_flight;
        [Topology] data_queues:
            two_queues_on_two_tracked_controllers_keep_apart,
            a_queue_deleted_while_logging_lets_go_of_its_memory,
            triggers_behind_at_and_ahead_of_the_tail,
            a_trigger_asked_for_while_a_head_update_is_in_flight_holds,
            an_update_behind_a_trigger_disarms_it,
            a_head_update_of_a_queue_deleted_meanwhile_is_refused,
            an_overflow_beside_an_armed_trigger_reports_both;
    }
    driver {
        bring_up:
            every_combination_of_en_rdy_and_cfs_ends_ready,
            a_controller_is_taken_over_as_it_was_left,
            it_comes_up_again_and_again,
            identify_agrees_with_the_registers,
            logs_are_as_long_as_they_say,
            features_go_there_and_back,
            events_are_asked_for_within_the_limit_and_told,
            an_abort_of_nothing_is_answered;
        commands:
            blocks_hold_what_was_written_last,
            what_lies_outside_is_refused_and_harms_nothing,
            compare_tells_equal_from_different,
            write_zeroes_clears_its_range_alone,
            ranges_that_are_not_adjacent_are_deallocated_and_their_neighbours_are_not,
            copies_put_blocks_in_order;
        data_pointers:
            what_is_built_leads_to_the_data_and_to_nothing_else,
            data_of_every_shape_arrives_byte_for_byte;
        queues:
            batches_of_every_size_wrap_at_every_index,
            a_full_submission_queue_says_busy_and_loses_nothing,
            a_completion_queue_smaller_than_what_is_outstanding_loses_nothing,
            the_largest_queues_wrap,
            identifiers_of_outstanding_commands_differ,
            several_pairs_work_side_by_side,
            queues_are_created_and_deleted_again_and_again;
        resets:
            a_reset_with_io_in_flight_ends_every_command_once,
            a_reset_by_somebody_else_during_a_reset_is_survived,
            a_shutdown_keeps_what_was_completed;
    }
};
