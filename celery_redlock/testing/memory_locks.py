"""The locks of apps in memory, for as long as a context lasts, and what a test may do with them."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from celery_redlock.core import events
from celery_redlock.core.ports import HolderView
from celery_redlock.core.record import Record
from celery_redlock.integration import settings as conf
from celery_redlock.integration.interruption import interrupter
from celery_redlock.integration.relay import relayed
from celery_redlock.integration.runtime import Runtime, runtime_of
from celery_redlock.integration.stand_in import standing_in
from celery_redlock.locking import identity
from celery_redlock.locking.manager import Manager
from celery_redlock.testing.rival import Rival, holder_of, named
from celery_redlock.testing.substitutes import NEVER, PatientManager, Store, is_dead

#: Seconds for which a rival holds: longer than any test, and than any ``advance`` in one.
_LONG = 86400

#: Whose bodies may still be ending when a test is over, in seconds.
_ENDING = 2.0


class Met(NamedTuple):
    """A task, or a Lock, met another holder of what it asked for.

    ``decision`` is "wait", "retry", "skip" or "fail", and "timeout" for one that had waited.
    """

    resource: str
    task: Optional[str]
    decision: str


class MemoryLocks:
    """The locks of apps, kept in memory while this context lasts. Made by ``memory_locks``.

    For any thread of this process; a forked child and other processes have nothing of it.
    """

    def __init__(
        self, apps: Sequence[Any], *, eager: Optional[bool], longest_wait: Optional[float]
    ) -> None:
        self._apps = [_real(app) for app in apps]
        self._eager = eager
        self._longest_wait = longest_wait
        self._advanced_ms = 0
        self._stores: Dict[str, Store] = {}
        self._settings: Dict[int, Tuple[Any, conf.Settings]] = {}
        self._managers: Dict[int, PatientManager] = {}
        self._rivals: List[Rival] = []
        self._making = threading.RLock()
        self._standing = ExitStack()
        #: Every event of these apps, in its order: see ``celery_redlock.core.events``.
        self.events: List[events.Event] = []

    def __enter__(self) -> MemoryLocks:
        self._standing.enter_context(standing_in(self))
        return self

    def __exit__(self, kind: Any, *_error: Any) -> None:
        """Raises AssertionError for a lock that is left, unless the test has failed already."""
        try:
            for rival in self._rivals:
                rival.release()
            if kind is None:
                self.assert_none_left()
        finally:
            self._standing.close()
            for manager in self._managers.values():
                manager.stop()

    # --- what a test arranges

    def hold(self, what: Any, *args: Any, **kwargs: Any) -> Rival:
        """Hold something as somebody else would: until its release, or the end of the test.

        ``what`` is a task, with the arguments of a call of it, or a resource's name; with a name
        ``mode``, ``limit``, ``task_id`` and ``app`` say how it is held. Raises LockConflict if it
        is held already.
        """
        return self._rival(what, args, kwargs, {})

    def expired(self, what: Any, *args: Any, **kwargs: Any) -> Rival:
        """As ``hold``, by somebody whose lease is over: it is in nobody's way."""
        rival = self._rival(what, args, kwargs, {}, lease_ms=1)
        while any(view.remaining_ms > 0 for view in rival.seen()):
            time.sleep(0.001)
        return rival

    def killed(self, what: Any, *args: Any, **kwargs: Any) -> Rival:
        """As ``hold``, by a process of this host that is dead: whoever asks next takes over."""
        me = identity.here()
        process = {"host": me.host, "boot_id": me.boot_id, "pid_namespace": me.pid_namespace}
        return self._rival(what, args, kwargs, {**process, "pid": me.pid, "started": NEVER})

    def lose(self, what: Any, *args: Any, **kwargs: Any) -> Rival:
        """Have a rival take it from whoever holds it: a body that does is told at once.

        It is interrupted then, as its task's ``lock_on_lost`` says: also where it calls this. The
        rival holds it as after ``hold``.
        """
        app, names = named(what, args, kwargs)[:2]
        manager = runtime_of(app).manager
        losers = [hold for hold in manager.watchdog.renewing if hold.resource in names]
        for name in names:
            manager.force(name, self._holders(app, name), "a test")
        rival = self.hold(what, *args, **kwargs)
        for hold in losers:
            manager.watchdog.lost(hold, "granted to another")
        return rival

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Have the lock server not answer, for all of these apps, within the context."""
        for store in self._stores.values():
            store.is_away = True
        self._away = True
        try:
            yield
        finally:
            self._away = False
            for store in self._stores.values():
                store.is_away = False

    def advance(self, seconds: float) -> None:
        """Put the lock server's clock forward: what is not renewed meanwhile has expired.

        A body believes in its lease by the clock of its own process: only its next renewal tells.
        """
        self._advanced_ms += int(seconds * 1000)

    # --- what a test asks

    @property
    def conflicts(self) -> List[Met]:
        """Whoever met another holder so far, in their order."""
        met = []
        for event in list(self.events):
            if isinstance(event, events.Waiting):
                met.append(Met(event.resource, event.owner.task, "wait"))
            elif isinstance(event, events.Conflicted):
                met.append(Met(event.resource, event.owner.task, event.decision))
            elif isinstance(event, events.TimedOut):
                met.append(Met(event.resource, event.owner.task, "timeout"))
        return met

    def holders(self, what: Any, *args: Any, **kwargs: Any) -> List[str]:
        """Who holds it, the longest first: task ids, or host and pid for a Lock."""
        app, names = named(what, args, kwargs)[:2]
        seen = [view for name in names for view in self._holders(app, name)]
        return [holder_of(view) for view in seen]

    def is_held(self, what: Any, *args: Any, **kwargs: Any) -> bool:
        """Whether anybody holds it."""
        return bool(self.holders(what, *args, **kwargs))

    def assert_none_left(self, within: float = _ENDING) -> None:
        """Raise AssertionError if a lock is held by anybody but a rival of this test.

        Bodies of a worker's that are about to end have so many seconds. What is kept over a retry
        (``lock_on_retry="keep"``) is left on purpose.
        """
        deadline = time.monotonic() + within
        while True:
            left = self._left()
            if not left:
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"locks are left: {'; '.join(left)}")
            time.sleep(0.01)

    # --- in place of the lock server

    def covers(self, app: Any) -> bool:
        return not self._apps or app in self._apps

    def settings(self, app: Any) -> conf.Settings:
        known = self._settings.get(id(app))
        if known is None:
            known = (app, self._made(conf.read(app)))
            known = self._settings.setdefault(id(app), known)
        return known[1]

    def manager(self, runtime: Runtime) -> Manager:
        manager = self._managers.get(id(runtime))
        if manager is None:
            with self._making:
                manager = self._managers.get(id(runtime)) or self._new_manager(runtime)
                self._managers[id(runtime)] = manager
        return manager

    def hear(self, event: events.Event) -> None:
        self.events.append(event)

    # --- within

    _away = False

    def _made(self, settings: conf.Settings) -> conf.Settings:
        eager = settings.eager if self._eager is None else self._eager
        given = dict(settings.given)
        if self._longest_wait is not None and given.get("redlock_wait_timeout") is None:
            given["redlock_wait_timeout"] = self._longest_wait
        return replace(settings, enabled=True, eager=eager, given=given)

    def _new_manager(self, runtime: Runtime) -> PatientManager:
        prefix = runtime.settings.prefix
        if prefix not in self._stores:
            self._stores[prefix] = Store(clock_ms=self._now_ms)
            self._stores[prefix].is_away = self._away
        manager = PatientManager(
            self._stores[prefix],
            relayed(runtime.emit),
            is_dead=is_dead,
            on_doubt=relayed(interrupter.interrupt),
        )
        manager.longest_wait = self._longest_wait
        return manager

    def _now_ms(self) -> int:
        return int(time.time() * 1000) + self._advanced_ms

    def _rival(
        self,
        what: Any,
        args: Sequence[Any],
        kwargs: Dict[str, Any],
        process: Dict[str, Any],
        lease_ms: int = _LONG * 1000,
    ) -> Rival:
        app, names, terms, task_id = named(what, args, kwargs)
        fields: Dict[str, Any] = {"host": "elsewhere", "pid": 1, "task_id": task_id, **process}
        record = Record(since=time.time(), **fields)
        rival = Rival(runtime_of(app).manager, names)
        self._rivals.append(rival)
        rival.take(terms._replace(lease_ms=lease_ms), record)
        return rival

    def _holders(self, app: Any, name: str) -> List[HolderView]:
        views = runtime_of(app).manager.inspect(name).holders
        return [view for view in views if view.remaining_ms > 0]

    def _left(self) -> List[str]:
        rivals = {token for rival in self._rivals for token in rival.tokens.values()}
        return [
            f"{name} is held by {holder_of(view)}"
            for store in list(self._stores.values())
            for part in store.survey()
            for name, resource in part
            for view in resource.holders
            if view.remaining_ms > 0 and view.state != "kept" and view.token not in rivals
        ]


def memory_locks(
    *apps: Any, eager: Optional[bool] = True, longest_wait: Optional[float] = 10.0
) -> MemoryLocks:
    """A context in which locks are kept in memory: those of these apps, or without any, of all.

    Apps with one prefix have their locks in common, as on one server. Locking is on, whatever
    ``redlock_enabled`` says. ``eager``: whether tasks in eager mode lock; None: what
    ``redlock_eager`` says. ``longest_wait``: seconds after which whoever waits fails with
    LockTimeout, so that no test hangs; None: what tasks and settings say.
    """
    return MemoryLocks(apps, eager=eager, longest_wait=longest_wait)


class MemoryLocksMixin:
    """For unittest: ``class SyncTest(MemoryLocksMixin, TestCase)`` has ``self.locks``."""

    locks: MemoryLocks

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        self.locks = memory_locks().__enter__()
        self.addCleanup(self._end_locks)  # type: ignore[attr-defined]

    def _end_locks(self) -> None:
        self.locks.__exit__(None)


def _real(app: Any) -> Any:
    return app._get_current_object() if hasattr(app, "_get_current_object") else app
