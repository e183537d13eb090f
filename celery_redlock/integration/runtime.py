"""One app's locking in one process: its settings, its store and its manager, made when first used.

A fork keeps the runtime and resets the manager's life; a spawned process makes its own.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import threading
import time
from typing import Any, Callable, Dict, List, Mapping, Optional
from weakref import WeakKeyDictionary

from celery import _state
from celery.exceptions import SoftTimeLimitExceeded

from celery_redlock.core import events
from celery_redlock.core.options import LockOptions, read_setting, resolve
from celery_redlock.core.ports import NoAnswer, ResourceView, Store, Terms
from celery_redlock.core.record import Record
from celery_redlock.core.redlock import check_redlock
from celery_redlock.core.slot import check_one_slot
from celery_redlock.core.unpatched import is_patched
from celery_redlock.exceptions import ConfigurationError, LockUnavailable
from celery_redlock.integration import lock_signals
from celery_redlock.integration import settings as conf
from celery_redlock.integration.interruption import interrupter
from celery_redlock.integration.relay import relayed
from celery_redlock.integration.stand_in import stand_in_for
from celery_redlock.locking import identity, process
from celery_redlock.locking.asker import Asker
from celery_redlock.locking.execution import Execution
from celery_redlock.locking.hold import Hold
from celery_redlock.locking.manager import Manager
from celery_redlock.observe.logs import log, logger
from celery_redlock.store.several import check_several, open_several
from celery_redlock.store.urls import check_server, is_cluster, open_store, safe

Sink = Callable[[events.Event], None]

#: Seconds for which an ending process waits until what it has abandoned is ended.
_AT_EXIT = 1.0


class Runtime:
    """Everything that the tasks of one app share in this process."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._manager: Optional[Manager] = None
        self._asker: Optional[Asker] = None
        self._settings: Optional[conf.Settings] = None
        self._space: Optional[str] = None
        self.sinks = [log, lock_signals.sender_for(app)]
        #: The outermost task of each thread or greenlet, until it has ended for certain.
        self.running: Dict[int, Execution] = {}
        process.join(self)

    def after_fork(self) -> None:
        self.running = {}

    @property
    def settings(self) -> conf.Settings:
        stand_in = stand_in_for(self._app)
        if stand_in is not None:
            return stand_in.settings(self._app)
        if self._settings is None:
            self._settings = conf.read(self._app)
        return self._settings

    @property
    def manager(self) -> Manager:
        stand_in = stand_in_for(self._app)
        if stand_in is not None:
            return stand_in.manager(self)
        if self._manager is None:
            # Two threads may both come here: one manager wins, the other has done nothing yet.
            background = self._background()
            manager = Manager(
                self._open_store(),
                relayed(self.emit),
                background=background,
                on_doubt=relayed(interrupter.interrupt),
            )
            self._manager = self._manager or manager
        return self._manager

    @property
    def space(self) -> str:
        """A name for the locks that it knows, which is that of others with the same; no secret."""
        if stand_in_for(self._app) is not None:
            return self.settings.prefix
        if self._space is None:
            url, _options = conf.server(self._app, self.settings)
            told = json.dumps([self.settings.prefix, url])
            self._space = hashlib.sha256(told.encode()).hexdigest()[:16]
        return self._space

    @property
    def asker(self) -> Asker:
        """Asks for what the worker's parent keeps."""
        if self._asker is None or self._asker.manager is not self.manager:
            self._asker = Asker(self.manager)
        return self._asker

    def check(self) -> None:
        """Raise ConfigurationError for any setting that cannot be used, the server's included."""
        settings = self.settings
        if not settings.enabled or stand_in_for(self._app) is not None:
            return
        url, options = conf.server(self._app, settings)
        if isinstance(url, str):
            check_server(url, options)
        else:
            check_several(url, options)

    @property
    def has_locked(self) -> bool:
        """Whether it may have locked something, on its own lock server."""
        return self._manager is not None

    @property
    def servers(self) -> List[str]:
        """The names of the lock servers, for people; none where nothing is locked."""
        if not self.settings.enabled:
            return []
        url, _options = conf.server(self._app, self.settings)
        return [safe(each) for each in ([url] if isinstance(url, str) else url)]

    def check_task(self, task: Any) -> None:
        """Raise ConfigurationError for a task that the lock server cannot serve."""
        if self.settings.enabled and isinstance(task.lock_key, list):
            url, _options = conf.server(self._app, self.settings)
            if isinstance(url, str) and is_cluster(url):
                check_one_slot(task.name, task.lock_key, self.settings.prefix)

    def _background(self) -> Optional[Store]:
        """A store for the threads that no greenlet may hold up, where there are greenlets."""
        return self._open_store(unpatched=True) if is_patched("socket") else None

    def _open_store(self, unpatched: bool = False) -> Store:
        settings = self.settings
        url, options = conf.server(self._app, settings)
        if not isinstance(url, str):
            return open_several(
                url,
                prefix=settings.prefix,
                options=options,
                fence_ttl=settings.fence_ttl,
                longest_lease=self._longest_lease(),
                unpatched=unpatched,
            )
        return open_store(
            url,
            prefix=settings.prefix,
            options=options,
            fence_ttl=settings.fence_ttl,
            restart_grace=settings.restart_grace,
            unpatched=unpatched,
        )

    def _longest_lease(self) -> float:
        """The longest for which any process may lock something, as far as can be told here."""
        ttl: float = read_setting(self.settings.given, "redlock_ttl")
        tasks = list(self._app._tasks.values())
        leases: List[float] = [
            task.redlock_options().ttl for task in tasks if hasattr(task, "redlock_options")
        ]
        return max([ttl, self.settings.restart_grace, *leases])

    def refresh(self) -> None:
        """Read the settings again: the worker's flags have come."""
        self._settings = None
        self._space = None
        self._manager = None
        self._asker = None

    def options(self, attributes: Mapping[str, Any], task: str) -> LockOptions:
        options = resolve(attributes, self.settings.flags, self.settings.given, task)
        if self.settings.is_redlock:
            check_redlock(
                f"task {task}",
                mode=options.mode,
                limit=options.limit,
                max_waiting=options.max_waiting,
                key=options.key,
            )
        return options

    def check_terms(self, where: str, terms: Terms) -> None:
        """Raise ConfigurationError for a lock that cannot be had from these servers."""
        if self.settings.is_redlock:
            check_redlock(where, mode=terms.mode, limit=terms.limit)

    def emit(self, event: events.Event) -> None:
        """Tell every sink; a sink that fails is logged and harms nobody."""
        stand_in = stand_in_for(self._app)
        for sink in (*self.sinks, *([stand_in.hear] if stand_in else ())):
            try:
                sink(event)
            except SoftTimeLimitExceeded:
                raise  # it came while the sink ran, and is the body's
            except Exception:  # noqa: BLE001 - a sink is anybody's code
                logger.exception("an event sink of celery_redlock failed")

    def inspect(self, resource: str) -> ResourceView:
        """The resource as the lock server has it now; raises LockUnavailable."""
        try:
            return self.manager.inspect(resource)
        except NoAnswer as silence:
            raise LockUnavailable(silence.servers) from silence

    def record(
        self,
        task: Optional[str],
        task_id: Optional[str],
        retries: int = 0,
        worker: Optional[str] = None,
    ) -> Record:
        """Who this process is, acting for a task; ``worker`` is the node name of its worker."""
        me = identity.here()
        return Record(
            host=me.host,
            pid=me.pid,
            since=time.time(),
            task_id=task_id,
            task=task,
            retries=retries,
            boot_id=me.boot_id,
            pid_namespace=me.pid_namespace,
            started=me.started,
            inbox=self.manager.wakeups.inbox,
            worker=worker,
        )

    # --- starting clean

    def begin(self, execution: Execution) -> None:
        """A task begins in this thread: what an earlier one left behind here is abandoned."""
        stale = self.running.pop(threading.get_ident(), None)
        if stale is not None:
            self.abandon(stale)
        self.running[threading.get_ident()] = execution

    def finish(self, execution: Execution) -> None:
        """Forget an execution that has released everything."""
        if self.running.get(threading.get_ident()) is execution:
            del self.running[threading.get_ident()]

    def abandon(self, execution: Execution) -> None:
        for owned in list(execution.locks.values()):
            owned.manager.abandon(owned.hold)
        execution.locks.clear()
        for hold in list(execution.holds.values()):
            self.manager.abandon(hold)
        execution.holds.clear()

    def end_left_behind(self, task: Any) -> None:
        """The backup after a task: release what its body's own ``finally`` could not."""
        execution = self.running.get(threading.get_ident())
        # Not while an eager task inside a body ends.
        if execution is not None and execution.request is task.request_stack.top:
            self.finish(execution)
            self.abandon(execution)

    # --- for the dead

    def end_for_dead(self, task: Any, holder: Record, tokens: Mapping[str, str]) -> None:
        """Release what a dead child of this worker held, by its tokens for the resources.

        For a thread of the background.
        """
        spare_kept = task.redlock_options().on_retry == "keep"
        for name, token in tokens.items():
            hold = Hold(name, Terms(), self.record(None, None, worker=holder.worker))
            hold.token = token
            self.manager.end_for_dead(hold, holder, spare_kept=spare_kept)

    def record_of_child(self, request: Any, pid: int) -> Record:
        """What a child of this worker has run, as its parent knows it: ``since`` it took that."""
        retries = request.request_dict.get("retries") or 0
        record = self.record(request.name, request.id, retries, request.hostname)
        since = request.time_start or record.since
        return record._replace(pid=pid, since=since, started=None, inbox=None)


