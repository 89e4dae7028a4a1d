//! The suite that every backend runs: memory, order, and every op against the oracle.
//!
//! A backend's test file calls [`crate::conformance!`] with a function that makes devices; every case becomes a `#[test]` that
//! runs on each of them. Shapes are drawn from a seeded generator, so that a failure can be repeated.
//!
//! Results may differ from the oracle's by a relative L2 error that depends on [`Arithmetic`]; sampled tokens may not differ at
//! all, and neither may a row's bits when the rows around it change.

pub mod attend;
mod data;
pub mod embed;
pub mod experts;
pub mod linear;
pub mod memory;
pub mod normalize;
pub mod order;
mod rig;
pub mod route;
pub mod sample;
pub mod weights;

use crate::Device;
use std::sync::Arc;

/// Runs `case` on each device, saying on which for the report of a failure.
pub fn on_each(devices: Vec<Arc<dyn Device>>, case: fn(&Arc<dyn Device>)) {
    for device in devices {
        eprintln!("on {device:?}, {:?}", device.info());
        case(&device);
    }
}

/// Instantiates the suite: one `#[test]` a case. `$devices` is a function without arguments that makes the
/// `Vec<Arc<dyn Device>>` to test; cases count what a device
/// did, so it makes new ones each time.
#[macro_export]
macro_rules! conformance {
    ($devices:path) => {
        $crate::conformance! { $devices;
            memory::heaps_place_what_fits_and_is_aligned,
            memory::views_keep_their_memory_and_share_its_bytes,
            memory::host_access_stays_within_a_view,
            memory::private_memory_is_reached_through_either_queue,
            memory::touching_keeps_the_contents,
            memory::counters_follow_allocations,
            memory::too_much_is_refused,
            order::ops_and_command_buffers_run_in_order,
            order::queues_wait_for_each_other,
            order::a_wait_between_ops_holds_what_follows,
            order::ops_behind_a_wait_read_what_the_host_wrote_before_its_signal,
            order::a_failure_signals_and_the_next_one_runs,
            order::a_reached_point_means_that_the_submission_has_ended,
            order::waits_have_limits,
            order::timelines_never_fall_and_wake_everybody,
            order::each_queue_takes_its_own_command_buffers_only,
            order::memory_of_others_is_refused,
            order::an_ended_submission_holds_no_memory,
            order::timestamps_and_counters_follow_the_work,
            weights::layouts_cover_every_row,
            weights::blocks_are_packed_one_by_one,
            weights::wrong_sources_and_specs_are_refused,
            weights::small_floats_that_are_no_numbers_are_refused,
            embed::tokens_of_every_format,
            embed::sampled_tokens_and_split_tables,
            embed::unknown_tokens_fail,
            embed::angles_turn_with_position,
            embed::copies_copy_and_refuse_overlap,
            embed::history_is_written_and_unknown_tokens_fail,
            linear::every_format,
            linear::any_shape,
            linear::a_row_depends_on_itself_only,
            linear::gathered_rows_stay_within_the_input,
            normalize::columns_of_any_width,
            normalize::company_changes_no_bit,
            normalize::columns_outside_and_overlap_are_refused,
            route::any_experts_are_chosen_as_the_oracle_chooses,
            route::equal_scores_go_to_the_lower_expert,
            route::company_changes_no_experts,
            route::rows_that_are_not_finite_have_no_weights,
            route::experts_that_there_are_not_are_refused,
            experts::experts_of_every_format,
            experts::any_number_of_experts,
            experts::company_changes_no_experts_product,
            experts::unknown_experts_fail,
            experts::stacks_that_contradict_are_refused,
            attend::any_batch,
            attend::long_contexts,
            attend::company_and_cuts_change_no_bit,
            attend::a_shared_prefix_changes_no_bit,
            attend::blocks_and_rows_outside_are_refused,
            sample::any_row_is_drawn_as_the_oracle_draws,
            sample::extreme_values_rank_as_the_oracle_ranks,
            sample::filters_cut_where_the_oracle_cuts,
            sample::penalties_and_biases_change_the_choice_alike,
            sample::temperatures_below_the_floor_draw_nothing,
            sample::company_changes_no_choice,
            sample::masks_leave_the_same_choice_as_the_oracles,
            sample::masked_rows_change_no_other_choice,
            sample::full_masks_are_none_and_empty_ones_choose_nothing,
            sample::rows_without_a_finite_value_have_no_token,
            sample::history_rows_masks_and_biases_outside_are_refused,
        }
    };
    ($devices:path; $($room:ident::$case:ident),* $(,)?) => {
        $(
            #[test]
            fn $case() {
                $crate::conformance::on_each($devices(), $crate::conformance::$room::$case);
            }
        )*
    };
}
