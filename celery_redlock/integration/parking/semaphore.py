"""Slots of a prefork pool: a ticket in the line of Celery's own semaphore for each who waits.

The tasks that need no lock stand in that line already, and go their usual way. Tickets are all
alike: the first of them that is granted serves the first of our line.

A unit of the semaphore is no proof of an idle process: its value is too high after a connection was
lost (it is reset while bodies run), a child was replaced or the pool has grown, and a unit is
released before the job that held it has left the books. So a granted unit is looked at in the next
turn of the loop, and serves nobody unless a process is idle. Otherwise it is laid aside, its ticket
goes back to the head of the line, and the next end of a job serves it. What was laid aside by
mistake, because a child was just being replaced, is released when the idle process is seen.

A unit may be borrowed before it is there: its job waits in the pool's own buffer, and the next unit
that is released is not granted to anybody. Not where the pool writes jobs to processes that are
busy (``-O fast``): it might wait behind a long body. Nor where processes end after a number of
tasks: one that is ending would be given the job, and Celery takes seconds to notice.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Deque, List

from celery.concurrency.asynpool import SCHED_STRATEGY_FAIR

from celery_redlock.integration.parking.loop import Loop
from celery_redlock.integration.parking.slots import Slots, Submit, Turn


class PreforkSlots(Slots):
    def __init__(self, consumer: Any, loop: Loop, submit: Submit) -> None:
        super().__init__(consumer, loop, submit)
        self._line: Deque[Turn] = deque()
        #: Units that were granted and not looked at, and those that no idle process stands behind.
        self._granted = 0
        self._aside = 0
        #: A unit that was borrowed and has not come back.
        self._is_in_debt = False
        self._semaphore = consumer.controller.semaphore
        self._clear: Callable[[], None] = self._semaphore.clear
        self._semaphore.clear = self._cleared

    def take(self, callback: Callable[[], None], first: bool = False) -> Turn:
        turn = Turn(self, callback)
        if first:
            self._line.appendleft(turn)
        else:
            self._line.append(turn)
        self._ask(first)
        return turn

    def borrow(self) -> bool:
        if self._is_in_debt or self._semaphore.value > 0 or not _waits_for_idle(self._pool):
            return False
        self._is_in_debt = True
        self._reserved += 1
        self._ask(first=True)
        return True

    def pass_through(self, request: Any) -> None:
        self._submit(request)

    def give_back(self) -> None:
        self._reserved -= 1
        self._semaphore.release()

    def run(self, request: Any) -> None:
        self._reserved -= 1
        # Whoever else stands in Celery's way into the pool is asked as well; the unit is taken
        # again in there, before anybody else can have it.
        self._semaphore.value += 1
        self._submit(request)
        # The pool looks for what it is to write to its processes when the hub is about to poll: at
        # that very moment it may have looked already.
        self._loop.turn_again()

    def job_of(self, request: Any) -> Any:
        result = request._apply_result
        return result and result()

    def take_back(self, job: Any, is_wanted: Callable[[], bool]) -> bool:
        buffer = self._pool.outbound_buffer
        if job not in buffer or not is_wanted():
            return False
        buffer.remove(job)
        job.discard()
        if self._is_in_debt:
            self._is_in_debt = False
            del self._semaphore._waiting[self._places_of_tickets()[0]]
        else:
            self._semaphore.release()
        return True

    def is_discarded(self, job: Any) -> bool:
        # Celery clears the buffer of what it has not begun to write to a process.
        return job is not None and job._write_to is None and not job._accepted

    def clear(self) -> None:
        self._line.clear()

    def leave(self, turn: Turn) -> None:
        if turn in self._line:
            place = self._line.index(turn)
            self._line.remove(turn)
            self._withdraw(place)

    # --- tickets

    def _ask(self, first: bool = False) -> None:
        """One ticket more, for whoever of our line is first when it is granted."""
        if first and self._semaphore.value <= 0:
            self._semaphore._waiting.appendleft((self._grant, (), {}))
        else:
            self._semaphore.acquire(self._grant)

    def _withdraw(self, place: int) -> None:
        """Of the tickets the one that stands where this place in our line was.

        One that is granted already serves the next in line, or is released for want of one.
        """
        tickets = self._tickets()
        ahead = len(self._line) + 1 - len(tickets)
        if 0 <= place - ahead < len(tickets):
            del self._semaphore._waiting[tickets[place - ahead]]

    def _tickets(self) -> List[int]:
        """Where in the semaphore's line ours stand, without the one that settles a debt."""
        ours = self._places_of_tickets()
        return ours[1:] if self._is_in_debt else ours

    def _places_of_tickets(self) -> List[int]:
        waiting = self._semaphore._waiting
        return [place for place, ticket in enumerate(waiting) if ticket[0] == self._grant]

    def _grant(self) -> None:
        if self._is_in_debt:
            self._is_in_debt = False
            return
        self._granted += 1
        self._loop.call_next(self._look)

    def _look(self) -> None:
        self._bring_back()
        while self._granted:
            if not self._line:
                self._granted -= 1
                self._semaphore.release()
            elif self._idle() > 0:
                self._granted -= 1
                self._serve(self._line.popleft())
            else:
                self._granted -= 1
                self._aside += 1
                self._semaphore._waiting.appendleft((self._grant, (), {}))
        if self._aside or self._line:
            self._look_later()

    def _bring_back(self) -> None:
        """Release what was laid aside by mistake: there are more idle processes than units."""
        semaphore = self._semaphore
        while self._aside and self._idle() - self._granted - semaphore.value > 0:
            self._aside -= 1
            semaphore.release()

    def _idle(self) -> int:
        """Processes without a job that are not promised to anybody."""
        return len(self._pool._pool) - len(self._pool._cache) - self._reserved

    @property
    def _pool(self) -> Any:
        """billiard's, which is there when the pool has started."""
        return self._consumer.pool._pool

    def _cleared(self) -> None:
        """Stands for the semaphore's ``clear``: all tickets are lost, and all units are back."""
        self._clear()
        self._granted = self._aside = 0
        self._is_in_debt = False
        self._loop.call(self._ask_again)

    def _ask_again(self) -> None:
        for _ in range(len(self._line) - self._granted - len(self._tickets())):
            self._ask()


def _waits_for_idle(pool: Any) -> bool:
    """Whether what is put into a busy pool goes to a process that is idle, and stays so."""
    ends = pool._maxtasksperchild or pool._max_memory_per_child
    return pool.sched_strategy == SCHED_STRATEGY_FAIR and not ends
