"""A log that task bodies themselves write, from which exclusion is judged.

A body appends one line when it starts and one when it ends, stamped by the clock that all processes
of the machine share. So the log shows when bodies really ran, whatever locks, workers and brokers
believe: two bodies of a resource overlapped if one started between the start and the end of the
other. A line is one write to a file opened with O_APPEND: lines of several processes never mix.

A killed body has no end line. When it ended is known only to whoever killed it (``deaths``).
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Union

POLL_SECONDS = 0.005


class Body(NamedTuple):
    """One run of a task's body; ``start`` and ``end`` in nanoseconds of the machine's clock."""

    resource: str
    start: int
    end: Optional[int]
    pid: int
    task_id: Optional[str]
    fence: Optional[int]
    shared: bool


class Overlap(NamedTuple):
    """Two bodies that ran at once and must not have."""

    first: Body
    second: Body


class BodyLog:
    """The log in the file ``path``; any number of processes and threads may write to it."""

    def __init__(self, path: Union[str, Path]) -> None:
        self.path = Path(path)

    @contextmanager
    def body(
        self,
        resource: str,
        fence: Optional[int] = None,
        task_id: Optional[str] = None,
        shared: bool = False,
    ) -> Iterator[None]:
        """Log the start now and the end however the body ends; ``shared`` bodies may overlap."""
        line: Dict[str, object] = {
            "body": uuid.uuid4().hex,
            "resource": resource,
            "task_id": task_id,
            "fence": fence,
            "shared": shared,
            "pid": os.getpid(),
            "thread": threading.get_ident(),
        }
        self._append(dict(line, event="start", monotonic_ns=now_ns()))
        try:
            yield
        finally:
            self._append(dict(line, event="end", monotonic_ns=now_ns()))

    def bodies(self, resource: Optional[str] = None) -> List[Body]:
        """All bodies so far, of one resource if it is given, in the order of their starts."""
        found: Dict[str, Body] = {}
        for line in self._lines():
            if line["event"] == "start":
                found[line["body"]] = _body(line)
            else:
                found[line["body"]] = found[line["body"]]._replace(end=line["monotonic_ns"])
        chosen = (body for body in found.values() if resource in (None, body.resource))
        return sorted(chosen, key=lambda body: body.start)

    def overlaps(
        self,
        limit: int = 1,
        *,
        deaths: Optional[Mapping[int, int]] = None,
        unended_runs: bool = False,
    ) -> List[Overlap]:
        """Each body that started while ``limit`` others ran, with the one that ran longest.

        ``deaths`` says when processes died: pid -> nanoseconds of ``now_ns``. Of another body
        without an end only its start is certain, unless ``unended_runs`` says that it still runs.
        """
        pairs = []
        running: Dict[str, List[Tuple[Body, float]]] = {}
        for body in self.bodies():
            others = running.setdefault(body.resource, [])
            others[:] = [(other, end) for other, end in others if end > body.start]
            rivals = [other for other, _ in others if not (body.shared and other.shared)]
            if len(rivals) >= limit:
                pairs.append(Overlap(rivals[0], body))
            others.append((body, _end(body, deaths or {}, unended_runs)))
        return pairs

    def assert_exclusive(
        self,
        limit: int = 1,
        *,
        deaths: Optional[Mapping[int, int]] = None,
        unended_runs: bool = False,
    ) -> None:
        """Raise AssertionError naming the bodies that overlapped beyond ``limit``."""
        pairs = self.overlaps(limit, deaths=deaths, unended_runs=unended_runs)
        if pairs:
            told = "\n".join(f"  {first}\n  and {second}" for first, second in pairs[:5])
            raise AssertionError(f"{len(pairs)} bodies ran beyond the limit of {limit}:\n{told}")

    def assert_fences_grow(self) -> None:
        """Raise AssertionError if a later body of a resource has no higher fence."""
        last: Dict[str, Body] = {}
        for body in self.bodies():
            if body.fence is None:
                continue
            before = last.get(body.resource)
            if before is not None and before.fence is not None and body.fence <= before.fence:
                raise AssertionError(f"the fence did not grow:\n  {before}\n  and {body}")
            last[body.resource] = body

    def wait_for(
        self,
        *,
        count_started: int = 0,
        count_ended: int = 0,
        timeout: float = 10.0,
        resource: Optional[str] = None,
    ) -> List[Body]:
        """The bodies, once so many have started and ended; TimeoutError after ``timeout`` s."""
        deadline = time.monotonic() + timeout
        while True:
            bodies = self.bodies(resource)
            ended = sum(body.end is not None for body in bodies)
            if len(bodies) >= count_started and ended >= count_ended:
                return bodies
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"after {timeout} s {len(bodies)} bodies have started and {ended} ended, "
                    f"expected {count_started} and {count_ended}"
                )
            time.sleep(POLL_SECONDS)

    def _append(self, line: Mapping[str, object]) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, json.dumps(line).encode() + b"\n")
        finally:
            os.close(descriptor)

    def _lines(self) -> List[dict]:
        if not self.path.exists():
            return []
        # A reader may see half of the line that is being written: it counts next time.
        whole, _, _ = self.path.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()]


def now_ns() -> int:
    """Nanoseconds of the clock that all processes of this machine share."""
    if hasattr(time, "CLOCK_MONOTONIC"):
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    return time.monotonic_ns()


def _body(line: dict) -> Body:
    return Body(
        resource=line["resource"],
        start=line["monotonic_ns"],
        end=None,
        pid=line["pid"],
        task_id=line["task_id"],
        fence=line["fence"],
        shared=line["shared"],
    )


def _end(body: Body, deaths: Mapping[int, int], unended_runs: bool) -> float:
    if body.end is not None:
        return body.end
    if body.pid in deaths:
        return deaths[body.pid]
    return float("inf") if unended_runs else body.start
