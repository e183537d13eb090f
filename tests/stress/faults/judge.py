"""What a fault run must have kept, judged from what the bodies wrote and what was done to them.

In the order of their fences, no body may begin while an earlier one lives, runs and trusts its
lock. Bodies may run at the same time only where a fault has kept the earlier one from renewing;
then it was told so before the later one began. A lock lost without such a fault is one of ours.
Who was stopped for a small part of its lease may have been unsure, and had lost nothing.
Who has lost its lock is interrupted, and nobody else is.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from examples.demo.bodylog import Body
from tests.stress.faults.app import SECOND
from tests.stress.faults.plan import LEASE

#: After a fault the next renewal is a matter of a tenth of a second, more on a busy machine. What
#: is lost later than that was not lost by the fault.
AFTERMATH = LEASE / 2

#: The longest that a body may run on after its lock was lost, on a busy machine.
AT_ONCE = 1.5


class Harm(NamedTuple):
    """Something that keeps holders from renewing: those of process ``pid``, or all of them."""

    what: str
    begin: int
    end: int
    pid: Optional[int] = None


class Belief(NamedTuple):
    """What one body was told of its lock: until when it might trust it, and when its trust ended.

    Trust may come back: a place that nobody needed meanwhile is taken again.
    """

    trusted_until: int = 0
    losses: Tuple[int, ...] = ()
    lost_at: Optional[int] = None


Key = Tuple[str, int]


class Interruption(NamedTuple):
    """Of a body in process ``pid`` that held all of these."""

    pid: int
    held: Tuple[Key, ...]


class Diaries(NamedTuple):
    beliefs: Mapping[Key, Belief]
    stood_still: Sequence[Harm] = ()
    interruptions: Sequence[Interruption] = ()
    #: When a ``Lock`` was asked for.
    asked: Mapping[Key, int] = {}


def read_diaries(path: Path) -> Diaries:
    beliefs: Dict[Key, Belief] = defaultdict(Belief)
    stood_still: List[Harm] = []
    interruptions: List[Interruption] = []
    asked: Dict[Key, int] = {}
    for line in _lines(path):
        if "interrupted_at" in line:
            interruptions.append(Interruption(line["pid"], tuple(line["fences"].items())))
        if "stood_still" in line:
            begin, end = line["stood_still"]
            stood_still.append(Harm("stood still", begin, end, line["pid"]))
        for resource, fence in line["fences"].items():
            if "asked_at" in line:
                asked[resource, fence] = line["asked_at"]
                continue
            belief = beliefs[resource, fence]
            if "trusted_until" in line:
                belief = belief._replace(trusted_until=line["trusted_until"])
            if "unsure_at" in line:
                ended = belief.trusted_until or line["unsure_at"]
                belief = belief._replace(losses=(*belief.losses, ended))
            if "lost_at" in line:
                belief = belief._replace(lost_at=line["lost_at"])
            beliefs[resource, fence] = belief
    return Diaries(beliefs, stood_still, interruptions, asked)


class Judge:
    """``deaths`` says when processes were killed, ``harms`` what kept holders from renewing."""

    def __init__(
        self,
        bodies: Iterable[Body],
        diaries: Diaries,
        deaths: Mapping[int, int],
        harms: Sequence[Harm],
        lease: float = LEASE,
    ) -> None:
        self._beliefs = diaries.beliefs
        self._interruptions = diaries.interruptions
        self._deaths = deaths
        self._harms = [*harms, *diaries.stood_still]
        # Renewed at a third of it, a lease outlives any stop that is as short.
        self._deprived = [
            harm
            for harm in self._harms
            if harm.pid is None or harm.end - harm.begin >= lease / 3 * SECOND
        ]
        self._by_resource: Dict[str, List[Body]] = defaultdict(list)
        for body in bodies:
            self._by_resource[body.resource].append(body)
        self.overlaps = 0
        self.losses = 0

    def faults(self) -> List[str]:
        """What was not kept, in words; empty if all was."""
        found: List[str] = []
        for bodies in self._by_resource.values():
            found += self._repeated_fences(bodies)
            found += self._silent(bodies)
            found += self._unexplained_overlaps(bodies)
            found += self._unexplained_losses(bodies)
            found += self._not_interrupted(bodies)
        found += self._disturbed()
        return found

    def end_of(self, body: Body) -> float:
        """When it ended; of one that was interrupted as it began only its last belief is known."""
        if body.end is not None:
            return body.end
        return self._deaths.get(body.pid, self._belief(body).trusted_until or body.start)

    def _belief(self, body: Body) -> Belief:
        return self._beliefs.get((body.resource, body.fence or 0), Belief())

    def _repeated_fences(self, bodies: Sequence[Body]) -> Iterable[str]:
        seen: Dict[Optional[int], Body] = {}
        for body in bodies:
            if body.fence in seen:
                yield f"one fence for two bodies:\n  {seen[body.fence]}\n  {body}"
            seen[body.fence] = body

    def _silent(self, bodies: Sequence[Body]) -> Iterable[str]:
        """Bodies that trusted their lock when one with a higher fence had begun."""
        believer: Optional[Body] = None
        believed = 0.0
        for body in sorted(bodies, key=lambda body: body.fence or 0):
            if believer is not None and believed > body.start:
                late = (believed - body.start) / SECOND
                yield f"trusted its lock {late:.3f} s too long:\n  {believer}\n  and {body}"
            until = min(self._belief(body).trusted_until, self.end_of(body))
            if until > believed:
                believer, believed = body, until

    def _unexplained_overlaps(self, bodies: Sequence[Body]) -> Iterable[str]:
        running: List[Body] = []
        for body in sorted(bodies, key=lambda body: body.start):
            running = [other for other in running if self.end_of(other) > body.start]
            for other in running:
                self.overlaps += 1
                if not any(map(self._may_have_lost, (other, body))):
                    yield f"ran at the same time, for no reason:\n  {other}\n  and {body}"
            running.append(body)

    def _may_have_lost(self, body: Body) -> bool:
        belief = self._belief(body)
        moments = belief.losses or (belief.trusted_until or body.start,)
        return any(self._was_harmed(body, moment, self._deprived) for moment in moments)

    def _unexplained_losses(self, bodies: Sequence[Body]) -> Iterable[str]:
        for body in bodies:
            for moment in self._belief(body).losses:
                self.losses += 1
                if not self._was_harmed(body, moment, self._harms):
                    yield f"lost its lock at {moment}, for no reason:\n  {body}"

    def _not_interrupted(self, bodies: Sequence[Body]) -> Iterable[str]:
        for body in bodies:
            lost_at = self._belief(body).lost_at
            if lost_at is None or body.end is None or self._stood_still(body, lost_at):
                continue
            late = (body.end - lost_at) / SECOND
            if late > AT_ONCE:
                yield f"went on for {late:.3f} s after its lock was lost:\n  {body}"

    def _stood_still(self, body: Body, since: int) -> bool:
        return any(harm.pid == body.pid and harm.end > since for harm in self._harms)

    def _disturbed(self) -> Iterable[str]:
        for pid, held in self._interruptions:
            was_lost = any(self._beliefs[key].lost_at is not None for key in held)
            # Of who was killed the last lines may be missing.
            if not was_lost and pid not in self._deaths:
                yield f"was interrupted without a loss, in {pid}: {held}"

    def _was_harmed(self, body: Body, when: int, harms: Sequence[Harm]) -> bool:
        """Whether one of these kept it from renewing when its trust ended."""
        return any(
            harm.pid in (None, body.pid) and harm.begin < when < harm.end + AFTERMATH * SECOND
            for harm in harms
        )


def _lines(path: Path) -> List[Dict[str, Any]]:
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines()]
