"""One server's resources as they are seen: one of them, or all by a walk over its keys.

A walk is SCAN, never KEYS, and looks at what each step finds before it goes on: what remains of a
million resources costs time and no memory, and stalls nobody.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Iterator, List, Optional, Sequence, Tuple, Union

from redis.exceptions import ResponseError

from celery_redlock.core.ports import HolderView, NoAnswer, ResourceView, WaiterView
from celery_redlock.store.answers import STATE_NAME, STRANGE, UNREADABLE
from celery_redlock.store.connections import Connections
from celery_redlock.store.frames import INSPECT, Frames
from celery_redlock.store.link import reason
from celery_redlock.store.scripts import command
from celery_redlock.store.tombs import latest_forced

_MODE_NAME = {"x": "exclusive", "s": "shared"}

#: The scripts count in floating point: no time and no fence of theirs is greater.
_GREATEST = 2**53


def survey(
    connections: Connections, frames: Frames, pattern: str
) -> Iterator[Sequence[Tuple[str, ResourceView]]]:
    """See ``core.ports.Store.survey``. Entries that no version of ours wrote are passed over."""
    try:
        yield from _walk(connections, frames, pattern)
    except UNREADABLE as error:
        raise NoAnswer(f"{connections.name} ({STRANGE})", may_run=False) from error


def _walk(
    connections: Connections, frames: Frames, pattern: str
) -> Iterator[Sequence[Tuple[str, ResourceView]]]:
    cursor = "0"
    while True:
        (step,) = connections.read([frames.scan(cursor)])
        if isinstance(step, ResponseError):
            raise NoAnswer(f"{connections.name} ({reason(step)})", may_run=False) from step
        cursor = step[0].decode()
        keys = _candidates(connections, [key.decode() for key in step[1] if _is_text(key)])
        names = dict.fromkeys(frames.resource_of(key) for key in keys)
        wanted = [name for name in names if fnmatchcase(name, pattern)]
        looks = [frames.inspect(name) for name in wanted]
        answers = connections.read(looks, INSPECT) if looks else []
        seen = ((name, _readable(answer)) for name, answer in zip(wanted, answers))
        yield [(name, found) for name, found in seen if found is not None]
        if cursor == "0":
            return


def _candidates(connections: Connections, keys: List[str]) -> List[str]:
    """Without what has only its fence left: of a million arguments that is nearly all."""
    lines = [key for key in keys if key.endswith("q")]
    holders = [key for key in keys if key.endswith("h")]
    sizes = connections.read([command("HLEN", key) for key in holders]) if holders else []
    # A holder never stands alone: the fence that it was granted, or came back with, is beside it.
    held = (key for key, size in zip(holders, sizes) if isinstance(size, int) and size > 1)
    return [*lines, *held]


def _is_text(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


def _readable(answer: Any) -> Optional[ResourceView]:
    try:
        return view(*answer)
    except UNREADABLE:
        return None


def view(
    clock: List[bytes], held: List[bytes], line: List[bytes], waiters: List[bytes]
) -> ResourceView:
    """The answer of the inspect script as a value."""
    now = int(clock[0]) * 1000 + int(clock[1]) // 1000
    fields = {held[i].decode(): held[i + 1].decode() for i in range(0, len(held), 2)}
    records = {waiters[i]: waiters[i + 1].decode() for i in range(0, len(waiters), 2)}
    holders = []
    for field, value in fields.items():
        if field.startswith("h:"):
            deadline, fence, mode, limit, state, _kept, record = value.split("|", 6)
            holders.append(
                HolderView(
                    token=field[2:],
                    fence=_number(fence),
                    mode=_MODE_NAME[mode],
                    limit=int(limit),
                    state=STATE_NAME[state],
                    remaining_ms=_number(deadline) - now,
                    record=record,
                )
            )
    return ResourceView(
        fence=_number(fields.get("f", "0")),
        holders=tuple(sorted(holders, key=lambda holder: holder.fence)),
        waiters=tuple(
            _waiter(line[i], line[i + 1], records.get(line[i], "0|x|1|0||"), now)
            for i in range(0, len(line), 2)
        ),
        forced=latest_forced(
            (_number(expiry) - now, why)
            for expiry, _, why in (
                value.partition("|") for field, value in fields.items() if field.startswith("x:")
            )
        ),
    )


def _waiter(token: bytes, seq: bytes, value: str, now: int) -> WaiterView:
    deadline, _mode, _limit, _grant, _inbox, record = value.split("|", 5)
    return WaiterView(token.decode(), _number(float(seq)), _number(deadline) - now, record)


def _number(told: Union[str, float]) -> int:
    number = int(told)
    if abs(number) > _GREATEST:
        raise ValueError("more than the scripts count to")
    return number
