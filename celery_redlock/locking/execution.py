"""What one body holds, seen from inside it.

What is around a piece of code travels in a context variable: each thread and each greenlet has its
own, also where they share one task object. A nested call is an execution of its own with the outer
one as its parent; what the outer ones hold, and what a ``Lock`` around it holds, it re-enters, so
that nobody waits for himself. A context may be copied to another thread (``asyncio.to_thread``):
that one sees the lock and does not share it.
"""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar
from typing import Any, Dict, Iterator, Mapping, NamedTuple, Optional, Set, Tuple, Union

from celery_redlock.core.lifecycle import LIVING, State
from celery_redlock.core.ports import Terms
from celery_redlock.exceptions import LockError, LockLost, LockNotOwned, LockUnsure
from celery_redlock.locking import process
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager


class HeldLock:
    """``self.lock`` in a body that holds its lock. Thread-safe."""

    reason: None = None

    def __init__(self, holds: Tuple[Hold, ...]) -> None:
        self._holds = holds

    @property
    def resource(self) -> str:
        """The resource's name; LockError if there are several."""
        return self._only().resource

    @property
    def fence(self) -> Optional[int]:
        """A number that only grows per resource: give it to whatever must refuse a stale writer.

        LockError if there are several resources. Over several independent servers the first look
        asks them, and raises LockLost if the number cannot be made certain in time.
        """
        return self._only().shown_fence

    @property
    def resources(self) -> Tuple[str, ...]:
        """The names of all resources."""
        return tuple(hold.resource for hold in self._holds)

    @property
    def fences(self) -> Mapping[str, Optional[int]]:
        """The fences of all resources, by name; asks and raises as ``fence`` does."""
        return {hold.resource: hold.shown_fence for hold in self._holds}

    @property
    def is_held(self) -> bool:
        """Whether nobody else can hold it now."""
        return self._trusted_for > 0

    @property
    def expires_in(self) -> float:
        """Seconds for which it is certain that nobody else can hold it, without another renewal.

        Right after a wait in line the first look may have to ask the lock server.
        """
        for hold in self._holds:
            if hold.settle_lease is not None and hold.state in LIVING:
                hold.settle_lease(hold)
        return self._trusted_for

    def check(self) -> None:
        """Raise LockLost if another was granted the lock, LockUnsure if another may have been.

        LockNotOwned if it has ended otherwise: the outer hold that it re-entered was released.
        Asks nobody: what the last renewal said counts, and the clock.
        """
        now = time.monotonic()
        for hold in self._holds:
            state = hold.state
            if state is State.LOST:
                raise LockLost(hold.resource, hold.fence)
            if state not in LIVING:
                raise LockNotOwned(hold.resource)
            if now >= hold.trusted_until:
                raise LockUnsure(hold.resource, hold.fence)

    @property
    def _trusted_for(self) -> float:
        now = time.monotonic()
        return min(
            max(0.0, hold.trusted_until - now) if hold.state in LIVING else 0.0
            for hold in self._holds
        )

    def _only(self) -> Hold:
        if len(self._holds) != 1:
            raise LockError("this task locks several resources: use .resources and .fences")
        return self._holds[0]

    def __repr__(self) -> str:
        return f"<HeldLock {', '.join(self.resources)}>"


class NoLock:
    """``self.lock`` where nothing was locked; ``reason`` says why.

    ``reason`` is "disabled", "eager", "outage" or "no key".
    """

    resource: None = None
    fence: None = None
    resources: Tuple[str, ...] = ()
    is_held = False
    expires_in = 0.0

    def __init__(self, reason: str) -> None:
        self.reason = reason

    @property
    def fences(self) -> Mapping[str, Optional[int]]:
        return {}

    def check(self) -> None:
        """Does nothing: there is nothing to lose."""

    def __repr__(self) -> str:
        return f"<NoLock {self.reason}>"


CurrentLock = Union[HeldLock, NoLock]


class Owned:
    """What a ``Lock`` holds. ``body`` is the body that it was acquired in, None outside of any.

    ``is_forgotten``: its Lock is no more, and nobody can release it.
    """

    __slots__ = ("app", "body", "hold", "is_forgotten", "is_reentered", "manager", "thread")

    def __init__(
        self,
        app: Any,
        manager: Manager,
        hold: Hold,
        *,
        is_reentered: bool = False,
        body: Optional[Execution] = None,
    ) -> None:
        self.app = app
        self.manager = manager
        self.hold = hold
        self.is_forgotten = False
        self.is_reentered = is_reentered
        self.body = body
        self.thread = this_thread()


