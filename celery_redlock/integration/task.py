"""LockedTask: the base class that users write."""

from __future__ import annotations

from typing import Any, ClassVar, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from celery import Task

from celery_redlock.core.naming import Naming
from celery_redlock.core.options import OPTIONS, LockOptions
from celery_redlock.core.ports import HolderView
from celery_redlock.core.record import Record
from celery_redlock.exceptions import ConfigurationError
from celery_redlock.integration import autoretry, binding, signals, startup
from celery_redlock.integration.gate import gate
from celery_redlock.integration.models import as_published
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.locking.execution import CurrentLock, current_lock


class ResourceState(NamedTuple):
    """A resource at one moment, ready for JSON.

    ``holders`` are mappings with task, task_id, worker, host, pid, since (Unix time of the grant),
    expires_in (seconds), mode and fence, the longest holder first; ``waiting`` is how many stand in
    line; ``fence`` the last number issued, None where none is known.
    """

    resource: str
    holders: Tuple[Dict[str, Any], ...]
    waiting: int
    fence: Optional[int]


class LockedTask(Task):  # type: ignore[misc]
    """A task whose body runs under a lock: ``@app.task(base=LockedTask)``.

    The options are class attributes; None means what the setting of the same meaning says. They are
    checked when the task is bound to its app: ConfigurationError says what was expected. Durations
    are seconds as int or float, or a timedelta. docs/options.md has them all.
    """

    abstract = True
    Request = "celery_redlock.integration.request:LockedRequest"

    #: What is locked: None the task and all its arguments, a tuple of argument names the task and
    #: those, a template or a callable a name that tasks may share, a list of templates several.
    lock_key: ClassVar[Any] = None
    #: How many may hold it at once.
    lock_limit = 1
    #: "exclusive" or "shared".
    lock_mode = "exclusive"
    #: The lease in seconds, 1 to 86400; renewed at a third of it.
    lock_ttl = None
    #: The longest that renewal keeps the lock of a body, in seconds.
    lock_max_hold = None
    #: "wait", "retry", "skip", "fail" or a callable over a Conflict.
    lock_on_conflict: ClassVar[Any] = None
    #: The longest wait in seconds, from the first ask; then LockTimeout.
    lock_wait_timeout = None
    #: How many may wait per resource.
    lock_max_waiting = None
    #: What happens to one more: "skip" it, or "drop_oldest".
    lock_overflow = None
    #: "release", or "keep" it over the retry's countdown.
    lock_on_retry = None
    #: "cancel", "cancel_unsure" or "warn".
    lock_on_lost = None
    #: "retry", "fail" or "run" without the lock.
    lock_on_outage = None

    #: Celery's own option: what autoretry passes on, also where a task gives others.
    dont_autoretry_for: ClassVar[Any] = autoretry.INTERRUPTIONS

    _naming: Optional[Naming] = None
    _options: Optional[Tuple[Any, LockOptions]] = None

    @classmethod
    def bind(cls, app: Any) -> Any:
        tasks = binding.tasks_of(cls, app)
        # Celery's own tasks are never locked.
        if not tasks or any(name.startswith("celery.") for name in tasks):
            return super().bind(app)
        try:
            binding.join_app_base(cls, app)
            retries = [(task, autoretry.options_of(task)) for task in binding.instances(tasks)]
            bound = super().bind(app)
            for task, options in retries:
                autoretry.spare_interruptions(task, options)
            for name, task in tasks.items():
                binding.check(task, cls, LockedTask, name)
                task._naming = binding.naming_of(task, cls, app, name)
                task._options = None
            binding.join_request(cls, LockedTask)
            binding.install_gate(cls, gate)
        except ConfigurationError:
            binding.forget(tasks, app)
            raise
        signals.connect()
        startup.at_start(app)
        return bound

    @property
    def lock(self) -> CurrentLock:
        """The lock of the execution that this runs in; LockError outside a body."""
        return current_lock()

    def lock_resource(self, /, *args: Any, **kwargs: Any) -> Union[str, Tuple[str, ...], None]:
        """The name that a call with these arguments locks, several names, or None for no lock.

        Raises ConfigurationError for arguments that cannot be part of a name; asks nobody.
        """
        names = self.redlock_names(args, kwargs)
        if not names:
            return None
        return names[0] if len(names) == 1 else names

    def lock_state(self, /, *args: Any, **kwargs: Any) -> Any:
        """The state of the resource of a call with these arguments; asks the lock server.

        A tuple of states if the call locks several resources, None if it locks none. Raises
        LockUnavailable when the lock server is away.
        """
        states = tuple(self._state_of(name) for name in self.redlock_names(args, kwargs))
        if len(states) > 1:
            return states
        return states[0] if states else None

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """As Celery's; refuses lock options, which belong to the task and not to one call."""
        if kwargs.get("unique", True) is None:  # "not unique, this time": no task is so far
            del kwargs["unique"]
        stamps = kwargs.get("stamped_headers") or ()  # a caller's own names
        binding.refuse_options(self.name, [name for name in kwargs if name not in stamps])
        return super().apply_async(*args, **kwargs)

    def redlock_names(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tuple[str, ...]:
        """The names that a call locks, in their order; none for a call without a lock."""
        if self._naming is None:
            return ()
        return self._naming.names(*as_published(self, args, kwargs))

    def redlock_runs_users_code(self) -> bool:
        """Whether it takes code of the user's to name what is locked or to decide a conflict."""
        is_named_so = self._naming is not None and self._naming.is_users
        return is_named_so or callable(self.redlock_options().on_conflict)

    def redlock_options(self) -> LockOptions:
        """The options in force: attribute, else worker flag, else setting, else default."""
        settings = runtime_of(self.app).settings
        if self._options is None or self._options[0] is not settings:
            attributes = binding.options_of(self, OPTIONS)
            self._options = (settings, runtime_of(self.app).options(attributes, self.name))
        assert self._options is not None
        return self._options[1]

    def _state_of(self, name: str) -> ResourceState:
        view = runtime_of(self.app).inspect(name)
        return ResourceState(
            resource=name,
            holders=tuple(_holder(seen) for seen in view.holders if seen.remaining_ms > 0),
            waiting=sum(waiter.remaining_ms > 0 for waiter in view.waiters),
            fence=view.fence or None,
        )


def _holder(seen: HolderView) -> Dict[str, Any]:
    record = Record.decode(seen.record)
    record = record and record.granted(seen.fence)
    return {
        "task": record and record.task,
        "task_id": record and record.task_id,
        "worker": record and record.worker,
        "host": record and record.host,
        "pid": record and record.pid,
        "since": record and record.since,
        "expires_in": seen.remaining_ms / 1000,
        "mode": seen.mode,
        "fence": seen.fence,
    }
