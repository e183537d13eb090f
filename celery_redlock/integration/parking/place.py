"""The parking place: where a worker's parent keeps tasks until they have their locks.

A request that comes is kept, its message unacknowledged, and goes its way (``passage``). Here is
what concerns all of them: those that were revoked or have expired, the end of the worker, the loss
of the broker's connection.

Everything here runs in the consumer's thread (or greenlet): nothing needs a mutex, and nothing may
wait. What waits is the asker's thread; users' own code has a thread of its own.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from itertools import islice
from typing import Any, DefaultDict, List

from celery_redlock.integration.parking.aside import Aside
from celery_redlock.integration.parking.draining import look_up_often
from celery_redlock.integration.parking.giving_back import give_back, stop_consuming
from celery_redlock.integration.parking.keeping import forget, keep
from celery_redlock.integration.parking.loop import Loop
from celery_redlock.integration.parking.parked import Parked, parked_for
from celery_redlock.integration.parking.passage import Passage
from celery_redlock.integration.parking.residents import Residents
from celery_redlock.integration.parking.slots import Slots
from celery_redlock.integration.parking.visibility import Visibility
from celery_redlock.integration.request import Wait
from celery_redlock.locking.asker import Asker, Pending

#: Seconds between two looks at who was revoked or has expired.
_LOOK = 0.5

#: Of those so many are settled at a time: each costs a call of the result backend, for which the
#: worker's loop waits.
_SETTLED = 20

#: Seconds in which those that waited leave their lines when the worker ends.
_LEAVE_WITHIN = 1.0

#: So many places are remembered of tasks whose broker connection broke, and delivers them again.
_REMEMBERED = 10_000


class Place:
    """What one consumer keeps, from the start of a broker connection to its end and beyond."""

    def __init__(self, consumer: Any, loop: Loop, slots: Slots) -> None:
        self._consumer = consumer
        self._loop = loop
        self._slots = slots
        self._aside = Aside()
        self._residents = Residents()
        self._passage = Passage(consumer, loop, slots, self._residents, self._aside)
        self._visibility = Visibility(consumer, loop, lambda: [each.kept for each in self.parked])
        self._looks: Any = None
        #: What is known of tasks that waited when the connection was lost, by their ids.
        self._waited: OrderedDict[str, Wait] = OrderedDict()

    @property
    def parked(self) -> List[Parked]:
        """All that it keeps, in the order in which they came."""
        return self._residents.all

    def arrived(self, request: Any) -> None:
        """Stands for the consumer's ``on_task_request``."""
        parked = parked_for(request, self._waited.pop(request.id, None))
        if parked is None:
            self._slots.pass_through(request)
            return
        parked.kept = keep(self._consumer, request)
        self._residents.add(parked)
        self._passage.begin(parked)
        self._loop.hurry()

    def start(self) -> None:
        """The consumer has a connection to the broker."""
        self._visibility.start()
        if self._consumer.hub is None:
            look_up_often(self._consumer, lambda: self._residents.count > 0)
        if self._looks is None:
            self._looks = self._loop.later(_LOOK, self._look)

    def wake(self) -> None:
        """Have the consumer's loop run, from any thread and from a signal's handler."""
        self._loop.wake()

    def _look(self) -> None:
        """See to those that were revoked or have expired while they waited."""
        self._looks = self._loop.later(_LOOK, self._look)
        over = (parked for parked in self.parked if self._passage.is_over(parked))
        if len(list(islice(over, _SETTLED))) == _SETTLED:
            self._looks.cancel()
            self._looks = self._loop.later(0.0, self._look)
        self._passage.look_at_sent()
        # If there are too many, the last to come goes first: the others are granted before.
        for parked in reversed(self._residents.in_line):
            self._passage.send_back_if_too_much(parked)

    def close(self) -> None:
        """The worker ends: every message goes back to its queue, and nobody stays in line."""
        self._slots.close()
        # What the broker has sent by now is kept as well.
        stop_consuming(self._consumer)
        self._visibility.stop()
        self._passage.close()
        parked = self.parked
        self._drop_all()
        # The hub turns no more, and what was published again must not be there twice.
        self._loop.drain()
        give_back(self._consumer, [each.kept for each in parked])
        for asker in {each.runtime.asker for each in parked}:
            asker.wait_until_told(_LEAVE_WITHIN)
        self._aside.stop()
        self._loop.close()

    def disconnected(self) -> None:
        """The broker delivers all of them again, in any order: they keep their places."""
        lost = self.parked
        for each in lost:
            self._waited[each.request.id] = each.wait(each.call.attempt)
        while len(self._waited) > _REMEMBERED:
            self._waited.popitem(last=False)
        self._drop_all()
        self._passage.disconnected()
        for each in lost:
            forget(self._consumer, each.kept)
        self._slots.clear()

    def _drop_all(self) -> None:
        dropped = self.parked
        pendings: DefaultDict[Asker, List[Pending]] = defaultdict(list)
        for each in dropped:
            if each.pending is not None:
                pendings[each.runtime.asker].append(each.pending)
        # First: from here on nothing is granted, and what was is seen by each in turn.
        for asker, its in pendings.items():
            asker.cancel_all(its)
        for each in dropped:
            each.pending = None
            self._passage.drop(each)
