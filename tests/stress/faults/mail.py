"""What became of each message: workers write down when they receive, run and publish a task.

Written at once, since any of them may be killed at any time.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, List, NamedTuple

from celery.signals import before_task_publish, task_postrun, task_prerun, task_received

from examples.demo.bodylog import now_ns


class Event(NamedTuple):
    """``what`` is "published", "received" (by a worker's parent), "began" or "finished".

    A task that finishes for a worker has not always ended: it may have been published again.
    """

    at: int
    pid: int
    what: str
    task_id: str


class Mail:
    """The events of a run, in a file beside its body log."""

    def __init__(self, body_log: Path) -> None:
        self._path = body_log.with_suffix(".mail")

    def note(self, what: str, task_id: str) -> None:
        line = json.dumps(Event(now_ns(), os.getpid(), what, task_id))
        descriptor = os.open(str(self._path), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode() + b"\n")
        finally:
            os.close(descriptor)

    def note_all(self) -> None:
        """From now on, all that this process and those forked from it do."""

        def publish(headers: Any = None, **_others: Any) -> None:
            # Before it is sent: the event is older than whatever becomes of the message.
            self.note("published", headers["id"])

        def receive(request: Any = None, **_others: Any) -> None:
            self.note("received", request.id)

        def begin(task_id: str = "", **_others: Any) -> None:
            self.note("began", task_id)

        def finish(task_id: str = "", **_others: Any) -> None:
            self.note("finished", task_id)

        before_task_publish.connect(publish, weak=False)
        task_received.connect(receive, weak=False)
        task_prerun.connect(begin, weak=False)
        task_postrun.connect(finish, weak=False)

    def events(self) -> List[Event]:
        if not self._path.exists():
            return []
        whole, _, _ = self._path.read_bytes().rpartition(b"\n")
        return sorted(Event(*json.loads(line)) for line in whole.splitlines())
