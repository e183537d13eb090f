"""What of the contract Redlock does not have, with the reason: by module, or by one test of it."""

from __future__ import annotations

from typing import Dict, Optional

_LINE = "there is no line: who is refused asks again"
_ONE = "one holder of one resource at a time"
_LAPSED = "what has lapsed does not come back: a majority may have been another's"
_CLOSED = "a majority that has no such hold closes it, with a reason"
_FENCE = "each server has a fence of its own until the majority's is written back"
_OWN = "has tests of its own in test_quorum"

_LACKS: Dict[str, str] = {
    "test_line": _LINE,
    "test_several": _ONE,
    "test_return": _LAPSED,
    "test_late_copies": _LINE,
    "test_random_faults": _OWN,
    "test_concurrency": _OWN,
    "test_release_races": _LAPSED,
    "test_early_grant": _LINE,
    "test_asker": _LINE,
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
    "test_what_a_dead_process_held_goes_to_the_line": _LINE,
    "test_a_sweep_ends_whatever_the_dead_have_and_nothing_else": _LINE,
    "test_a_sweep_ends_with_its_time": _OWN,
    "test_the_holder_is_told_at_its_next_renewal_and_cannot_come_back": _CLOSED,
    "test_the_first_in_line_is_granted_and_woken": _LINE,
    "test_a_holder_that_came_after_the_look_is_left_alone": _FENCE,
    "test_a_hold_whose_lease_is_over_and_a_kept_one_end_too": _LAPSED,
    "test_a_free_resource_is_granted_with_a_fence_about_now_in_microseconds": _FENCE,
    "test_a_held_resource_is_busy_and_says_who_holds_it": _FENCE,
    "test_a_second_request_of_the_same_token_is_the_same_hold": _FENCE,
    "test_busy_lists_every_live_holder_the_longest_first": _ONE,
    "test_a_foreign_token_releases_and_extends_nothing": _CLOSED,
    "test_a_renewal_with_another_fence_is_of_another_hold": _CLOSED,
    "test_a_renewal_creates_nothing": _CLOSED,
    "test_a_lease_is_never_shortened": _FENCE,
    "test_a_lapsed_hold_comes_back_while_nobody_needed_its_place": _LAPSED,
    "test_a_lapsed_hold_comes_back_by_asking_with_its_fence": _LAPSED,
    "test_a_lapsed_hold_is_gone_once_another_was_granted_its_place": _CLOSED,
    "test_asking_again_after_a_rival_is_another_hold": _CLOSED,
    "test_a_ghost_stays_while_there_is_room_beside_it": _ONE,
    "test_the_oldest_ghost_is_evicted_first": _ONE,
    "test_ghosts_and_holders_together_never_exceed_the_smallest_limit": _ONE,
    "test_a_ghost_with_a_small_limit_makes_room_for_a_larger_one": _ONE,
    "test_a_writer_evicts_the_ghosts_of_readers": _ONE,
    "test_a_reader_evicts_the_ghost_of_a_writer_but_not_of_readers": _ONE,
    "test_a_ghost_is_nobody_that_one_waits_for": _LINE,
    "test_a_batch_answers_each_part_in_its_place": _LINE,
    "test_a_batch_may_name_a_resource_twice": _LINE,
    "test_each_ask_of_a_batch_has_its_own_answer": _ONE,
    "test_the_retry_takes_it_over_with_its_fence": _FENCE,
    "test_a_second_copy_of_the_retrys_request_is_the_same_hold": _FENCE,
    "test_the_retry_passes_the_line": _LINE,
    "test_who_holds_already_takes_nothing_over": _FENCE,
    "test_the_old_token_has_nothing_left_of_it": _CLOSED,
    "test_a_late_renewal_does_not_make_a_kept_hold_an_ordinary_one": _FENCE,
    "test_a_lapsed_kept_hold_is_taken_over_while_nobody_needed_its_place": _LAPSED,
    "test_who_takes_a_kept_hold_over_is_no_longer_in_line": _LINE,
    "test_looking_changes_nothing": _LINE,
    "test_a_hold_that_came_back_to_an_empty_server_is_seen": _LAPSED,
    "test_a_line_before_a_restarted_server_grants_anything_is_seen": _LINE,
}


def lack(module: str, test: str) -> Optional[str]:
    """Why this test is not one of Redlock's; None if it is."""
    return _LACKS.get(module.rpartition(".")[2]) or _LACKS.get(test)
