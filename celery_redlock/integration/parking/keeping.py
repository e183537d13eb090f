"""A request kept in the worker's parent: neither reserved for the pool nor acknowledged.

Celery is told what it is told of a task with an ETA. One that waits for nothing but a slot counts
among what the worker may fetch, as with Celery alone: the rest is for other workers. For one that
waits for its lock another may be fetched, so that the rest of the queue goes on; what was changed
is remembered with the request and undone once.

Quorum queues take no new prefetch count while they are consumed. There a worker that keeps most of
what it may have fetched cancels its consumer and consumes anew: what it has stays its own, and the
broker counts from nought.

A broker connection that is lost takes its messages with it, and the broker delivers them again.
What was kept of the old connection must be neither acknowledged nor rejected: on Redis the copy has
the same delivery tag, and that acknowledgement would delete it.
"""

from __future__ import annotations

from typing import Any, MutableMapping, Optional
from weakref import WeakKeyDictionary

from celery.worker import state

from celery_redlock.observe.logs import logger

try:
    from celery.utils.quorum_queues import detect_quorum_queues
except ImportError:  # Celery 5.4 and older, which cannot consume from quorum queues
    detect_quorum_queues = None


class Kept:
    """A request that is kept, and what was changed at its consumer for it."""

    __slots__ = ("_connection", "_has_made_room", "_prefetched", "_qos", "queue", "request")

    def __init__(self, consumer: Any, request: Any) -> None:
        self.request = request
        #: The queue that it came from, where the transport tells.
        self.queue = _queue_of(consumer, request.message)
        self._connection = consumer.connection
        self._qos = consumer.qos
        self._has_made_room = False
        self._prefetched = 0

    def is_current(self, consumer: Any) -> bool:
        """Whether its message may still be settled: the connection is the one that it came by."""
        return consumer.connection is not None and consumer.connection is self._connection

    def make_room(self, consumer: Any) -> None:
        """Fetch one more, for this one is in for a wait; once.

        The count leaves when the loop turns next: outside of it call something in it.
        """
        if self._has_made_room:
            return
        self._has_made_room = True
        before = self._qos.value
        self._prefetched = self._qos.increment_eventually() - before
        _windows.kept_one(consumer)

    def restore_prefetch(self) -> None:
        """Fetch no more in its place; once."""
        prefetched, self._prefetched = self._prefetched, 0
        if prefetched:
            self._qos.decrement_eventually(prefetched)


def keep(consumer: Any, request: Any) -> Kept:
    """Keep a request that Celery has just reserved. Its message stays unacknowledged."""
    kept = Kept(consumer, request)
    state.reserved_requests.discard(request)
    if hasattr(state, "task_scheduled"):
        state.task_scheduled(request)
    return kept


def wants_slot(consumer: Any, kept: Kept) -> None:
    """It could run and finds no slot: the autoscaler may see to that."""
    state.reserved_requests.add(kept.request)
    for callback in consumer.on_task_message:
        callback(kept.request)


def wants_none(consumer: Any, kept: Kept) -> None:
    """It waits for its lock, and needs no slot until it has it."""
    state.reserved_requests.discard(kept.request)
    kept.make_room(consumer)


def let_go(consumer: Any, kept: Kept) -> None:
    """The request goes to the pool now: it is reserved again, and the autoscaler sees it."""
    state.task_reserved(kept.request)
    for callback in consumer.on_task_message:
        callback(kept.request)
    kept.restore_prefetch()


def forget(consumer: Any, kept: Kept) -> None:
    """The request is over here: revoked, sent elsewhere, given back, or lost with its connection.

    Another request with its id, its own copy, is not touched.
    """
    request = kept.request
    if state.requests.get(request.id) is request:
        state.task_ready(request)
    else:
        state.reserved_requests.discard(request)
        state.active_requests.discard(request)
        getattr(state, "scheduled_requests", set()).discard(request)
    kept.restore_prefetch()


def is_revoked(request: Any) -> bool:
    """Whether it is revoked or has expired; if so Celery has settled it, and its message."""
    try:
        return bool(request.revoked())
    except Exception:  # noqa: BLE001 - each backend has errors of its own
        # It is revoked, and the note of it could not be made: as when Celery asks it.
        logger.exception("could not record that %s was revoked", request.id)
        return True


def _queue_of(consumer: Any, message: Any) -> Optional[str]:
    tag = (message.delivery_info or {}).get("consumer_tag")
    for queue, its_tag in consumer.task_consumer._active_tags.items():
        if its_tag == tag:
            return str(queue)
    return None


class _Windows:
    """How much of what may be fetched at a time is kept, where that cannot be raised."""

    def __init__(self) -> None:
        #: By Celery's task consumer, which is another one after each loss of the connection.
        self._kept: MutableMapping[Any, int] = WeakKeyDictionary()

    def kept_one(self, consumer: Any) -> None:
        fetched_by = consumer.task_consumer
        if fetched_by not in self._kept and not _has_fixed_prefetch(consumer):
            return
        kept = self._kept[fetched_by] = self._kept.get(fetched_by, 0) + 1
        size = consumer.initial_prefetch_count
        # As much as the pool can run at a time stays open.
        if size and kept >= max(1, size - consumer.pool.num_processes):
            self._kept[fetched_by] = 0
            # Not in here: this may be the delivery of a message of this very consumer.
            consumer.call_soon(_consume_anew, consumer, fetched_by)


def _consume_anew(consumer: Any, fetched_by: Any) -> None:
    if consumer.task_consumer is fetched_by:
        fetched_by.cancel()
        fetched_by.consume()


def _has_fixed_prefetch(consumer: Any) -> bool:
    if detect_quorum_queues is None or not consumer.app.conf.worker_detect_quorum_queues:
        return False
    driver = consumer.connection.transport.driver_type
    return bool(detect_quorum_queues(consumer.app, driver)[0])


_windows = _Windows()
