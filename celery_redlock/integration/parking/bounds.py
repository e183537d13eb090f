"""How many tasks a worker keeps, and for how long; what is beyond goes back to the queue whole.

It is published again to come after a pause, and the original acknowledged once the broker has the
copy. Out of line meanwhile, it comes back to the place that it had.
"""

from __future__ import annotations

import random
import time
from typing import Any, Callable, Optional

from celery_redlock.core.policy import retry_countdown
from celery_redlock.integration.call import WAIT
from celery_redlock.integration.parking.loop import Loop
from celery_redlock.integration.parking.parked import Parked
from celery_redlock.integration.parking.republishing import Republisher

#: The longest a message stays unacknowledged in seconds, where neither the setting nor the broker
#: says.
_LONGEST = 600.0

#: Transports that deliver again what is not acknowledged within their ``visibility_timeout``, and
#: that timeout where nothing is said.
_VISIBILITY = {"redis": 3600.0, "sqs": 1800.0}

#: Seconds until the broker is asked again to take what it has refused.
_REFUSED_FOR = 5.0


class Bounds:
    """Of one consumer's parking place."""

    def __init__(self, consumer: Any, loop: Loop) -> None:
        self._consumer = consumer
        self._republisher = Republisher(consumer, loop)
        self._refused_until = 0.0
        self._longest: Optional[float] = None

    def are_exceeded(self, parked: Parked, in_line: int) -> bool:
        """Whether one that waits in line must go, with so many of them in all."""
        if time.monotonic() < self._refused_until:
            return False
        settings = parked.runtime.settings
        if in_line > settings.max_parked:
            return True
        return parked.kept_for > (settings.max_park or self._longest_here)

    def send_back(self, parked: Parked, done: Callable[[bool], None]) -> bool:
        """Publish it again; whether that can be. ``done`` as of ``Republisher.republish``."""
        attempt = parked.call.attempt + 1
        # Back in time for what ends its wait here. Meanwhile it is a task with an ETA, which is not
        # acknowledged either, and which nobody dates anew.
        longest = min(parked.left, self._longest_here)
        pause = min(retry_countdown(attempt, random.random), longest)
        headers = {WAIT: parked.wait(attempt)}

        def is_done(is_sent: bool) -> None:
            if not is_sent:
                # It stands in line meanwhile, with all that would go as well.
                self._refused_until = time.monotonic() + _REFUSED_FOR
            done(is_sent)

        return self._republisher.republish(parked.kept, pause, headers, is_done)

    def close(self) -> None:
        """Send nothing back any more; what was sent is settled when the loop turns next."""
        self._republisher.close()

    @property
    def _longest_here(self) -> float:
        """Asked of everybody in line at every look, and the same for the life of the consumer."""
        if self._longest is None:
            self._longest = self._learn_longest()
        return self._longest

    def _learn_longest(self) -> float:
        driver = self._consumer.connection.transport.driver_type
        if driver not in _VISIBILITY:
            return _LONGEST
        options = self._consumer.app.conf.broker_transport_options or {}
        return float(options.get("visibility_timeout", _VISIBILITY[driver])) / 2
