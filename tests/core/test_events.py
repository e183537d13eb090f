"""What happens to a hold is told: each transition that a person cares about, once.

The scenarios drive a manager through every move of a hold's life.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, FrozenSet, Tuple, Type

import pytest

from celery_redlock.core import events
from celery_redlock.core.lifecycle import TRANSITIONS, Move, State
from celery_redlock.core.ports import NoAnswer
from celery_redlock.locking.hold import Hold
from tests.core.stage import LAPSE, Stage

#: What each move tells.
TOLD_BY: Dict[Move, Type[Any]] = {
    Move.GRANTED: events.Acquired,
    Move.BUSY: events.Waiting,
    Move.OUTCOME_UNKNOWN: events.Abandoned,
    Move.GAVE_UP: events.TimedOut,
    Move.RENEWED: events.Recovered,
    Move.REESTABLISHED: events.Reestablished,
    Move.RENEWAL_FAILED: events.RenewalFailed,
    Move.TRUST_OVER: events.Unsure,
    Move.GRANTED_TO_ANOTHER: events.Lost,
    Move.HANDED_ON: events.Kept,
    Move.ANSWERED: events.Released,
    Move.NO_ANSWER: events.Abandoned,
    Move.ACKNOWLEDGED: events.Cleared,
}

#: Moves that tell nobody anything, and why.
SILENT = {
    Move.ASKED: "nothing is known yet",
    Move.REFUSED: "whoever asked tells what he does instead",
    Move.REPLACED: "whoever asked tells what he does instead",
    Move.FORGOTTEN: "it asks again with its old place",
    Move.ENDING: "its answer tells",
    Move.ADOPTED: "the retry tells that it acquired it",
    Move.RECEIVER_GONE: "the server ends it with its lease",
    Move.FORKED: "it is the parent's to tell of",
}

#: From these states a move is no news.
NO_NEWS = {
    (State.HELD, Move.RENEWED),
    (State.AT_RISK, Move.RENEWAL_FAILED),
    (State.UNSURE, Move.RENEWAL_FAILED),
    (State.UNSURE, Move.TRUST_OVER),
}


# --- one scenario for every move


def acquires(stage: Stage) -> None:
    stage.held()


def joins_the_line_and_gives_up(stage: Stage) -> None:
    stage.held_by_rival()
    stage.wait(lambda: None, left=0.0)


def is_granted_in_line(stage: Stage) -> None:
    rival = stage.held_by_rival()
    stage.wait(lambda: stage.rivals.release(rival))


def asks_without_an_answer(stage: Stage) -> None:
    stage.network.faults = ["answer lost", "answer lost"]
    with pytest.raises(NoAnswer):
        stage.ours.acquire(stage.hold())


def is_interrupted_in_line(stage: Stage) -> None:
    stage.held_by_rival()

    def interrupt() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        stage.wait(interrupt)


def is_renewed(stage: Stage) -> None:
    stage.held()
    stage.renew()


def at_risk(stage: Stage) -> Hold:
    hold = stage.held()
    stage.renew("request lost")
    return hold


def unsure(stage: Stage) -> Hold:
    hold = at_risk(stage)
    stage.renew("request lost", after=LAPSE)
    return hold


def stays(begin: Callable[[Stage], Any], after: float = 1.0) -> Callable[[Stage], None]:
    def scenario(stage: Stage) -> None:
        begin(stage)
        stage.renew("request lost", after=after)

    return scenario


def then_renewed(begin: Callable[[Stage], Any]) -> Callable[[Stage], None]:
    def scenario(stage: Stage) -> None:
        begin(stage)
        stage.renew(after=1.0)

    return scenario


def then_forgotten(begin: Callable[[Stage], Hold]) -> Callable[[Stage], None]:
    def scenario(stage: Stage) -> None:
        stage.forget(begin(stage))
        stage.renew(after=1.0)

    return scenario


def then_taken(begin: Callable[[Stage], Hold]) -> Callable[[Stage], None]:
    def scenario(stage: Stage) -> None:
        stage.forget(begin(stage))
        stage.held_by_rival()
        stage.renew(after=1.0)

    return scenario


def then_kept(begin: Callable[[Stage], Hold]) -> Callable[[Stage], None]:
    def scenario(stage: Stage) -> None:
        stage.ours.keep(begin(stage), "its retry", 10.0)

    return scenario


def releases(stage: Stage) -> None:
    stage.release(stage.held())


def releases_without_an_answer(stage: Stage) -> None:
    stage.release(stage.held(), "answer lost", "answer lost")


def is_released_late(stage: Stage) -> None:
    releases_without_an_answer(stage)
    stage.renew()


HELD, AT_RISK, UNSURE = State.HELD, State.AT_RISK, State.UNSURE

SCENARIOS: Dict[Tuple[State, Move], Callable[[Stage], Any]] = {
    (State.ACQUIRING, Move.GRANTED): acquires,
    (State.ACQUIRING, Move.BUSY): joins_the_line_and_gives_up,
    (State.ACQUIRING, Move.OUTCOME_UNKNOWN): asks_without_an_answer,
    (State.QUEUED, Move.GRANTED): is_granted_in_line,
    (State.QUEUED, Move.GAVE_UP): joins_the_line_and_gives_up,
    (State.QUEUED, Move.OUTCOME_UNKNOWN): is_interrupted_in_line,
    (HELD, Move.RENEWED): is_renewed,
    (HELD, Move.REESTABLISHED): then_forgotten(Stage.held),
    (HELD, Move.RENEWAL_FAILED): at_risk,
    (HELD, Move.TRUST_OVER): lambda stage: (stage.held(), stage.renew("request lost", after=LAPSE)),
    (HELD, Move.GRANTED_TO_ANOTHER): then_taken(Stage.held),
    (HELD, Move.HANDED_ON): then_kept(Stage.held),
    (AT_RISK, Move.RENEWED): then_renewed(at_risk),
    (AT_RISK, Move.REESTABLISHED): then_forgotten(at_risk),
    (AT_RISK, Move.RENEWAL_FAILED): stays(at_risk),
    (AT_RISK, Move.TRUST_OVER): unsure,
    (AT_RISK, Move.GRANTED_TO_ANOTHER): then_taken(at_risk),
    (AT_RISK, Move.HANDED_ON): then_kept(at_risk),
    (UNSURE, Move.RENEWED): then_renewed(unsure),
    (UNSURE, Move.REESTABLISHED): then_forgotten(unsure),
    (UNSURE, Move.RENEWAL_FAILED): stays(unsure),
    (UNSURE, Move.TRUST_OVER): stays(unsure, LAPSE),
    (UNSURE, Move.GRANTED_TO_ANOTHER): then_taken(unsure),
    (UNSURE, Move.HANDED_ON): then_kept(unsure),
    (State.RELEASING, Move.ANSWERED): releases,
    (State.RELEASING, Move.NO_ANSWER): releases_without_an_answer,
    (State.ABANDONED, Move.ACKNOWLEDGED): is_released_late,
}

#: What a scenario tells on its way to its move.
BEFORE: Dict[State, FrozenSet[Type[Any]]] = {
    State.ACQUIRING: frozenset(),
    State.QUEUED: frozenset({events.Waiting}),
    HELD: frozenset({events.Acquired}),
    AT_RISK: frozenset({events.Acquired, events.RenewalFailed}),
    UNSURE: frozenset({events.Acquired, events.RenewalFailed, events.Unsure}),
    State.RELEASING: frozenset({events.Acquired}),
    State.ABANDONED: frozenset({events.Acquired, events.Abandoned}),
}


def test_every_move_has_a_scenario_or_a_reason_to_be_silent() -> None:
    assert set(SCENARIOS) == {move for move in TRANSITIONS if move[1] not in SILENT}
    assert set(TOLD_BY) | set(SILENT) == set(Move)


@pytest.mark.parametrize(
    ("state", "move"), SCENARIOS, ids=[f"{state.name}-{move.name}" for state, move in SCENARIOS]
)
def test_every_move_that_matters_is_told_once(stage: Stage, state: State, move: Move) -> None:
    SCENARIOS[state, move](stage)
    kinds = [type(event) for event in stage.told]
    assert len(set(kinds)) == len(kinds), f"told twice: {stage.told}"
    expected = BEFORE[state] | (set() if (state, move) in NO_NEWS else {TOLD_BY[move]})
    # A scenario may have to go a step further; what that tells is another move's.
    further = {events.TimedOut} if move is Move.BUSY else set()
    further |= {events.RenewalFailed} if (state, move) == (HELD, Move.TRUST_OVER) else set()
    assert set(kinds) == expected | further
