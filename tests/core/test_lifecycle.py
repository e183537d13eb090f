"""The table of a hold's life: what it allows, what it refuses, and the docs' page of it."""

from __future__ import annotations

from typing import Set

import pytest

from celery_redlock.core.lifecycle import (
    FINAL,
    LIVING,
    TRANSITIONS,
    IllegalMove,
    Move,
    State,
    after,
)
from celery_redlock.core.ports import Terms
from celery_redlock.core.record import Record
from celery_redlock.locking.hold import Hold
from docs import lifecycle as docs

#: The design's table, written out again: state, move, next state.
DESIGNED = [
    (State.NEW, Move.ASKED, State.ACQUIRING),
    (State.ACQUIRING, Move.GRANTED, State.HELD),
    (State.ACQUIRING, Move.BUSY, State.QUEUED),
    (State.ACQUIRING, Move.REFUSED, State.ENDED),
    (State.ACQUIRING, Move.OUTCOME_UNKNOWN, State.ABANDONED),
    (State.QUEUED, Move.GRANTED, State.HELD),
    (State.QUEUED, Move.FORGOTTEN, State.ACQUIRING),
    (State.QUEUED, Move.REPLACED, State.ENDED),
    (State.QUEUED, Move.GAVE_UP, State.ENDED),
    *[
        transition
        for state in (State.HELD, State.AT_RISK)
        for transition in (
            (state, Move.RENEWED, State.HELD),
            (state, Move.RENEWAL_FAILED, State.AT_RISK),
            (state, Move.GRANTED_TO_ANOTHER, State.LOST),
            (state, Move.ENDING, State.RELEASING),
            (state, Move.HANDED_ON, State.HANDED),
        )
    ],
    (State.AT_RISK, Move.TRUST_OVER, State.UNSURE),
    (State.UNSURE, Move.REESTABLISHED, State.HELD),
    (State.UNSURE, Move.GRANTED_TO_ANOTHER, State.LOST),
    (State.UNSURE, Move.ENDING, State.RELEASING),
    (State.HANDED, Move.ADOPTED, State.ENDED),
    (State.HANDED, Move.RECEIVER_GONE, State.RELEASING),
    (State.RELEASING, Move.ANSWERED, State.ENDED),
    (State.RELEASING, Move.NO_ANSWER, State.ABANDONED),
    (State.ABANDONED, Move.ACKNOWLEDGED, State.ENDED),
    *[(state, Move.FORKED, State.FOREIGN) for state in State if state not in FINAL],
]

#: What the table has beyond that, and why.
FURTHER = {
    # An answer that never came leaves a waiter in the line as it leaves a holder.
    (State.QUEUED, Move.OUTCOME_UNKNOWN): State.ABANDONED,
    # Trust may run out, and a hold be brought back, before any renewal was seen to fail.
    (State.HELD, Move.TRUST_OVER): State.UNSURE,
    (State.HELD, Move.REESTABLISHED): State.HELD,
    (State.AT_RISK, Move.REESTABLISHED): State.HELD,
    # The server still knows the hold: nobody was granted its place.
    (State.UNSURE, Move.RENEWED): State.HELD,
    # No news of an unsure hold leaves it unsure.
    (State.UNSURE, Move.RENEWAL_FAILED): State.UNSURE,
    (State.UNSURE, Move.TRUST_OVER): State.UNSURE,
    # The renewal that keeps it over a retry proves it held.
    (State.UNSURE, Move.HANDED_ON): State.HANDED,
}

ILLEGAL = [(state, move) for state in State for move in Move if (state, move) not in TRANSITIONS]


def names(transition: object) -> str:
    return getattr(transition, "name", "")


@pytest.mark.parametrize(("state", "move", "then"), DESIGNED, ids=names)
def test_the_table_has_every_transition_of_the_design(
    state: State, move: Move, then: State
) -> None:
    assert after(state, move) is then


def test_the_table_has_no_others_than_those_and_the_explained() -> None:
    designed = {(state, move): then for state, move, then in DESIGNED}
    assert dict(TRANSITIONS) == {**designed, **FURTHER}


@pytest.mark.parametrize(("state", "move"), ILLEGAL, ids=names)
def test_an_illegal_move_raises_and_says_which(state: State, move: Move) -> None:
    with pytest.raises(IllegalMove) as caught:
        after(state, move)
    assert str(caught.value) == f"a hold that is {state.value} cannot be: {move.value}"


@pytest.mark.parametrize(("state", "move"), ILLEGAL, ids=names)
def test_an_illegal_move_of_a_hold_changes_nothing(state: State, move: Move) -> None:
    hold = Hold("r", Terms(), Record(host="h", pid=1, since=0.0))
    hold._state = state
    with pytest.raises(IllegalMove):
        hold.move(move)
    assert hold.state is state
    assert not hold.try_move(move)
    assert hold.state is state


def test_final_states_have_no_way_out() -> None:
    assert {State.LOST, State.FOREIGN, State.ENDED} == FINAL
    assert not [state for state, _ in TRANSITIONS if state in FINAL]


@pytest.mark.parametrize("state", [state for state in State if state not in FINAL])
def test_a_fork_makes_any_hold_that_has_not_ended_foreign(state: State) -> None:
    assert after(state, Move.FORKED) is State.FOREIGN


def reachable(start: State, without: Move) -> Set[State]:
    found, more = {start}, [start]
    while more:
        state = more.pop()
        steps = {then for (s, m), then in TRANSITIONS.items() if s is state and m is not without}
        more += steps - found
        found |= steps
    return found


def test_every_state_is_reached_and_every_hold_can_end() -> None:
    assert reachable(State.NEW, without=Move.FORKED) == set(State) - {State.FOREIGN}
    for state in set(State) - FINAL:
        assert State.ENDED in reachable(state, without=Move.FORKED)


def test_no_hold_lives_again_after_its_release_has_begun() -> None:
    for state in (State.RELEASING, State.ABANDONED, State.HANDED, *FINAL):
        assert not LIVING & reachable(state, without=Move.FORKED)


def test_the_docs_page_is_what_the_table_gives() -> None:
    assert docs.PAGE.read_text(encoding="utf-8") == docs.page(), "run python -m docs.lifecycle"


def test_the_diagram_shows_every_transition_and_the_fork_in_a_note() -> None:
    diagram = docs.diagram()
    assert diagram.startswith("```mermaid\nstateDiagram-v2\n")
    for (state, move), then in TRANSITIONS.items():
        arrow = f"    {state.value} --> {then.value}: "
        shown = [line for line in diagram.splitlines() if line.startswith(arrow)]
        if move is Move.FORKED:
            assert not shown
        else:
            assert len(shown) == 1
            assert move.value in shown[0]
    assert "note right of foreign: after a fork" in diagram
