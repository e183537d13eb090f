"""One hold's life, as data.

A hold begins NEW, is asked for, may wait in line, is held and ends. Two facts shape the table. A
request whose answer never came may have run, or may still run: such a hold is ABANDONED, never
forgotten, until the server has acknowledged its release. And a lease that could not be renewed is
not lost: nobody may have needed its place, so a hold moves through AT_RISK and UNSURE before it is
LOST, and may come back from both.

``TRANSITIONS`` is the whole truth; docs/lifecycle.md's diagram is made from it.
"""

from __future__ import annotations

from enum import Enum
from typing import Dict, FrozenSet, Mapping, Tuple


class State(str, Enum):
    # That of Enum is a function in Python, called several times for each hold and renewal.
    __hash__ = str.__hash__

    NEW = "new"
    ACQUIRING = "acquiring"
    QUEUED = "queued"
    HELD = "held"
    AT_RISK = "at_risk"
    UNSURE = "unsure"
    HANDED = "handed"
    RELEASING = "releasing"
    ABANDONED = "abandoned"
    LOST = "lost"
    FOREIGN = "foreign"
    ENDED = "ended"


class Move(str, Enum):
    __hash__ = str.__hash__

    ASKED = "asked"
    GRANTED = "granted"
    BUSY = "busy, joined the line"
    REFUSED = "busy, did not wait"
    OUTCOME_UNKNOWN = "outcome unknown"
    FORGOTTEN = "unknown to the server"
    REPLACED = "replaced by a newcomer"
    GAVE_UP = "gave up"
    RENEWED = "renewed"
    RENEWAL_FAILED = "renewal failed"
    TRUST_OVER = "trust over"
    REESTABLISHED = "re-established"
    GRANTED_TO_ANOTHER = "granted to another"
    ENDING = "ending"
    HANDED_ON = "handed on"
    ADOPTED = "adopted by its receiver"
    RECEIVER_GONE = "receiver dead or its time over"
    ANSWERED = "definite answer"
    NO_ANSWER = "no answer"
    ACKNOWLEDGED = "acknowledged"
    FORKED = "fork"


class IllegalMove(RuntimeError):
    """The table has no such transition; the hold's state is unchanged."""


_LIVING: Mapping[Move, State] = {
    Move.RENEWED: State.HELD,
    Move.REESTABLISHED: State.HELD,
    Move.RENEWAL_FAILED: State.AT_RISK,
    Move.TRUST_OVER: State.UNSURE,
    Move.GRANTED_TO_ANOTHER: State.LOST,
    Move.ENDING: State.RELEASING,
    Move.HANDED_ON: State.HANDED,
}

_TABLE: Mapping[State, Mapping[Move, State]] = {
    State.NEW: {Move.ASKED: State.ACQUIRING},
    State.ACQUIRING: {
        Move.GRANTED: State.HELD,
        Move.BUSY: State.QUEUED,
        Move.REFUSED: State.ENDED,
        Move.OUTCOME_UNKNOWN: State.ABANDONED,
    },
    State.QUEUED: {
        Move.GRANTED: State.HELD,
        Move.FORGOTTEN: State.ACQUIRING,
        Move.REPLACED: State.ENDED,
        Move.GAVE_UP: State.ENDED,
        Move.OUTCOME_UNKNOWN: State.ABANDONED,
    },
    State.HELD: _LIVING,
    State.AT_RISK: _LIVING,
    # The renewal of an unsure hold goes on failing: it stays unsure until the server says more.
    State.UNSURE: {
        **_LIVING,
        Move.RENEWAL_FAILED: State.UNSURE,
    },
    State.HANDED: {Move.ADOPTED: State.ENDED, Move.RECEIVER_GONE: State.RELEASING},
    State.RELEASING: {Move.ANSWERED: State.ENDED, Move.NO_ANSWER: State.ABANDONED},
    State.ABANDONED: {Move.ACKNOWLEDGED: State.ENDED},
}

FINAL: FrozenSet[State] = frozenset({State.LOST, State.FOREIGN, State.ENDED})

#: States in which the hold's body may run; the watchdog renews these and no others.
LIVING: FrozenSet[State] = frozenset({State.HELD, State.AT_RISK, State.UNSURE})

TRANSITIONS: Dict[Tuple[State, Move], State] = {
    **{(state, move): after for state, row in _TABLE.items() for move, after in row.items()},
    **{(state, Move.FORKED): State.FOREIGN for state in State if state not in FINAL},
}


def after(state: State, move: Move) -> State:
    """The state that follows, or IllegalMove."""
    try:
        return TRANSITIONS[state, move]
    except KeyError:
        raise IllegalMove(f"a hold that is {state.value} cannot be: {move.value}") from None