_runtimes: WeakKeyDictionary[Any, Runtime] = WeakKeyDictionary()


@atexit.register
def _finish() -> None:
    """What was abandoned a moment ago would stay for a lease, or its place for as long in line."""
    for runtime in list(_runtimes.values()):
        if runtime.has_locked:
            runtime.manager.finish(_AT_EXIT)


def runtime_of_space(space: str) -> Optional[Runtime]:
    """The runtime of this process that has locked something there; None where there is none."""
    for runtime in list(_runtimes.values()):
        if runtime.has_locked and runtime.space == space:
            return runtime
    return None


def app_in_use() -> Any:
    """The current app, or the only one; ConfigurationError where that is not certain.

    In a thread without a current app Celery makes one of its own, which has another prefix on
    perhaps another server: what is locked there excludes nobody.
    """
    default = _state.default_app
    current = _state._tls.current_app or (None if _is_makeshift(default) else default)
    if current is not None:
        return current
    apps = [app for app in _state._get_active_apps() if not _is_makeshift(app)]
    if len(apps) > 1:
        raise ConfigurationError(
            f"expected to know the Celery app, got {len(apps)} of them and no current one in this "
            "thread; give app=, or call the app's set_default()"
        )
    return apps[0] if apps else _state.get_current_app()


def _is_makeshift(app: Any) -> bool:
    """Whether it is the one that Celery makes where there is none."""
    return app is None or (app.main == "default" and not app.fixups)


def runtime_of(app: Any) -> Runtime:
    """The runtime of an app in this process."""
    app = app._get_current_object() if hasattr(app, "_get_current_object") else app
    runtime = _runtimes.get(app)
    if runtime is None:
        runtime = _runtimes.setdefault(app, Runtime(app))
    return runtime
