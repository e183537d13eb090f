"""What one Lock instance holds, or is about to: one owner at a time, whichever threads use it.

Where locking is disabled a claim is a NoLock.
"""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, NoReturn, Optional, Union

from celery_redlock.core.lifecycle import LIVING, State
from celery_redlock.exceptions import LockError, LockLost, LockNotOwned
from celery_redlock.locking import execution as executions
from celery_redlock.locking import native, process
from celery_redlock.locking.execution import NoLock, Owned
from celery_redlock.locking.hold import Hold

Claim = Union[Owned, NoLock]

_ASKING = frozenset({State.NEW, State.ACQUIRING, State.QUEUED})

#: In the way of another claim. A lost one is until it is released: whoever lost it must not release
#: its successor.
_IN_THE_WAY = LIVING | _ASKING | {State.LOST}

#: Nothing that could be released, extended or asked for its fence.
_NOT_YET_OR_NOT_OURS = _ASKING | {State.FOREIGN}


class Claims:
    """The claim of one instance. Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._mutexes: Dict[int, Any] = {}
        self.now: Optional[Claim] = None

    def take(self, claim: Claim) -> None:
        """Make the claim; LockError if there is one."""
        with self._mutex():
            if self.now is not None and _is(self.now, _IN_THE_WAY):
                raise LockError(
                    f"{self._name}: this instance holds it already, or waits for it; release it "
                    "first, or give every owner an instance of its own"
                )
            self.now = claim

    def drop(self, claim: Claim) -> bool:
        """Whether it was there: of two threads that release, one does."""
        with self._mutex():
            if self.now is not claim:
                return False
            self.now = None
            return True

    def held(self, what: str) -> Claim:
        """The claim that holds, or held; LockError if there is none to be ``what``."""
        claim = self.now
        if claim is None or (isinstance(claim, Owned) and _is(claim, _NOT_YET_OR_NOT_OURS)):
            raise self.unheld(what)
        return claim

    def _mutex(self) -> Any:
        """That of this life of the process: a thread may have had the parent's at the fork."""
        life = process.life()
        return self._mutexes.get(life) or self._mutexes.setdefault(life, native.mutex())

    def unheld(self, what: str) -> LockError:
        return LockError(f"{self._name} cannot be {what}: this instance does not hold it")


def end(owned: Owned) -> None:
    """End what a claim holds, from any thread; raises if it had ended before."""
    executions.disown(owned)
    hold = owned.hold
    was_held = hold.state in LIVING
    if not owned.is_reentered:
        left = owned.manager.release(hold)
        # Nobody renewed it, or the server has lost it: then another may have been granted it.
        was_held = was_held and (left is None or left.what != "absent")
    if hold.state is State.LOST or not was_held:
        raise_ended(hold)


def raise_ended(hold: Hold) -> NoReturn:
    if hold.state is State.LOST:
        raise LockLost(hold.resource, hold.fence)
    raise LockNotOwned(hold.resource)


def _is(claim: Claim, states: FrozenSet[State]) -> bool:
    return not isinstance(claim, Owned) or claim.hold.state in states
