"""What of the contract Redlock does not have, with the reason: by module, or by one test of it.

Everything else runs on it, too. What is refused before a store is asked is here although a store
may answer it: nobody promises what it answers.
"""

from __future__ import annotations

from typing import Dict, Optional, Set

_LINE = "there is no line: nobody has a place, and a release grants nothing, it tells who may ask"
_ORDER = "who waits asks by itself as well: the order in which a release wakes has exceptions"
_GRANT = "a message brings no grant: who is woken asks"
_BEAT = "a heartbeat has no line to look at: it always says to ask again"
_SILENT = "who is silent, left behind or holds it by now is passed over when woken, not before"
_SEVERAL = "several resources in one ask are refused"
_LIMIT = "more than one holder, and shared mode, are refused before a store is asked"
_BOUND = "a bound on who waits is refused before a store is asked"
_LAPSED = "what has lapsed is not renewed: a majority may have been another's"
_ANEW = "what has lapsed is asked for anew, of a majority that may have offered a greater fence"
_OFFERS = "a server outside the majority may have offered more than the fence that was granted"
_BACK = "nothing is brought back: a majority that has it no more may have been another's"
_GRACE = "a restarted server does not vote, and has no grace"

_LACKS: Dict[str, str] = {
    # whole modules
    "test_several": _SEVERAL,
    # test_asker
    "test_a_release_wakes_the_first_in_line_and_it_goes_on": _ORDER,
    "test_who_stands_back_passes_the_lock_on_and_finds_its_place_again": _ORDER,
    "test_a_woken_one_that_is_cancelled_passes_the_lock_on": _ORDER,
    "test_a_crowd_that_leaves_a_line_at_once_does_not_pass_the_lock_around": _ORDER,
    "test_one_that_a_newcomer_drops_hears_it_without_a_slot": _BOUND,
    "test_what_it_holds_while_it_waits_is_freed_when_it_stands_back": _SEVERAL,
    "test_one_of_several_that_is_dropped_releases_what_it_holds_and_loses_nothing": _SEVERAL,
    "test_what_a_message_brings_is_taken_without_asking": _GRANT,
    "test_a_grant_for_a_moment_becomes_a_lease_at_once": _GRANT,
    "test_a_look_at_its_lease_makes_it_one": _GRANT,
    "test_what_was_handed_over_for_a_moment_becomes_a_lease_too": _GRANT,
    "test_one_that_is_granted_and_stands_back_passes_the_lock_on": _ORDER,
    # test_asking
    "test_a_wait_whose_earlier_hold_this_process_gave_up_as_lost_ends_as_lost": _SEVERAL,
    "test_all_are_held_and_renewed_each_with_its_fence": _SEVERAL,
    "test_a_busy_one_leaves_none_of_them_held": _SEVERAL,
    "test_who_waits_for_the_second_holds_the_first_and_not_the_third": _SEVERAL,
    "test_what_is_held_while_another_is_awaited_is_renewed": _SEVERAL,
    "test_giving_up_the_wait_gives_back_what_was_held": _SEVERAL,
    "test_one_that_lapsed_during_the_wait_ends_it_with_none_held": _SEVERAL,
    "test_the_longest_hold_counts_from_when_all_are_held": _SEVERAL,
    "test_opposite_wishes_in_one_order_never_block_one_another": _SEVERAL,
    "test_the_line_comes_before_who_proved_the_death": _LINE,
    # test_batches
    "test_each_ask_of_a_batch_has_its_own_answer": _SEVERAL,
    # test_concurrency
    "test_of_many_threads_as_many_as_the_limit_are_granted": _LIMIT,
    "test_a_line_of_many_threads_is_served_to_the_last_by_releases_alone": _ORDER,
    # test_dead
    "test_what_a_dead_process_held_goes_to_the_line": _LINE,
    "test_a_sweep_ends_whatever_the_dead_have_and_nothing_else": _LINE,
    # test_forced
    "test_the_holder_is_told_when_it_tries_to_come_back": _BACK,
    "test_the_first_in_line_is_granted_and_woken": _LINE,
    # test_holding
    "test_a_free_resource_is_granted_with_a_fence_about_now_in_microseconds": _OFFERS,
    "test_busy_lists_every_live_holder_the_longest_first": _LIMIT,
    "test_bringing_back_what_has_not_gone_shortens_no_lease": _BACK,
    "test_a_lapsed_hold_comes_back_while_nobody_needed_its_place": _LAPSED,
    "test_a_lapsed_hold_comes_back_by_asking_with_its_fence": _ANEW,
    "test_ghosts_and_holders_together_never_exceed_the_smallest_limit": _LIMIT,
    "test_a_ghost_with_a_small_limit_makes_room_for_a_larger_one": _LIMIT,
    "test_a_writer_evicts_the_ghosts_of_readers": _LIMIT,
    "test_a_ghost_stays_while_there_is_room_beside_it": _LIMIT,
    "test_the_oldest_ghost_is_evicted_first": _LIMIT,
    "test_a_reader_evicts_the_ghost_of_a_writer_but_not_of_readers": _LIMIT,
    "test_a_ghost_is_nobody_that_one_waits_for": _LIMIT,
    "test_a_batch_answers_each_part_in_its_place": _BEAT,
    "test_a_batch_may_name_a_resource_twice": _LIMIT,
    # test_kept
    "test_a_lapsed_kept_hold_is_taken_over_while_nobody_needed_its_place": _ANEW,
    "test_who_holds_already_takes_nothing_over": _LIMIT,
    "test_who_takes_a_kept_hold_over_is_no_longer_in_line": _SILENT,
    # test_late_copies
    "test_a_late_copy_does_not_rejoin_the_line": _BEAT,
    "test_a_late_copy_of_a_buried_token_lets_the_line_move": _LINE,
    "test_a_late_copy_of_a_join_confirms_what_was_granted_since": _LINE,
    "test_a_late_copy_that_asks_once_for_a_silent_waiter_is_busy_or_in_line": _SILENT,
    "test_a_late_heartbeat_does_not_bring_a_cancelled_waiter_back": _BEAT,
    "test_a_second_copy_of_a_release_takes_nothing_from_the_next_holder": _LINE,
    "test_an_orphan_leaves_the_line": _SILENT,
    "test_every_request_answers_the_same_when_it_is_sent_twice": _LINE,
    "test_orphans_are_dropped_by_a_token_that_is_itself_dead": _LINE,
    "test_the_room_of_an_orphan_goes_to_the_line_first": _LINE,
    "test_a_tombstone_tells_who_comes_back_why": _BACK,
    "test_orphans_are_dropped_though_the_request_itself_is_answered_at_once": _LIMIT,
    # test_line
    "test_waiters_stand_in_the_order_they_came": _LINE,
    "test_asking_again_keeps_the_place": _LINE,
    "test_a_place_in_line_names_the_longest_holder_and_at_the_head_all": _LIMIT,
    "test_a_release_grants_the_head_before_anybody_asks": _LINE,
    "test_a_heartbeat_names_the_longest_holder_to_the_first_that_it_is_for": _LIMIT,
    "test_nobody_passes_the_line": _LINE,
    "test_a_rejoin_takes_its_old_place": _LINE,
    "test_a_newcomer_stands_behind_one_whose_place_is_from_a_clock_ahead": _LINE,
    "test_leaving_the_line_lets_the_next_move_up": _LINE,
    "test_a_grant_that_raced_a_cancellation_is_passed_on": _LINE,
    "test_a_grant_that_nobody_confirms_ends_soon": _LINE,
    "test_a_renewal_confirms_a_grant": _LINE,
    "test_a_heartbeat_tells_the_place": _BEAT,
    "test_a_heartbeat_never_adds_a_waiter": _BEAT,
    "test_a_heartbeat_tells_a_grant_whose_message_was_lost": _BEAT,
    "test_any_heartbeat_lets_the_line_move": _BEAT,
    "test_a_silent_waiter_loses_its_place": _BEAT,
    "test_a_heartbeat_keeps_a_waiter_alive": _BEAT,
    "test_a_silent_head_that_asks_at_last_is_alive_again": _LINE,
    "test_a_patient_waiter_outlives_the_silence_of_a_hasty_one": _LINE,
    "test_a_wake_up_says_what_was_granted_and_when": _GRANT,
    "test_a_release_wakes_one_waiter_and_tells_the_next_that_it_is_the_head": _GRANT,
    "test_the_head_that_leaves_the_line_has_the_next_told": _LINE,
    "test_the_head_is_told_that_a_kept_hold_has_another_owner": _LINE,
    "test_a_waiting_writer_is_not_starved_by_readers": _LIMIT,
    "test_a_release_wakes_the_leading_readers_up_to_the_next_writer": _LIMIT,
    "test_a_release_grants_as_many_as_fit": _LIMIT,
    "test_confirming_lets_another_in_that_fits": _LIMIT,
    "test_strict_order_a_small_one_behind_does_not_pass_a_large_one": _LIMIT,
    "test_a_reader_that_rejoins_before_a_writer_is_granted_at_once": _LIMIT,
    "test_a_full_line_takes_no_more": _BOUND,
    "test_who_is_in_a_full_line_keeps_its_place": _BOUND,
    "test_dead_waiters_do_not_fill_a_line": _BOUND,
    "test_the_oldest_makes_way_for_the_newest": _BOUND,
    "test_the_dropped_one_is_told_which_task_took_its_place": _BOUND,
    "test_a_full_line_does_not_refuse_who_comes_back": _BOUND,
    "test_who_comes_back_does_not_drop_the_newer": _BOUND,
    "test_several_make_way_for_one_with_a_smaller_bound": _BOUND,
    "test_dropping_the_writer_at_the_head_lets_readers_in": _BOUND,
    # test_release_races
    "test_a_release_that_overtakes_the_watchdog_is_the_end_of_the_hold": _BACK,
    "test_a_hold_that_was_brought_back_is_released_like_any_other": _BACK,
    # test_return
    "test_a_server_that_restarted_empty_does_not_grant_what_it_does_not_know": _GRACE,
    "test_a_holder_that_trusts_comes_back_with_its_fence": _BACK,
    "test_of_two_that_think_they_hold_it_the_second_is_refused": _BACK,
    "test_holders_of_a_limit_do_not_refuse_each_other": _LIMIT,
    "test_readers_come_back_beside_each_other_and_a_writer_does_not": _LIMIT,
    "test_one_that_came_back_and_left_admits_nobody_while_others_may_come": _BACK,
    "test_coming_back_twice_is_coming_back_once": _BACK,
    "test_a_forced_release_also_counts_for_one_that_comes_back": _BACK,
    "test_a_waiter_of_the_grace_is_granted_when_it_is_over": _GRACE,
    "test_nobody_passes_those_who_waited_through_the_grace": _GRACE,
    "test_after_the_grace_nobody_comes_back_to_an_empty_server": _GRACE,
    "test_after_the_grace_fences_go_on_above_one_that_came_back": _GRACE,
    "test_a_hold_comes_back_if_nobody_was_granted_the_place": _BACK,
    "test_a_hold_comes_back_only_without_evicting_anybody": _BACK,
    "test_a_fence_that_came_back_counts_though_it_was_not_issued_here": _BACK,
    # test_survey
    "test_a_hold_that_came_back_to_an_empty_server_is_seen": _BACK,
    "test_a_line_before_a_restarted_server_grants_anything_is_seen": _GRACE,
}


def lack(module: str, test: str) -> Optional[str]:
    """Why this test is not one of Redlock's; None if it is."""
    return _LACKS.get(module.rpartition(".")[2]) or _LACKS.get(test)


def lacks() -> Set[str]:
    """The names of all tests, and of modules of tests, that it lacks."""
    return set(_LACKS)
