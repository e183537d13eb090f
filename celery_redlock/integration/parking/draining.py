"""How long a worker without an event loop waits for messages before it looks up.

On gevent and eventlet Celery's consumer waits for two seconds at a time, and says only in between
how many messages it may be sent. A task that waits for its lock makes room for one more, which
would come as late as that; so while tasks are kept here the consumer looks up more often.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

#: Seconds.
_OFTEN = 0.1


def look_up_often(consumer: Any, is_keeping: Callable[[], bool]) -> None:
    """For each connection to the broker, before it is waited on."""
    connection = consumer.connection
    drain_events = connection.drain_events

    def drain(timeout: Optional[float] = None, **options: Any) -> Any:
        if timeout is not None and is_keeping():
            timeout = min(timeout, _OFTEN)
        return drain_events(timeout=timeout, **options)

    connection.drain_events = drain
