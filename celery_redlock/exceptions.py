"""Every error of the package; the tree is documentation of what can go wrong.

Each error takes its fields as positional arguments equal to ``exc.args``, each a str, a number or
None, so that it comes back as the same class with the same fields through pickle and through a JSON
result backend.

    RedlockError
    ├─ ConfigurationError       an option, a setting or a name is wrong: nothing was locked
    ├─ LockConflict             somebody holds it, and the policy is not to wait
    ├─ LockTimeout              waited as long as allowed
    ├─ LockUnavailable          the lock server did not answer
    └─ LockError                the lock was used in a way that it cannot be used
       └─ LockNotOwned          not, or no longer, ours
          └─ LockLost           another was granted the place, or may be at any moment
             └─ LockUnsure      another may have been granted the place
"""

from __future__ import annotations

from typing import Optional, Union

from celery.exceptions import ImproperlyConfigured

Number = Union[int, float]


class RedlockError(Exception):
    """Root of every error that this package raises."""


class ConfigurationError(RedlockError, ImproperlyConfigured):  # type: ignore[misc]
    """An option, a setting, a template or an argument cannot be used; says what was expected.

    ``message`` is the whole sentence.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class LockConflict(RedlockError):
    """The resource is held and the task's policy is ``fail``.

    ``holder`` is the task id of the longest holder (``host/pid`` for a ``Lock``), ``since`` the
    Unix time in seconds at which it was granted the lock; both None where that is not known.
    """

    def __init__(
        self, resource: str, holder: Optional[str] = None, since: Optional[Number] = None
    ) -> None:
        super().__init__(resource, holder, since)
        self.resource = resource
        self.holder = holder
        self.since = since

    def __str__(self) -> str:
        return f"{self.resource} is held by {self.holder or 'another'}"


class LockTimeout(RedlockError):
    """The resource did not become free within the time allowed; ``waited`` is in seconds.

    ``holder`` is as in LockConflict. ``held`` is a resource that the waiter, ``owner``, held itself
    meanwhile: two that wait for one another's resource end like this. Both are None for a waiter
    that held nothing.
    """

    def __init__(
        self,
        resource: str,
        waited: Optional[Number] = None,
        holder: Optional[str] = None,
        held: Optional[str] = None,
        owner: Optional[str] = None,
    ) -> None:
        super().__init__(resource, waited, holder)
        if held is not None:
            self.args = (resource, waited, holder, held, owner)
        self.resource = resource
        self.waited = waited
        self.holder = holder
        self.held = held
        self.owner = owner

    def __str__(self) -> str:
        waited = "" if self.waited is None else f" within {self.waited:.3f} s"
        text = f"{self.resource} did not become free{waited}; held by {self.holder or 'another'}"
        if self.held is None:
            return text
        return f"{text}, waited for by {self.owner or 'another'}, which holds {self.held}"


class LockUnavailable(RedlockError):
    """The lock server did not answer; ``servers`` says which and how, without passwords."""

    def __init__(self, servers: str) -> None:
        super().__init__(servers)
        self.servers = servers

    def __str__(self) -> str:
        return f"no answer from the lock server: {self.servers}"


class LockError(RedlockError):
    """The lock cannot be used like this: the message says why."""


class LockNotOwned(LockError):
    """The lock is not held by this owner: it was never acquired, or has ended."""

    def __init__(self, resource: str) -> None:
        super().__init__(resource)
        self.resource = resource

    def __str__(self) -> str:
        return f"{self.resource} is not held by this owner"


class LockLost(LockNotOwned):
    """The lock was lost while the body ran: another was granted it, or it is free for another.

    Somebody released it by force, for instance, or ``lock_max_hold`` is over. ``fence`` is the
    number that was lost with it, None where none was known.
    """

    def __init__(self, resource: str, fence: Optional[int] = None) -> None:
        super().__init__(resource)
        self.args = (resource, fence)
        self.fence = fence

    def __str__(self) -> str:
        return f"{self.resource} was lost (fence {self.fence})"


class LockUnsure(LockLost):
    """The lease was not renewed in time: another may have been granted the place.

    No loss yet: if nobody needed the place, a renewal makes the lock certain again.
    """

    def __str__(self) -> str:
        return f"{self.resource} may be lost (fence {self.fence})"
