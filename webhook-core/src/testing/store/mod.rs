//! The conformance suite for stores: see [`store_conformance`](crate::store_conformance).
//!
//! A case is an async function named after the promise it checks. Time is a parameter of every call, so no case waits.

#![expect(missing_docs, reason = "a case's name is its documentation")]

mod capture;
mod capture_reading;
mod claim;
mod course;
mod delivery;
mod event;
mod fan_out;
mod fan_out_orders;
mod history;
mod keys;
mod maintenance;
mod model;
mod orders;
mod path;
mod receipt;
mod scene;
mod subscription;
mod wrapper;

#[doc(hidden)]
pub use course::take_random_courses;
#[doc(hidden)]
pub use scene::Scene;

/// Expands to one `#[test]` for each promise of [`Store`](crate::Store).
///
/// The argument is a path to an async function, or a closure that gives a future, whose output is
/// `(Arc<dyn Store>, guard)`: a fresh, empty store, and what keeps its resources alive until the case ends.
#[macro_export]
macro_rules! store_conformance {
    ($factory:expr) => {
        $crate::store_conformance! { @cases @test ($factory) }
    };
    // The one list of the cases.
    (@cases $($then:tt)*) => {
        $crate::store_conformance! { $($then)*
            subscription: [
                an_inserted_subscription_takes_the_next_generation_as_its_version
                a_key_used_again_creates_nothing_and_gives_the_first_answer
                a_key_counts_for_its_tenant_and_until_it_expires
                an_update_replaces_settings_secrets_and_state_and_takes_the_next_generation
                an_update_of_another_version_does_nothing
                a_changed_url_or_state_ends_a_pause_and_another_change_keeps_it
                a_deleted_or_foreign_subscription_cannot_be_updated
                a_deletion_takes_the_next_generation_and_shows_in_the_changes
                a_deleted_subscription_is_found_and_claimed_no_more
                another_tenants_subscription_cannot_be_deleted
                foreign_and_unknown_subscriptions_are_left_out
                a_subscription_is_found_by_its_id_alone_also_when_disabled
                pages_of_subscriptions_show_each_once
                changes_in_small_steps_give_the_same_as_all_at_once
                disabled_subscriptions_come_without_patterns_and_again_when_enabled
                changes_after_what_never_was_tell_the_generation_that_is
                generations_come_in_order_and_begin_at_zero
            ]
            event: [
                an_accepted_event_is_there_with_all_its_deliveries
                an_event_without_deliveries_is_accepted
                a_stale_unit_leaves_nothing_behind_and_the_others_are_accepted
                payload_bytes_come_back_as_they_were_given
                types_metadata_and_directness_come_back_as_they_were_given
                deliveries_are_due_at_the_events_time_unless_they_are_leased_from_the_start
                events_of_other_tenants_are_unknown
                pages_of_events_show_each_once
                the_conditions_of_an_event_filter_all_hold
            ]
            keys: [
                a_key_used_again_gives_the_first_receipt_within_a_call_and_in_a_later_one
                a_key_counts_for_its_tenant_scope_and_time
                the_key_of_a_call_gives_all_its_receipts_again_whatever_changed_meanwhile
                a_stale_unit_does_not_use_up_its_key
                of_64_concurrent_calls_with_one_key_exactly_one_creates
                no_accept_that_begins_after_a_change_goes_by_what_was_before
            ]
            claim: [
                only_pending_deliveries_that_are_due_are_leased
                deliveries_of_disabled_deleted_and_paused_subscriptions_wait
                a_lease_tells_the_worker_what_it_needs
                concurrent_claims_never_share_a_delivery
                claims_keep_to_room_and_limit
                a_lost_lease_counts_and_spends_no_attempt
                the_fifth_lost_lease_ends_the_delivery
                a_target_with_100_000_due_rows_does_not_starve_another
                the_cursor_reaches_every_one_of_500_targets
                targets_that_wait_for_later_do_not_hide_one_that_is_due
                a_target_that_alone_has_room_is_reached
                deliveries_of_one_target_come_oldest_due_first
                unknown_ids_and_ids_given_twice_do_no_harm
            ]
            delivery: [
                an_outcome_that_comes_after_another_claim_is_fenced
                an_outcome_recorded_twice_counts_once
                an_outcome_of_a_cancelled_or_pruned_delivery_is_fenced
                an_outcome_of_another_tenant_is_fenced
                an_outcome_on_a_lease_that_ended_counts_while_nobody_else_claimed
                a_failed_attempt_and_its_next_due_time_are_written_together
                the_attempt_count_becomes_the_attempts_number
                a_delivery_that_ends_is_no_longer_leased_and_has_its_time
                outcomes_of_one_call_are_answered_in_order
                gone_disables_the_subscription_and_counts_as_a_change
                the_later_pause_stands_and_resuming_ends_it_without_a_change
                a_released_delivery_is_due_again_and_has_spent_nothing
                a_release_without_the_current_lease_changes_nothing
            ]
            fan_out: [
                a_large_event_is_listed_completely_whatever_becomes_of_its_deliveries
                claims_of_any_size_give_each_delivery_of_a_large_event_once
                named_deliveries_of_a_large_event_are_leased_and_the_others_wait
                each_delivery_of_a_large_event_loses_its_own_lease
                deliveries_of_large_events_come_oldest_due_first_to_each_target
                a_large_event_accepted_again_changes_nothing
            ]
            fan_out_orders: [
                orders_about_one_delivery_of_a_large_event_leave_the_others_alone
                outcomes_of_a_large_event_count_one_by_one
                concurrent_outcomes_of_a_large_event_count_once_each
                outcomes_count_while_others_of_their_event_are_cancelled
                orders_find_their_delivery_while_claims_go_on
                deliveries_of_a_large_event_that_wait_are_not_added_again
                a_large_event_stays_while_one_of_its_deliveries_is_open
                a_deleted_subscription_takes_only_its_own_deliveries_of_large_events
                what_is_left_of_events_does_not_stand_before_whole_ones
            ]
            history: [
                deliveries_of_other_tenants_are_unknown
                a_pending_delivery_of_a_disabled_subscription_is_held
                pages_of_deliveries_show_each_once
                the_conditions_of_a_delivery_filter_all_hold
                attempts_come_back_as_they_were_recorded
                attempts_of_other_tenants_are_not_shown
                pages_of_attempts_show_each_once
                figures_count_what_happened_from_that_time_on
                percentiles_are_by_nearest_rank
                figures_leave_out_other_tenants
                activity_shows_the_newest_first_and_only_the_tenants
            ]
            orders: [
                a_retried_delivery_remembers_its_end_and_can_go_back_to_it
                a_pending_delivery_only_becomes_due_and_a_reopened_one_stays_so
                a_leased_delivery_is_not_retried
                a_delivery_whose_lease_ended_is_retried
                a_retry_ends_a_pause
                a_delivery_of_a_deleted_subscription_or_another_tenant_is_not_retried
                a_retried_delivery_has_lost_no_lease
                a_cancelled_delivery_is_over_and_its_lease_void
                a_delivery_that_ended_or_is_foreign_is_not_cancelled
                recoverable_events_come_oldest_first_with_their_deliveries
                direct_and_foreign_events_cannot_be_recovered_and_types_do_not_matter
                added_deliveries_are_due_now_and_added_once
                nothing_is_added_to_a_deleted_or_foreign_subscription_or_for_a_foreign_event
            ]
            maintenance: [
                a_store_that_works_answers_a_ping
                an_event_goes_when_its_last_delivery_ended_long_enough_ago
                an_event_without_deliveries_counts_from_when_it_was_accepted
                deliveries_and_attempts_go_with_their_event
                steps_of_pruning_look_at_every_event_once
                deliveries_of_deleted_subscriptions_are_cancelled_in_steps
                deliveries_of_many_deleted_subscriptions_are_cancelled
                the_backlog_counts_what_is_pending_and_what_is_due
            ]
            path: [
                a_path_comes_back_as_it_was_given
                a_path_id_is_taken_over_all_tenants_and_the_key_not_used_up
                a_key_used_again_for_a_path_gives_the_first_answer
                what_a_key_of_a_path_stands_for_is_told_and_nothing_is_created
                of_64_concurrent_calls_with_one_path_id_exactly_one_creates
                an_updated_path_has_the_next_version_and_what_was_given
                a_path_of_another_version_or_tenant_or_deleted_is_not_updated
                a_deleted_path_is_gone_with_its_requests_and_its_name_is_free
                an_expired_path_is_deleted_by_its_key_and_only_while_it_is_expired
                a_path_is_found_by_its_name_alone_also_when_it_has_expired
                paths_of_other_tenants_are_unknown
                pages_of_paths_show_each_once_but_not_the_expired
                methods_are_counted_of_what_a_path_holds
                of_methods_that_are_made_up_the_most_frequent_are_counted
            ]
            capture: [
                a_captured_request_comes_back_byte_for_byte
                a_path_tells_what_it_holds
                what_reaches_no_path_or_another_version_of_it_leaves_nothing_behind
                ids_grow_and_numbers_have_no_gap_whatever_ids_were_given
                whoever_follows_a_path_sees_all_of_concurrent_calls_once
                the_oldest_requests_go_beyond_a_quota_of_requests
                the_oldest_requests_go_beyond_a_quota_of_bytes_and_the_newest_stays
                a_lowered_quota_is_reached_in_steps
                requests_become_events_in_the_same_transaction
                an_event_names_its_request_by_the_id_that_is_stored
                nothing_is_forwarded_to_deleted_and_foreign_subscriptions
            ]
            capture_reading: [
                requests_of_other_paths_and_tenants_are_unknown
                pages_of_requests_show_each_once
                whoever_reads_on_gets_no_more_bytes_than_asked_for_and_always_one_request
                the_conditions_of_a_capture_filter_all_hold
                a_range_of_times_goes_by_arrival_and_not_by_ids
                a_filter_with_text_that_a_column_cannot_hold_finds_nothing
                text_is_found_in_every_part_in_any_ascii_case_and_nowhere_else
                lists_cut_bodies_and_other_reads_do_not
                a_removed_request_is_gone_and_its_path_holds_less
                requests_up_to_an_id_are_removed_in_steps_from_the_oldest
                requests_go_when_they_are_old_enough_in_small_steps
                expired_paths_go_with_their_requests_and_their_names_are_free
                what_deleted_paths_left_behind_goes_in_steps
                capture_figures_count_the_tenants_paths_and_show_the_newest_requests
            ]
            receipt: [
                of_64_concurrent_repeats_of_a_message_exactly_one_is_handled
                a_handled_message_gives_its_answer_byte_for_byte
                a_message_counts_for_its_tenant_source_and_letters
                a_lease_that_ended_is_taken_over_and_the_first_handler_fenced
                a_lease_that_ended_still_counts_while_nobody_took_it_over
                a_failed_message_may_be_tried_again
                another_content_under_a_known_id_is_a_conflict
                a_message_is_forgotten_when_it_has_expired
                expired_messages_are_removed_in_steps
            ]
        }
    };
    (@test ($factory:expr) $($role:ident: [$($case:ident)*])*) => {
        $($(
            #[test]
            fn $case() {
                $crate::testing::run_case(async {
                    let (store, guard) = $factory().await;
                    $crate::testing::store::cases::$case($crate::testing::store::Scene::new(store)).await;
                    drop(guard);
                });
            }
        )*)*
    };
    (@export $($role:ident: [$($case:ident)*])*) => {
        /// What the macro calls. A case that its list leaves out is not exported, and the compiler says so.
        #[doc(hidden)]
        pub mod cases {
            $(pub use super::$role::{$($case),*};)*
        }
    };
}

store_conformance! { @cases @export }