class Scope(NamedTuple):
    """What is around the code that runs here: the innermost body, and what Locks hold here.

    It never changes: a context that was copied from this one (by ``asyncio.to_thread``, by a
    greenlet) keeps seeing what was held then, and nothing that another copy has acquired since.
    Two copies may run at the same time: what one of them holds excludes the other.
    """

    body: Optional[Execution] = None
    locks: Tuple[Owned, ...] = ()

    def reenter(self, app: Any, resource: str, terms: Terms) -> Optional[Hold]:
        """The hold on this resource that this code is in, if there is one.

        Raises LockError for terms that the hold does not cover.
        """
        for thread, of_app, hold in self._holds():
            # Another thread may run beside the one that holds it. Another app's resource of that
            # name is another resource: on its server, its prefix.
            is_ours = thread == this_thread() and of_app is app
            if is_ours and hold.resource == resource and _is_around(hold):
                _refuse_more(hold, terms)
                return hold
        return None

    def held_elsewhere(self) -> Optional[Tuple[str, str]]:
        """A resource that is held here, and by whom: who waits meanwhile waits no longer than
        allowed, since its holder may be waiting for this one."""
        for _thread, _app, hold in self._holds():
            if _is_around(hold):
                return hold.resource, hold.record.holder
        return None

    def _holds(self) -> Iterator[Tuple[int, Any, Hold]]:
        """With their threads and apps, the innermost body's first."""
        for owned in reversed(_living(self.locks)):
            yield owned.thread, owned.app, owned.hold
        body = self.body
        while body is not None:
            for hold in list(body.holds.values()):
                yield body.thread, body.task.app, hold
            body = body.parent


NOWHERE = Scope()


def this_thread() -> int:
    """The thread that runs here, or the greenlet where threads are patched."""
    return threading.get_ident()


class Execution:
    """One body: what it is, what it holds and what is around it."""

    def __init__(self, task: Any, request: Any, around: Scope = NOWHERE) -> None:
        self.task = task
        self.request = request
        self.around = around
        self.parent = around.body
        self.lock: Optional[CurrentLock] = None
        #: Holds of this execution, from before they are asked for until they have been released.
        self.holds: Dict[str, Hold] = {}
        #: What Locks acquired in this body hold, by token; from and until as above.
        self.locks: Dict[str, Owned] = {}
        self._is_over = False
        #: Resources asked for under the token that this execution came with: once each, since a
        #: token that was left or abandoned is dead.
        self.asked: Set[str] = set()
        self.began = time.monotonic()
        self.life = process.life()
        self.thread = this_thread()

    def reenter(self, resource: str, terms: Terms) -> Optional[Hold]:
        """The hold on this resource that is around this body, if there is one.

        Raises LockError for terms that the outer hold does not cover.
        """
        return self.around.reenter(self.task.app, resource, terms)

    def held_elsewhere(self) -> Optional[Tuple[str, str]]:
        """A resource that is held around it while it waits, and by whom."""
        return self.around.held_elsewhere()

    @property
    def is_nested_in_a_hold(self) -> bool:
        """Whether something is held around it, while it waits."""
        return self.held_elsewhere() is not None

    def adopt(self, owned: Owned) -> None:
        """End with this body what a Lock in it holds, unless the body is over already.

        A thread with a copy of its context may outlive it.
        """
        self.locks[owned.hold.token] = owned
        if self._is_over:
            owned.body = None

    def release_locks(self) -> None:
        """Release what Locks acquired in this body still hold: it is over."""
        self._is_over = True
        for owned in reversed(list(self.locks.values())):
            owned.manager.release(owned.hold)


def _refuse_more(hold: Hold, terms: Terms) -> None:
    if hold.terms.mode == "shared" and terms.mode == "exclusive":
        raise LockError(
            f"{hold.resource} is held as shared by this execution: it cannot be had as exclusive "
            "inside; take it as exclusive outside, or as shared here"
        )
    if terms.limit < hold.terms.limit:
        raise LockError(
            f"{hold.resource} is held with a limit of {hold.terms.limit} by this execution: "
            f"it cannot be had with a limit of {terms.limit} inside; give both the same limit"
        )


_here: ContextVar[Scope] = ContextVar("celery_redlock", default=NOWHERE)


def here() -> Scope:
    """What is around the code that calls this; never a parent process's."""
    scope = _here.get()
    if scope.body is not None and scope.body.life != process.life():
        return NOWHERE
    return scope


def current() -> Optional[Execution]:
    """The innermost execution of this thread or greenlet; never one of a parent process's."""
    return here().body


def enter(execution: Execution) -> Any:
    """Make it the current one; give what this returns to ``leave``."""
    return _here.set(Scope(execution, execution.around.locks))


def leave(entered: Any) -> None:
    _here.reset(entered)


def own(owned: Owned) -> None:
    """From now on this code is in what a Lock holds."""
    scope = here()
    _here.set(scope._replace(locks=(*_living(scope.locks), owned)))


def disown(owned: Owned) -> None:
    """What a Lock held has ended; it may have been acquired in another context."""
    if owned.body is not None:
        owned.body.locks.pop(owned.hold.token, None)
    scope = here()
    if owned in scope.locks:
        _here.set(scope._replace(locks=_living(scope.locks)))


def _living(locks: Tuple[Owned, ...]) -> Tuple[Owned, ...]:
    # What was released in another context has stayed in this one.
    return tuple(owned for owned in locks if owned.hold.state in LIVING and not owned.is_forgotten)


def _is_around(hold: Hold) -> bool:
    """Whether code can be in it. One that nobody renews is over with its time: a rival may have it
    by now, and nobody would hear of that."""
    return hold.state in LIVING and (hold.renew or time.monotonic() < hold.trusted_until)


def current_lock() -> CurrentLock:
    """The lock of the body that this runs in, also in a helper; LockError outside a body.

    In a thread or greenlet that the body started it is found where that has the body's context.
    """
    execution = current()
    if execution is None or execution.lock is None:
        raise LockError(
            "there is no lock here: this does not run in the body of a LockedTask; in other code "
            "use celery_redlock.Lock"
        )
    return execution.lock
