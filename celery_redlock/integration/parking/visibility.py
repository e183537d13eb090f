"""A Redis broker delivers again what is not acknowledged within its visibility timeout.

kombu keeps the time of each delivery in an index and never renews it. What is kept here is dated
anew four times in that while: one command for all, in the consumer's loop and on its connection. A
broker that hangs holds up the loop as any acknowledgement of Celery's own would.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Iterable, Optional

from kombu.transport import redis

from celery_redlock.integration.parking.keeping import Kept
from celery_redlock.integration.parking.loop import Alarm, Loop
from celery_redlock.observe.logs import logger

#: How often within the visibility timeout.
_TIMES = 4


class Visibility:
    """Renews what ``kept`` returns, from ``start`` to ``stop``; nothing on other brokers."""

    def __init__(self, consumer: Any, loop: Loop, kept: Callable[[], Iterable[Kept]]) -> None:
        self._consumer = consumer
        self._loop = loop
        self._kept = kept
        self._alarm: Optional[Alarm] = None

    def start(self) -> None:
        """At each start of the consumer, when it has its connection."""
        self.stop()
        channel = self._consumer.task_consumer.channel
        if isinstance(channel, redis.Channel) and channel.ack_emulation:
            self._set(float(channel.visibility_timeout) / _TIMES)

    def stop(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _set(self, interval: float) -> None:
        def again() -> None:
            try:
                self._renew()
            finally:
                self._set(interval)

        self._alarm = self._loop.later(interval, again)

    def _renew(self) -> None:
        now = time.time()
        current = [each.request for each in self._kept() if each.is_current(self._consumer)]
        tags = {request.message.delivery_tag: now for request in current}
        if not tags:
            return
        channel = self._consumer.task_consumer.channel
        try:
            with channel.conn_or_acquire() as client:
                # Only what is there: what was acknowledged must not come back.
                client.zadd(channel.unacked_index_key, tags, xx=True)
        except channel.connection_errors as problem:
            # Celery's own loop notices as well, and connects again.
            logger.warning("could not renew the messages of waiting tasks: %r", problem)
