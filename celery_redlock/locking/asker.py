"""The asker: one thread a process that asks for any number of holds at once.

Whatever is to be sent at a moment goes out in one batch, so a round trip is paid once and not by
each ask; none of them blocks the thread, or has one of its own. Who is not granted stands in line,
where nothing is sent for it but the watchdog's heartbeats, until its release wakes it.

What is granted to one in line needs a slot to run in, which only its owner can give: so it is told,
and asks when its owner says so (``Pending.go_on``), never by itself.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from functools import partial
from typing import (
    Callable,
    Deque,
    Dict,
    Iterable,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
    Union,
)

from celery_redlock.core import events
from celery_redlock.core.lifecycle import Move, State
from celery_redlock.core.ports import Leave, LeaveAnswer, NoAnswer, ResourceView
from celery_redlock.locking import native, process
from celery_redlock.locking.ask import Ask
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import QUICK, Manager
from celery_redlock.locking.outcomes import Cancelled, Patience
from celery_redlock.locking.pending import Ended, Listener, Pending
from celery_redlock.locking.steps import Send, Step

#: Asks in one batch: more would stall the server's other clients.
BATCH = 100

#: Looks that are less urgent than this come together, on the same beat.
_BEAT = 0.75

Part = TypeVar("Part")
Answer = TypeVar("Answer")


class Farewell(NamedTuple):
    hold: Optional[Hold]
    request: Leave
    then: Callable[[LeaveAnswer], None]


class Asker:
    """Starts its thread at the first ask. Thread-safe; after a fork the child starts with none."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self._store = manager.background
        self.after_fork()
        process.join(self)

    def after_fork(self) -> None:
        self._posted: Deque[Callable[[], None]] = deque()
        self._asks: Deque[Tuple[Pending, Send]] = deque()
        self._farewells: Deque[Farewell] = deque()
        self._looks: List[Tuple[float, int, Pending, Step]] = []
        self._pendings: Set[Pending] = set()
        self._awaited: List[native.Signal] = []
        self._is_used = False
        self._numbers = itertools.count()
        self._signal = native.Signal()
        self._starting = native.mutex()

    # --- called by owners

    def ask(
        self,
        holds: Sequence[Hold],
        patience: Optional[Patience],
        listener: Listener,
        *,
        began: Optional[float] = None,
    ) -> Pending:
        """Ask for new holds, as ``Manager.acquire_all`` does; ``listener`` is told what happens.

        Returns at once. The first ask may be granted and then needs a slot. A hold whose ``seq`` is
        given takes that place in line; ``began`` is when its first wait began, on the manager's
        clock.
        """
        self._start()
        self._is_used = True
        for hold in holds:
            hold.move(Move.ASKED)
        ask = partial(Ask, self.manager, holds, patience, polls=False, began=began)
        pending = Pending(self, holds, listener, ask)
        self.post(partial(self._begin, pending))
        return pending

    def cancel_all(self, pendings: Iterable[Pending]) -> None:
        """``Pending.cancel`` for each, in one batch."""
        self.post(partial(self._cancel, [each for each in pendings if each.withdraws(Cancelled)]))

    def wait_until_told(self, within: float) -> None:
        """Wait so long at most until the server has been told of all that was cancelled.

        What it has not heard by then ends with its lease, or with its silence in line.
        """
        if self._is_used:
            told = native.Signal()
            self.post(partial(self._awaited.append, told))
            told.wait(within)

    def post(self, call: Callable[[], None]) -> None:
        self._posted.append(call)
        self._signal.set()

    def post_idly(self, call: Callable[[], None]) -> None:
        self._posted.append(call)

    @property
    def is_idle(self) -> bool:
        """Nothing pending, and nothing to be sent."""
        return not (self._posted or self._pendings or self._asks or self._farewells)

    # --- what pending asks have done for them, in its thread

    def send(self, pending: Pending, send: Send) -> None:
        self._asks.append((pending, send))

    def leave(
        self, hold: Optional[Hold], request: Leave, then: Callable[[LeaveAnswer], None]
    ) -> None:
        self._farewells.append(Farewell(hold, request, then))

    def look_in(self, pending: Pending, step: Step, seconds: float) -> None:
        due = self.manager.clock() + seconds
        if seconds >= _BEAT:
            due = math.floor(due / _BEAT) * _BEAT
        heapq.heappush(self._looks, (due, next(self._numbers), pending, step))

    def see(self, resource: str) -> ResourceView:
        return self._store.inspect(resource)

    def stands_still(self) -> None:
        for pending in list(self._pendings):
            pending.stand_back_by_itself()

    def closed(self, pending: Pending) -> None:
        self._pendings.discard(pending)

    def failed(self, error: Exception) -> None:
        self.manager.emit(events.WatchdogFailed(error))

    # --- its thread

    def _start(self) -> None:
        if not self._starting.locked():
            native.start_thread(self._run)

    def _run(self) -> None:
        # Taken by the thread, for as long as it lives: see the watchdog's.
        if not self._starting.acquire(False):
            return
        signal = self._signal
        while signal is self._signal:
            signal.wait(self._until_look())
            try:
                self.round()
            except Exception as error:  # noqa: BLE001 - a fault must not end every wait
                self.failed(error)
                signal.wait(0.1)

    def _until_look(self) -> float:
        return self._looks[0][0] - self.manager.clock() if self._looks else math.inf

    def round(self) -> None:
        """Do everything that is to be done now."""
        while True:
            self._do_posted()
            self._do_looks()
            if self._farewells:
                self._send_farewells()
            if self._asks:
                self._send_asks()
            if not (self._posted or self._farewells or self._asks):
                break
        if self._awaited and not any(pending.is_cancelled for pending in self._pendings):
            while self._awaited:
                self._awaited.pop().set()

    def _do_posted(self) -> None:
        while self._posted:
            self._safely(self._posted.popleft())

    def _do_looks(self) -> None:
        now = self.manager.clock()
        while self._looks and self._looks[0][0] <= now:
            _due, _number, pending, step = heapq.heappop(self._looks)
            self._safely(partial(pending.look, step))

    def _begin(self, pending: Pending) -> None:
        self._pendings.add(pending)
        pending.begin()

    def _cancel(self, pendings: Sequence[Pending]) -> None:
        for pending in pendings:
            pending.withdraw()

    def _safely(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - the others are to go on
            self.failed(error)

    # --- batches

    def _send_asks(self) -> None:
        batch = [each for each in _take(self._asks) if each[0].is_asking]
        for pending, _send in batch:
            pending.sending()
        requests = [send.requests for _pending, send in batch]
        holds = [send.holds for _pending, send in batch]
        answers = self._twice(self._store.acquire_batch, requests, holds)
        for (pending, _send), (answer, sent_at) in zip(batch, answers):
            if isinstance(answer, Exception):
                self._safely(partial(pending.unanswered, answer))
            else:
                self._safely(partial(pending.answered, (answer, sent_at)))

    def _send_farewells(self) -> None:
        calls = _in_one_call_each(_take(self._farewells, len(self._farewells)))
        for start in range(0, len(calls), BATCH):
            self._send_leaves(calls[start : start + BATCH])

    def _send_leaves(self, calls: Sequence[Sequence[Farewell]]) -> None:
        requests = [_joined([farewell.request for farewell in call]) for call in calls]
        holds = [[each.hold for each in call if each.hold is not None] for call in calls]
        answers = self._twice(self._store.leave_batch, requests, holds)
        for call, (answer, _sent_at) in zip(calls, answers):
            for farewell in call:
                self._safely(partial(farewell.then, answer))

    def _twice(
        self,
        call: Callable[[Sequence[Part]], Sequence[Union[Answer, NoAnswer]]],
        parts: Sequence[Part],
        holds: Sequence[Sequence[Hold]],
    ) -> List[Tuple[Union[Answer, NoAnswer], float]]:
        """As ``Manager.twice``, for a batch: a quick silence is asked again at once."""
        sent_at = self.manager.clock()
        answers = [(answer, sent_at) for answer in call(parts)]
        silent = _taint(answers, holds)
        again_at = self.manager.clock()
        if silent and again_at - sent_at <= QUICK:
            again = call([parts[at] for at in silent])
            for at, answer in zip(silent, again):
                answers[at] = (answer, again_at)
            _taint(answers, holds)
        return answers


def _take(queue: Deque[Part], most: int = BATCH) -> List[Part]:
    return [queue.popleft() for _ in range(min(most, len(queue)))]


def _in_one_call_each(farewells: Sequence[Farewell]) -> List[Sequence[Farewell]]:
    """All who leave one line leave it in one call: else each would pass the lock to the next.
    Not more of them than stall the server, though.

    Of a call the answer is that for its first token: who held something is told his own, by a call
    that comes after those that leave its line.
    """
    lines: Dict[Leave, List[Farewell]] = {}
    others: List[Sequence[Farewell]] = []
    for farewell in farewells:
        if farewell.hold is not None and farewell.hold.state is State.QUEUED:
            lines.setdefault(farewell.request._replace(tokens=()), []).append(farewell)
        else:
            others.append([farewell])
    crowds = [
        crowd[start : start + BATCH]
        for crowd in lines.values()
        for start in range(0, len(crowd), BATCH)
    ]
    return [*crowds, *others]


def _joined(requests: Sequence[Leave]) -> Leave:
    tokens = dict.fromkeys(token for request in requests for token in request.tokens)
    return requests[0]._replace(tokens=tuple(tokens))


def _taint(
    answers: Sequence[Tuple[Union[Answer, NoAnswer], float]], holds: Sequence[Sequence[Hold]]
) -> List[int]:
    """Which of the answers are silences; what they may have left behind is noted."""
    silent: List[int] = []
    for at, (answer, _sent_at) in enumerate(answers):
        if isinstance(answer, NoAnswer):
            silent.append(at)
            for hold in holds[at]:
                hold.tainted = hold.tainted or answer.may_run
    return silent


__all__ = ["Asker", "Ended", "Listener", "Pending"]
