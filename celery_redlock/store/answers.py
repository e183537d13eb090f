"""What the scripts answer, as values of the ports.

Each reader takes what came over the wire and raises one of UNREADABLE for what no script of ours
says: another type, another number of values. Nothing of it is believed then.
"""

from __future__ import annotations

from typing import Any, List, Sequence, Tuple

from celery_redlock.core.ports import (
    AcquireAnswer,
    BeatAnswer,
    Busy,
    Closed,
    Confirm,
    Extended,
    Gone,
    Granted,
    Left,
    Queued,
    ReestablishAnswer,
    Refused,
    RenewAnswer,
    Seen,
    Unknown,
)

#: What reading an answer that is none of ours may raise.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError)

#: What is said of such an answer.
STRANGE = "an answer that is none of ours"

STATE_NAME = {"g": "granted", "c": "confirmed", "k": "kept"}

_EXTENDED = Extended()

_LEFT = {1: "holder", 2: "waiter", 0: "absent"}


def acquired(answer: List[Any]) -> AcquireAnswer:
    kind = answer[0]
    if kind == 1:
        return Granted(_number(answer[1]))
    if kind == 0:
        return _queued(answer)
    if kind == -1:
        return Closed(answer[1].decode())
    if kind not in (2, 3):
        raise ValueError("no kind of ours")
    next_ms, waiting = _number(answer[1]), _number(answer[2])
    return Busy(next_ms, _holders(answer[3:]), full=kind == 3, waiting=waiting)


def all_acquired(answers: List[Any], asked: int) -> List[AcquireAnswer]:
    """Up to the first that is not granted: at least one, and no more than were asked for."""
    if not 1 <= len(answers) <= asked:
        raise ValueError("another number of answers")
    return [acquired(answer) for answer in answers]


def asked(answer: Any, asked: int) -> List[AcquireAnswer]:
    """The answer to one ask of a batch, for one resource or several."""
    return all_acquired(answer, asked) if asked > 1 else [acquired(answer)]


def left(answer: Any) -> Left:
    return Left(_LEFT[answer])


def renewed(answer: Any) -> RenewAnswer:
    if answer == 1:
        return _EXTENDED
    return Gone() if answer == 0 else Closed(answer.decode())


def beaten(answer: List[Any]) -> BeatAnswer:
    kind = answer[0]
    if kind == 0:
        return _queued(answer)
    if kind == -1:
        return Closed(answer[1].decode())
    if kind not in (1, 2):
        raise ValueError("no kind of ours")
    return Confirm() if kind == 1 else Unknown()


def reestablished(answer: Any) -> ReestablishAnswer:
    if answer == 1:
        return Extended()
    return Refused() if answer == 0 else Closed(answer.decode())


def one_each(answers: Any, requests: Sequence[Any]) -> List[Any]:
    """The answers of a batch; an answer too few would go to another request."""
    if not isinstance(answers, list) or len(answers) != len(requests):
        raise ValueError("another number of answers")
    return answers


def _queued(answer: List[Any]) -> Queued:
    seq, rank, next_ms, at_ms = map(_number, answer[1:5])
    return Queued(seq, rank, next_ms, _holders(answer[5:]), at_ms)


def _holders(flat: List[Any]) -> Tuple[Seen, ...]:
    if len(flat) % 4:
        raise ValueError("half a holder")
    return tuple(_seen(*fields) for fields in zip(*[iter(flat)] * 4))


def _seen(token: Any, fence: Any, state: Any, record: Any) -> Seen:
    # A record may be anybody's: one that cannot be read is nobody's, and no reason to fail.
    text = record.decode(errors="replace")
    return Seen(token.decode(), _number(fence), STATE_NAME[state.decode()], text)


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError("no number")
    return value
