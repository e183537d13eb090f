"""A fault run in which hundreds wait for few resources, parked in two workers.

All are published at its start. The first worker is not harmed: those that stand in line for it
start in the order of their line, whatever befalls the other.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, Iterator, List, Set, Tuple

from kombu.utils.uuid import uuid
from redis.client import Redis

from celery_redlock.core.ports import NoAnswer
from celery_redlock.core.record import Record
from celery_redlock.integration.runtime import runtime_of
from tests.harness.worker import WorkerProcess
from tests.stress.faults.arena import RESOURCES, Arena
from tests.stress.faults.plan import Plan

#: Seconds between two looks at the lines.
LOOK_EVERY = 0.2

#: Kinds of faults that befall a worker, and those of the lock server.
OF_WORKERS = ("kill a child", "kill a worker", "stop a worker")
OF_CHILDREN = ("kill a child", "stop a worker")
OF_SERVER = (
    "stop the server below the lease",
    "stop the server beyond the lease",
    "kill the server, start it empty",
)


class CrowdedArena(Arena):
    """``tasks`` of ``seconds`` each, on one resource each, taking turns."""

    def __init__(self, plan: Plan, directory: Path, tasks: int, seconds: float) -> None:
        super().__init__(plan, directory)
        self._tasks = tasks
        self._seconds = seconds
        self._looked_at = 0.0
        #: By resource: each task's number in line, as the server gave it.
        self.seqs: Dict[str, Dict[str, int]] = defaultdict(dict)
        #: As many as stood in line at a time.
        self.most = 0

    def _conf(self) -> Dict[str, Any]:
        # Nobody goes round by the queue: who does is out of line meanwhile.
        return {**super()._conf(), "redlock_max_parked": 10_000, "redlock_max_park": 600}

    @property
    def unharmed(self) -> WorkerProcess:
        return self.workers[0]

    @property
    def living_workers(self) -> List[WorkerProcess]:
        """Those that a fault may befall."""
        return [worker for worker in super().living_workers if worker is not self.unharmed]

    def _keep_busy(self) -> None:
        if not self.results:
            for number in range(self._tasks):
                task_id = uuid()
                self.mail.note("published", task_id)
                self.results.append(
                    self.shop.task("strike").apply_async(
                        ([number % RESOURCES], self._seconds), task_id=task_id
                    )
                )
        if time.monotonic() >= self._looked_at + LOOK_EVERY and not self.deeds.server_is_away:
            self._look_at_lines()
            self._looked_at = time.monotonic()

    def _look_at_lines(self) -> None:
        try:
            views = self.views()
        except NoAnswer:
            return
        for resource, view in views.items():
            for waiter in view.waiters:
                record = Record.decode(waiter.record)
                if record is not None and record.task_id is not None:
                    self.seqs[resource][record.task_id] = waiter.seq
        self.most = max(self.most, sum(len(view.waiters) for view in views.values()))

    # --- afterwards

    def out_of_order(self) -> Iterator[str]:
        """Of those that only the unharmed worker had, who started before one ahead of him."""
        came = self._came()
        mine = {task for task, pids in came.items() if pids == [self.unharmed.pid]}
        for resource, seqs in self.seqs.items():
            bodies = self.shop.bodies.bodies(resource)
            ran = [body.task_id for body in bodies if body.task_id in mine & seqs.keys()]
            for one, other in zip(ran, ran[1:]):
                if seqs[one] > seqs[other]:  # type: ignore[index]
                    yield f"{other} stood before {one} for {resource}, and started after it"

    def not_once(self) -> Iterator[str]:
        """Tasks of the unharmed worker alone whose bodies did not run just once."""
        came = self._came()
        for task_id in [result.id for result in self.results]:
            bodies = [body for body in self.shop.bodies.bodies() if body.task_id == task_id]
            if came[task_id] == [self.unharmed.pid] and len(bodies) != 1:
                told = "\n  ".join([self.lost().told(task_id), *map(str, bodies)])
                yield f"ran {len(bodies)} times on a worker that nothing befell:\n  {told}"

    def _came(self) -> Dict[str, List[int]]:
        """By task: the workers that have received it, each time."""
        came: Dict[str, List[int]] = defaultdict(list)
        for event in self.mail.events():
            if event.what == "received":
                came[event.task_id].append(event.pid)
        return came

    def left_keys(self) -> Set[Tuple[str, int]]:
        """What is left on the lock server but fences that expire, and for how many ms it is."""
        prefix = runtime_of(self.shop.app).settings.prefix
        with self.server.client() as client:
            keys = [(key, _life(client, key)) for key in client.scan_iter(f"{prefix}*")]
        return {(key, life) for key, life in keys if not key.endswith(":h") or life <= 0}

    def parked(self) -> Dict[str, int]:
        """How many tasks each worker keeps."""
        inspect = self.shop.app.control.inspect(timeout=5.0, limit=len(self.workers))
        told = inspect._request("redlock_parked") or {}
        return {node: answer["count"] for node, answer in told.items()}


def _life(client: Redis, key: str) -> int:
    return int(client.pttl(key))
