"""A message that may not stay unacknowledged any longer is sent once more, to come after a delay.

It is copied as it came, body, headers and properties: all that Celery has put into it, the canvas,
the retries, stamps and limits, comes through untouched, and no hook of publishing runs. New are the
``eta`` and a header of ours that says since when it waits, with its places in line.

The copy is published in a thread, and confirmed by the broker, before the original is acknowledged
in the consumer's loop. A crash in between leaves two copies and never none; the second finds out as
any redelivery does.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from queue import Empty, Queue
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional

from celery_redlock.integration.parking.keeping import Kept, forget
from celery_redlock.integration.parking.loop import Loop
from celery_redlock.observe.logs import logger

#: Seconds that the thread waits for another message before it closes its connection.
_LINGER = 1.0

#: Seconds that the broker may take for one message.
_WITHIN = 10.0

#: Seconds that a worker that ends waits for the message that is being published: should it come
#: later, it is there twice.
_CLOSE_WITHIN = 2.0

#: What of a message's properties is the sender's and not the transport's.
_PROPERTIES = ("correlation_id", "reply_to", "message_id", "timestamp", "type", "app_id")


class Copy(NamedTuple):
    """What is published instead of a message."""

    queue: str
    body: Any
    options: Mapping[str, Any]

    @classmethod
    def of(cls, message: Any, queue: str, delay: float, headers: Mapping[str, Any]) -> Copy:
        given, own = message.properties or {}, dict(message.headers)
        eta = datetime.now(timezone.utc) + timedelta(seconds=delay)
        # The body is decompressed: kombu names what it is compressed with once more.
        options: Dict[str, Any] = {
            "content_type": message.content_type,
            "content_encoding": message.content_encoding,
            "compression": own.pop("compression", None),
            "headers": {**own, **headers, "eta": eta.isoformat()},
            "priority": given.get("priority") or 0,
            "delivery_mode": given.get("delivery_mode"),
        }
        if given.get("expiration"):
            options["expiration"] = int(given["expiration"]) / 1000
        options.update((name, given[name]) for name in _PROPERTIES if given.get(name) is not None)
        return cls(queue, message.body, options)


class Job(NamedTuple):
    copy: Copy
    done: Callable[[bool], None]


class Republisher:
    """Publishes from a thread of its own, which ends when there is nothing to do."""

    def __init__(self, consumer: Any, loop: Loop) -> None:
        self._consumer = consumer
        self._loop = loop
        #: None has the thread end.
        self._jobs: Queue[Optional[Job]] = Queue()
        self._mutex = threading.Lock()
        self._thread: Optional[threading.Thread] = None

    def republish(
        self,
        kept: Kept,
        delay: float,
        headers: Mapping[str, Any],
        done: Callable[[bool], None],
    ) -> bool:
        """Send it once more, to be received after ``delay`` seconds with these headers as well.

        Whether it can be: not without its queue, nor in Celery's first message protocol, nor what
        was broadcast over Redis, where nobody takes anything out of such a queue. Then ``done`` is
        called in the loop, with True when the original is settled and forgotten, and with False
        when it must stay kept: the broker did not take the copy.
        """
        message = kept.request.message
        queue = kept.queue or _queue_by_route(self._consumer, message)
        if queue is None or "id" not in message.headers:
            return False
        if queue in getattr(message.channel, "_fanout_queues", ()):
            return False

        def settle(is_published: bool) -> None:
            if is_published:
                self._settle(kept)
            done(is_published)

        copy = Copy.of(message, queue, delay, headers)
        self._jobs.put(Job(copy, lambda is_published: self._loop.call(settle, is_published)))
        with self._mutex:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="redlock-republish", daemon=True
                )
                self._thread.start()
        return True

    def close(self) -> None:
        """Publish nothing more; waits for the message that is being published.

        Its ``done``, and that of those that were not published, are then called in the loop.
        """
        with self._mutex:
            thread = self._thread
        if thread is not None:
            self._fail_all()
            self._jobs.put(None)
            thread.join(_CLOSE_WITHIN)

    def _settle(self, kept: Kept) -> None:
        if kept.is_current(self._consumer):
            kept.request.acknowledge()
        # Else it comes again from a lost connection, and beside its copy.
        forget(self._consumer, kept)

    def _run(self) -> None:
        while True:
            self._publish_all()
            with self._mutex:
                if self._jobs.empty():
                    self._thread = None
                    return

    def _publish_all(self) -> None:
        job: Optional[Job] = None
        try:
            with self._connection() as connection:
                producer = self._consumer.app.amqp.Producer(connection, auto_declare=False)
                while True:
                    job = self._jobs.get(timeout=_LINGER)
                    if job is None:
                        return
                    _publish(producer, job.copy)
                    job.done(True)
        except Empty:
            return
        except Exception as problem:  # noqa: BLE001 - each transport has errors of its own
            logger.warning("could not send waiting tasks back to their queue: %r", problem)
            if job is not None:
                job.done(False)
            self._fail_all()

    def _fail_all(self) -> None:
        with suppress(Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    job.done(False)

    def _connection(self) -> Any:
        app = self._consumer.app
        is_redis = app.connection_for_write().transport.driver_type == "redis"
        # Redis confirms by its answer, and kombu would wait for that without end.
        options = {"socket_timeout": _WITHIN} if is_redis else {"confirm_publish": True}
        return app.connection_for_write(transport_options=options)


def _publish(producer: Any, copy: Copy) -> None:
    options = {name: value for name, value in copy.options.items() if value is not None}
    if producer.connection.transport.driver_type == "amqp":
        # A queue that was deleted meanwhile is an error, and no silent loss.
        options["mandatory"] = True
    producer.publish(copy.body, exchange="", routing_key=copy.queue, **options)


def _queue_by_route(consumer: Any, message: Any) -> Optional[str]:
    """For transports that do not tell: of the queues that the message went to one we consume."""
    lookup = getattr(message.channel, "_lookup", None)
    if lookup is None:
        return None
    came = message.delivery_info
    queues = lookup(came.get("exchange", ""), came.get("routing_key", ""))
    return next((q for q in queues if consumer.task_consumer.consuming_from(q)), None)
