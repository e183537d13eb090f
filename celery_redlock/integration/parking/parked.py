"""One request that is kept in the worker's parent while its lock is asked for."""

from __future__ import annotations

import math
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

from celery_redlock.core.lifecycle import LIVING, Move, State
from celery_redlock.integration.asking import Asking
from celery_redlock.integration.call import place_key
from celery_redlock.integration.handing import Refusal, Sent
from celery_redlock.integration.request import LockedRequest, Wait
from celery_redlock.integration.runtime import Runtime, runtime_of
from celery_redlock.integration.steps import Ask, Step, Steps
from celery_redlock.locking.execution import Execution
from celery_redlock.locking.handover import Handed
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.pending import Pending


class Parked:
    """The request, how far its asking has come, and whether it has a slot of the pool.

    Used by the consumer's thread, its steps by one thread at a time.
    """

    def __init__(self, request: LockedRequest, runtime: Runtime, wait: Wait) -> None:
        self.request = request
        self.runtime = runtime
        self._came = time.monotonic()
        self.names: Sequence[str] = ()
        self.call = request.call(wait)
        #: Whether a step of it may take long.
        self.runs_users_code: bool = request.task.redlock_runs_users_code()
        self.execution = Execution(request.task, self.call.request)
        self.asking: Optional[Asking] = None
        self.steps: Optional[Steps[Optional[Refusal]]] = None
        self.step: Optional[Step] = None
        self.pending: Optional[Pending] = None
        #: What waits for a slot or for a moment, to be called off.
        self.awaited: Any = None
        self.too_late: Any = None
        self.has_slot = False
        self.is_in_line = False
        self.is_gone = False
        #: What the consumer was told when the request was kept.
        self.kept: Any = None
        self.sent = Sent()

    def begin(self, names: Sequence[str]) -> None:
        self.names = names
        self.asking = Asking(self.runtime, self.call, self.execution, self.request.new_receipt)
        self.steps = self.asking.steps(names)

    def ask_anew(self, seqs: Sequence[int]) -> None:
        """Its next ask is the last one again, with the places that its holds had in line."""
        assert self.asking is not None
        assert isinstance(self.step, Ask)
        self.step = self.asking.anew(self.step, seqs)

    @property
    def is_alone(self) -> bool:
        """Whether nobody else may hold what it holds at the same time."""
        return self.asking is not None and self.asking.terms.is_for_one

    @property
    def holds(self) -> List[Hold]:
        """Those of its resources, which a step that runs aside may be adding to."""
        return list(self.execution.holds.values())

    def hand_over(self) -> Tuple[Handed, ...]:
        """Leave what it holds to the process that runs it; raises LockLost."""
        living = [hold for hold in self.holds if hold.state in LIVING]
        return tuple(self.runtime.manager.hand_over(hold) for hold in living)

    def abandon(self) -> None:
        """Release what it holds, or has handed over in vain, in the background."""
        for hold in self.holds:
            if hold.state is State.HANDED:
                hold.try_move(Move.RECEIVER_GONE)
            if hold.state in LIVING or hold.state is State.RELEASING:
                self.runtime.manager.abandon(hold)

    @property
    def is_copy(self) -> bool:
        """Whether another delivery of this task is known of, which may do its work meanwhile."""
        has_met_one = self.asking is not None and self.asking.copy is not None
        return self.call.is_redelivered or has_met_one

    def place_in(self, name: str) -> float:
        """Its number in the line of one of its resources, infinite if it had none yet."""
        hold = self.execution.holds.get(name)
        return (hold.seq if hold is not None else self.call.place_in(name)) or math.inf

    def wait(self, attempt: int) -> Dict[str, Any]:
        """For the header WAIT of its next delivery: since when it waits, and where in line."""
        places = {place_key(hold.resource): hold.seq for hold in self.holds if hold.seq}
        since = time.time() - self.waited
        return {"since": since, "attempt": attempt, "places": places, "is_copy": self.is_copy}

    @property
    def left(self) -> float:
        """Seconds until its wait is over, granted or not: it gives up, or expires."""
        patience = self.asking.left() if self.asking is not None else None
        expires = self.request.expires
        until_expired = max(0.0, expires.timestamp() - time.time()) if expires else math.inf
        return min(math.inf if patience is None else patience, until_expired)

    @property
    def kept_for(self) -> float:
        """Seconds since it came."""
        return time.monotonic() - self._came

    @property
    def waited(self) -> float:
        """Seconds since this task first asked."""
        return self.asking.waited() if self.asking is not None else 0.0


def parked_for(request: Any, wait: Wait = None) -> Optional[Parked]:
    """What a request becomes that may have to wait; None for one that goes its usual way.

    ``wait`` is known of its last delivery, which ended with its connection.
    """
    if not isinstance(request, LockedRequest) or not hasattr(request.task, "redlock_names"):
        return None
    runtime = runtime_of(request.task.app)
    return Parked(request, runtime, wait) if runtime.settings.enabled else None
