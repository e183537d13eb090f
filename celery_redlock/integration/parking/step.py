"""The consumer's bootstep that opens the parking place."""

from __future__ import annotations

from typing import Any, Optional
from weakref import WeakKeyDictionary

from celery import bootsteps
from celery.signals import worker_shutting_down

from celery_redlock.integration.parking.loop import Loop
from celery_redlock.integration.parking.place import Place
from celery_redlock.integration.parking.pools import slots_of

_places: WeakKeyDictionary[Any, Place] = WeakKeyDictionary()


def place_of(consumer: Any) -> Optional[Place]:
    """The parking place of a worker's consumer; None where tasks wait in their slots."""
    return _places.get(consumer)


class ParkTasks(bootsteps.StartStopStep):  # type: ignore[misc]
    """Has a worker keep tasks in its parent until they have their locks.

    Not where that is of no use (a solo pool has its one slot in the parent) or cannot be (nobody
    may touch the consumer meanwhile): there a task waits in the slot that it has.
    """

    name = "celery_redlock.ParkTasks"
    # Stopped before the consumer of the tasks is.
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._loop = Loop.for_consumer(consumer)
        self._place = self._open(consumer) if self._loop is not None else None

    def _open(self, consumer: Any) -> Optional[Place]:
        assert self._loop is not None
        # The tasks' strategies take it from the consumer later.
        slots = slots_of(consumer, self._loop, consumer.on_task_request)
        if slots is None:
            self._loop.close()
            return None
        place = _places[consumer] = Place(consumer, self._loop, slots)
        consumer.on_task_request = place.arrived
        return place

    def include_if(self, consumer: Any) -> bool:
        return self._place is not None

    def start(self, consumer: Any) -> None:
        """A connection to the broker stands."""
        assert self._place is not None
        self._place.start()

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        assert self._loop is not None
        self._loop.register(hub)

    def stop(self, consumer: Any) -> None:
        """The connection is lost, or the worker ends."""
        assert self._place is not None
        if consumer.blueprint.state == bootsteps.RUN:
            self._place.disconnected()
        else:
            self._place.close()


def _wake(**_more: Any) -> None:
    """The worker notices a signal to end when its loop wakes: that is now."""
    for place in list(_places.values()):
        place.wake()


worker_shutting_down.connect(_wake, weak=False, dispatch_uid="celery_redlock.parking")
