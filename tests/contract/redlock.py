"""What of the contract Redlock does not have, with the reason: by module, or by one test of it."""

from __future__ import annotations

from typing import Dict, Optional

_LINE = "there is no line: who is refused asks again, when a release says so or by itself"
_ONE = "one holder of one resource at a time"
_LAPSED = "what has lapsed is not renewed: a majority may have been another's"
_UNWRITTEN = "a fence that was not written back before the lease was over may be another afterwards"
_BACK = "nothing is brought back: a majority that has it no more may have been another's"
_GRACE = "a restarted server does not vote, and has no grace"
_OFFERS = "a server outside the majority may have offered more than the fence that was granted"

_LACKS: Dict[str, str] = {
    # whole modules
    "test_line": _LINE,
    "test_several": _ONE,
    "test_return": _BACK,
    # test_asker
    "test_a_release_wakes_the_first_in_line_and_it_goes_on": _LINE,
    "test_a_woken_one_that_is_cancelled_passes_the_lock_on": _LINE,
    "test_a_lost_wake_up_is_healed_by_a_heartbeat": _LINE,
    "test_what_a_message_brings_is_taken_without_asking": _LINE,
    "test_a_grant_for_a_moment_becomes_a_lease_at_once": _LINE,
    "test_a_look_at_its_lease_makes_it_one": _LINE,
    "test_what_was_handed_over_for_a_moment_becomes_a_lease_too": _LINE,
    "test_one_that_is_granted_and_stands_back_passes_the_lock_on": _LINE,
    "test_each_of_hundreds_gets_it_once": _LINE,
    "test_one_that_a_newcomer_drops_hears_it_without_a_slot": _LINE,
    "test_what_it_holds_while_it_waits_is_freed_when_it_stands_back": _ONE,
    "test_who_stands_back_passes_the_lock_on_and_finds_its_place_again": _LINE,
    # test_asking
    "test_a_wait_whose_earlier_hold_this_process_gave_up_as_lost_ends_as_lost": _ONE,
    "test_all_are_held_and_renewed_each_with_its_fence": _ONE,
    "test_a_busy_one_leaves_none_of_them_held": _ONE,
    "test_who_waits_for_the_second_holds_the_first_and_not_the_third": _ONE,
    "test_what_is_held_while_another_is_awaited_is_renewed": _ONE,
    "test_giving_up_the_wait_gives_back_what_was_held": _ONE,
    "test_one_that_lapsed_during_the_wait_ends_it_with_none_held": _ONE,
    "test_the_longest_hold_counts_from_when_all_are_held": _ONE,
    "test_opposite_wishes_in_one_order_never_block_one_another": _ONE,
    "test_the_line_comes_before_who_proved_the_death": _LINE,
    # test_batches
    "test_each_ask_of_a_batch_has_its_own_answer": _ONE,
    # test_concurrency
    "test_of_many_threads_as_many_as_the_limit_are_granted": _ONE,
    "test_a_line_of_many_threads_is_served_to_the_last_by_releases_alone": _LINE,
    # test_dead
    "test_what_a_dead_process_held_goes_to_the_line": _LINE,
    "test_a_sweep_ends_whatever_the_dead_have_and_nothing_else": _LINE,
    # test_forced
    "test_the_holder_is_told_when_it_tries_to_come_back": _BACK,
    "test_the_first_in_line_is_granted_and_woken": _LINE,
    # test_holding
    "test_a_free_resource_is_granted_with_a_fence_about_now_in_microseconds": _OFFERS,
    "test_busy_lists_every_live_holder_the_longest_first": _ONE,
    "test_bringing_back_what_has_not_gone_shortens_no_lease": _BACK,
    "test_a_lapsed_hold_comes_back_while_nobody_needed_its_place": _LAPSED,
    "test_a_lapsed_hold_comes_back_by_asking_with_its_fence": _UNWRITTEN,
    "test_ghosts_and_holders_together_never_exceed_the_smallest_limit": _ONE,
    "test_a_ghost_with_a_small_limit_makes_room_for_a_larger_one": _ONE,
    "test_a_writer_evicts_the_ghosts_of_readers": _ONE,
    "test_a_ghost_stays_while_there_is_room_beside_it": _ONE,
    "test_the_oldest_ghost_is_evicted_first": _ONE,
    "test_a_reader_evicts_the_ghost_of_a_writer_but_not_of_readers": _ONE,
    "test_a_ghost_is_nobody_that_one_waits_for": _ONE,
    "test_a_batch_answers_each_part_in_its_place": _LINE,
    "test_a_batch_may_name_a_resource_twice": _ONE,
    # test_kept
    "test_a_lapsed_kept_hold_is_taken_over_while_nobody_needed_its_place": _UNWRITTEN,
    "test_who_holds_already_takes_nothing_over": _ONE,
    "test_who_takes_a_kept_hold_over_is_no_longer_in_line": _LINE,
    # test_late_copies
    "test_a_late_copy_does_not_rejoin_the_line": _LINE,
    "test_a_late_copy_of_a_buried_token_lets_the_line_move": _LINE,
    "test_a_late_copy_of_a_join_confirms_what_was_granted_since": _LINE,
    "test_a_late_copy_that_asks_once_for_a_silent_waiter_is_busy_or_in_line": _LINE,
    "test_a_late_heartbeat_does_not_bring_a_cancelled_waiter_back": _LINE,
    "test_a_second_copy_of_a_release_takes_nothing_from_the_next_holder": _LINE,
    "test_an_orphan_leaves_the_line": _LINE,
    "test_every_request_answers_the_same_when_it_is_sent_twice": _LINE,
    "test_orphans_are_dropped_by_a_token_that_is_itself_dead": _LINE,
    "test_the_room_of_an_orphan_goes_to_the_line_first": _LINE,
    "test_a_tombstone_tells_who_comes_back_why": _BACK,
    "test_orphans_are_dropped_though_the_request_itself_is_answered_at_once": _ONE,
    # test_release_races
    "test_a_release_that_overtakes_the_watchdog_is_the_end_of_the_hold": _BACK,
    "test_a_hold_that_was_brought_back_is_released_like_any_other": _BACK,
    # test_survey
    "test_a_hold_that_came_back_to_an_empty_server_is_seen": _BACK,
    "test_a_line_before_a_restarted_server_grants_anything_is_seen": _GRACE,
    "test_a_crowd_that_leaves_a_line_at_once_does_not_pass_the_lock_around": _LINE,
}


def lack(module: str, test: str) -> Optional[str]:
    """Why this test is not one of Redlock's; None if it is."""
    return _LACKS.get(module.rpartition(".")[2]) or _LACKS.get(test)
