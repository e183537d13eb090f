"""Lock: the locks of the tasks, for code that is not one: a view, a script, a part of a body.

An instance belongs to one owner and not to a thread: what one thread acquires another may release.
What it holds is renewed as a task's hold is, and ends with ``release``, with the body that it was
acquired in, or with its process. An instance that is dropped without a release renews no more.

Where the code is in a hold of the resource already, a Lock re-enters that hold: it sends nothing,
has the hold's fence, and its release leaves the hold to its owner. If the owner ends first, the
hold ends, and ``check`` of those inside raises LockNotOwned.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, Optional, Set, Union

from celery_redlock.core import events
from celery_redlock.core.direct import MORE_TIME, TIMEOUT, checked_name, terms_of
from celery_redlock.core.kinds import SWITCH
from celery_redlock.core.lifecycle import LIVING
from celery_redlock.core.ports import NoAnswer
from celery_redlock.core.record import Record
from celery_redlock.exceptions import LockError, LockNotOwned, LockTimeout, LockUnavailable
from celery_redlock.integration.call import worker_of
from celery_redlock.integration.claim import Claims, end, raise_ended
from celery_redlock.integration.runtime import Runtime, app_in_use, runtime_of
from celery_redlock.locking import execution as executions
from celery_redlock.locking.execution import Execution, HeldLock, NoLock, Owned
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.outcomes import GaveUp, Held, Outcome, Patience, Taken, longest

Duration = Union[int, float, timedelta]


class Lock:
    """A lock on one resource, by its name as ``resource`` and ``task.lock_resource`` give it.

    ``ttl`` is the lease in seconds, 1 to 86400, renewed at a third of it unless ``renew`` is False:
    then the lock ends with its lease. ``limit`` and ``mode`` are as ``lock_limit`` and
    ``lock_mode`` of a task. ``app`` is the one in use when the lock is first used. Raises
    ConfigurationError for a name or terms that cannot be.

    Thread-safe; after a fork the parent keeps what it holds, and the child's instance holds
    nothing. Where locking is disabled it is acquired at once and locks nothing: ``fence`` is None.
    """

    def __init__(
        self,
        name: str,
        *,
        app: Any = None,
        ttl: Duration = 30,
        limit: int = 1,
        mode: str = "exclusive",
        renew: bool = True,
    ) -> None:
        self.name = checked_name(name)
        self._terms = terms_of(ttl, limit, mode)
        self._renew = bool(SWITCH.check("Lock: renew", renew))
        self._app = app
        self._claims = Claims(self.name)

    def acquire(self, blocking: bool = True, blocking_timeout: Optional[Duration] = None) -> bool:
        """Acquire it, waiting in line for ``blocking_timeout`` seconds, None for ever.

        Whether it was acquired. Raises LockError if this instance holds it already, or this code
        holds it on other terms; LockUnavailable when the lock server is away; LockTimeout after
        ``redlock_nested_wait_timeout`` if this code holds something else and gave no timeout; and
        ConfigurationError if there is no lock server, or it cannot serve these terms.
        """
        timeout = None
        if blocking_timeout is not None:
            timeout = TIMEOUT.check("Lock: blocking_timeout", blocking_timeout)
        runtime = self._runtime
        if not runtime.settings.enabled:
            self._claims.take(NoLock("disabled"))
            return True
        runtime.check_terms(f"Lock {self.name}", self._terms)
        scope = executions.here()
        outer = scope.reenter(self._app, self.name, self._terms)
        if outer is not None:
            self._claims.take(Owned(self._app, runtime.manager, outer, is_reentered=True))
            return True
        owned = Owned(self._app, runtime.manager, self._new_hold(scope.body), body=scope.body)
        return self._acquire(owned, blocking and timeout != 0, timeout)

    def release(self) -> None:
        """Release it, from any thread.

        Raises LockError if this instance holds nothing; LockLost, or LockNotOwned, if what it held
        had ended before: that of another is never touched. Raises nothing for a server that is
        away: the release goes on in the background when the connection's timeout is over.
        """
        claim = self._claims.held("released")
        try:
            is_first = self._claims.drop(claim)
            if is_first and isinstance(claim, Owned):
                end(claim)
        except BaseException:
            # It had ended; or this was interrupted, and nobody is left who would end it.
            if isinstance(claim, Owned) and not claim.is_reentered:
                claim.manager.abandon(claim.hold)
            raise
        if not is_first:
            raise self._claims.unheld("released")

    def __enter__(self) -> Lock:
        """Raises as ``acquire`` does, without a timeout of its own."""
        self.acquire()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self.release()
        except LockError:
            if error is None:
                raise
            # The body's own error says more.

    def __del__(self) -> None:
        # Between any two instructions of any thread: it sets this and takes no mutex. What was
        # acquired in a body is renewed until that ends.
        claims = getattr(self, "_claims", None)
        owned = claims and claims.now
        if isinstance(owned, Owned) and owned.body is None and not owned.is_reentered:
            owned.is_forgotten = True
            owned.hold.renew = False

    # --- while it is held

    def extend(self, additional_time: Duration, replace_ttl: bool = False) -> bool:
        """Add seconds to what is left of the lease, or count them from now with ``replace_ttl``.

        Returns True. The lease on the server never becomes shorter; with ``replace_ttl`` the time
        for which this instance trusts it may, until the next renewal. Raises LockError if it was
        not acquired, LockNotOwned, or LockLost, if it is no longer held, LockUnavailable when the
        lock server is away.
        """
        more = MORE_TIME.check("Lock: additional_time", additional_time)
        return self._extend(more, replace_ttl)

    def reacquire(self) -> bool:
        """Lease it for ``ttl`` seconds from now; returns True, and raises as ``extend`` does."""
        return self._extend(self._terms.lease_ms / 1000, replace=True)

    @property
    def fence(self) -> Optional[int]:
        """A number that only grows per resource; LockError while nothing is held.

        None where locking is disabled. Over several independent servers the first look asks them,
        and raises LockLost if the number cannot be made certain in time.
        """
        return _view(self._claims.held("asked for its fence")).fence

    @property
    def is_held(self) -> bool:
        """Whether this instance holds it, so that nobody else can; asks nobody."""
        claim = self._claims.now
        return claim is not None and _view(claim).is_held

    @property
    def expires_in(self) -> float:
        """Seconds for which it is certain that nobody else can hold it, without another renewal.

        Right after a wait in line the first look may have to ask the lock server.
        """
        claim = self._claims.now
        return 0.0 if claim is None else _view(claim).expires_in

    def check(self) -> None:
        """Raise LockLost if another was granted it, LockUnsure if another may have been.

        LockNotOwned while nothing is held. Asks nobody: what the last renewal said counts, and the
        clock.
        """
        claim = self._claims.now
        if claim is None:
            raise LockNotOwned(self.name)
        _view(claim).check()

    # --- what the server says

    def locked(self) -> bool:
        """Whether anybody holds it; asks the lock server, LockUnavailable when that is away."""
        return self._runtime.settings.enabled and bool(self._holders())

    def owned(self) -> bool:
        """Whether this instance holds it; asks the lock server as ``locked`` does."""
        claim = self._claims.now
        if not isinstance(claim, Owned) or claim.hold.state not in LIVING:
            return False
        return claim.hold.token in self._holders()

    def __repr__(self) -> str:
        return f"<Lock {self.name}{' held' if self.is_held else ''}>"

    # --- asking

    @property
    def _runtime(self) -> Runtime:
        if self._app is None:
            self._app = app_in_use()
        if hasattr(self._app, "_get_current_object"):
            self._app = self._app._get_current_object()
        return runtime_of(self._app)

    def _new_hold(self, body: Optional[Execution]) -> Hold:
        task = body.task.name if body is not None else None
        task_id = body.request.id if body is not None and body.request is not None else None
        record = self._runtime.record(task, task_id, worker=worker_of(body))
        return Hold(self.name, self._terms, record, renew=self._renew)

    def _acquire(self, owned: Owned, waits: bool, timeout: Optional[float]) -> bool:
        try:
            self._claims.take(owned)
            is_held = self._ask(owned, waits, timeout)
            if is_held:
                executions.own(owned)
            else:
                self._forget(owned)
        except BaseException:
            # An interrupt may come after the grant.
            owned.manager.release(owned.hold)
            self._forget(owned)
            raise
        return is_held

    def _ask(self, owned: Owned, waits: bool, timeout: Optional[float]) -> bool:
        if owned.body is not None:
            # From before it is asked for: whatever interrupts this, the body's end ends it.
            owned.body.adopt(owned)
        longest_wait = timeout
        if timeout is None and executions.here().held_elsewhere() is not None:
            longest_wait = self._runtime.settings.nested_wait_timeout
        until = None if longest_wait is None else time.monotonic() + longest_wait
        patience = Patience(until=until, rides_out=False) if waits else None
        try:
            outcome = owned.manager.acquire(owned.hold, patience)
        except NoAnswer as silence:
            record, servers = owned.hold.record, silence.servers
            self._runtime.emit(events.Unavailable(self.name, record, servers, "fail"))
            raise LockUnavailable(silence.servers) from silence
        return self._is_held(outcome, owned.hold.record, timeout)

    def _is_held(self, outcome: Outcome, record: Record, timeout: Optional[float]) -> bool:
        if isinstance(outcome, Held):
            return True
        if isinstance(outcome, Taken):
            return False
        if not isinstance(outcome, GaveUp):
            self._runtime.emit(events.Conflicted(self.name, record, None, "fail", "ended"))
            raise LockError(f"{self.name}: this wait was ended by an operator ({outcome.why})")
        if timeout is not None:
            return False
        holder = longest(outcome.holders)
        held = executions.here().held_elsewhere() or ()
        raise LockTimeout(self.name, outcome.waited, holder.holder if holder else None, *held)

    def _forget(self, owned: Owned) -> None:
        executions.disown(owned)
        self._claims.drop(owned)

    def _extend(self, seconds: float, replace: bool) -> bool:
        claim = self._claims.held("extended")
        if isinstance(claim, NoLock):
            return True
        hold = claim.hold
        lease = seconds if replace else seconds + max(0.0, hold.trusted_until - time.monotonic())
        # What another's body relies on is not for this one to trust less.
        shorten = replace and not claim.is_reentered
        try:
            if hold.state not in LIVING or not claim.manager.extend(hold, lease, shorten=shorten):
                raise_ended(hold)
        except NoAnswer as silence:
            raise LockUnavailable(silence.servers) from silence
        return True

    def _holders(self) -> Set[str]:
        """The tokens of those that hold it."""
        view = self._runtime.inspect(self.name)
        return {holder.token for holder in view.holders if holder.remaining_ms > 0}


def _view(claim: Union[Owned, NoLock]) -> Union[HeldLock, NoLock]:
    return HeldLock((claim.hold,)) if isinstance(claim, Owned) else claim
