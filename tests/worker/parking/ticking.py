"""The shop, with a timer in the worker's event loop that notes how late it comes.

Every 10 milliseconds; kept in memory, and written down when the worker is told to by remote
control (``ticks``), so that the timer does nothing else.
"""

from __future__ import annotations

import time
from typing import Any, Dict, List

from celery import bootsteps
from celery.worker.control import control_command

from tests.worker.locked_app import app as app

EVERY = 0.01


class Ticking(bootsteps.StartStopStep):
    """Late is what goes beyond the interval; CPU time is that of the loop's thread."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        consumer.ticking = self
        self.forget()

    def forget(self) -> None:
        self.last: Any = None
        #: Of each tick by how many seconds it was late, and for how long the thread computed.
        self.late: List[float] = []
        self.busy: List[float] = []

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        hub.call_repeatedly(EVERY, self._tick)

    def _tick(self) -> None:
        now = time.monotonic(), time.thread_time()
        if self.last is not None:
            self.late.append(now[0] - self.last[0] - EVERY)
            self.busy.append(now[1] - self.last[1])
        self.last = now


@control_command()
def ticks(state: Any) -> Dict[str, Any]:
    """Say what was noted since the last time, and begin anew."""
    ticking = state.consumer.ticking
    told = {"late": ticking.late, "busy": ticking.busy}
    ticking.forget()
    return told


app.steps["consumer"].add(Ticking)
