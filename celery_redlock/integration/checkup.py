"""The doctor's visit: facts about an app and about its lock servers, and what they mean."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from celery.backends.base import DisabledBackend

from celery_redlock.core.checkup.facts import AppFacts, ServerFacts, TaskFacts
from celery_redlock.core.checkup.finding import Finding
from celery_redlock.core.checkup.server import check_server
from celery_redlock.core.checkup.servers import check_servers
from celery_redlock.core.checkup.tasks import check_app
from celery_redlock.core.kinds import seconds
from celery_redlock.exceptions import ConfigurationError
from celery_redlock.integration import settings as conf
from celery_redlock.integration.inquiring import SILENT, Beside, ask_workers
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.integration.task import LockedTask
from celery_redlock.store.examining import examine
from celery_redlock.store.single import Server
from celery_redlock.store.urls import open_store

#: Seconds after which these brokers deliver again what is not acknowledged, by the URL's beginning.
_VISIBLE = {"redis": 3600.0, "rediss": 3600.0, "sentinel": 3600.0, "valkey": 3600.0, "sqs": 1800.0}

#: Of these what is kept unacknowledged is dated anew: see ``parking.visibility``.
_RENEWED = ("redis", "rediss", "sentinel")

#: Names that apps have without being given one.
_NO_NAMES = (None, "", "__main__", "default", "celery")


def visit(app: Any) -> List[Finding]:
    """Everything that there is to say; asks the lock servers, and tries a lock on each.

    The workers are asked meanwhile; there may be none, and no broker either.
    """
    facts = app_facts(app)
    servers: Sequence[ServerFacts] = []
    if not facts.errors:
        workers = Beside(lambda: _servers_of_workers(app))
        servers = server_facts(app)
        facts = replace(facts, workers=workers.answer(SILENT) or {})
    return [
        *(finding for server in servers for finding in check_server(server, facts)),
        # Those of a cluster are no independent ones.
        *(check_servers(servers) if len(facts.servers) > 1 else ()),
        *check_app(facts),
    ]


def server_facts(app: Any) -> Sequence[ServerFacts]:
    """Each of the app's lock servers, all asked at the same time."""
    servers = _servers(app)
    with ThreadPoolExecutor(len(servers)) as threads:
        return list(threads.map(examine, servers))


def _servers_of_workers(app: Any) -> Dict[str, Tuple[str, ...]]:
    answers = ask_workers(app, "redlock_server")
    return {
        worker: tuple(str(server) for server in answer["servers"])
        for worker, answer in answers
        if isinstance(answer, dict) and isinstance(answer.get("servers"), list)
    }


def _servers(app: Any) -> List[Server]:
    settings = runtime_of(app).settings
    url, options = conf.server(app, settings)
    if isinstance(url, str):
        store: Any = runtime_of(app).manager.store
        found: List[Server] = store.servers()
        return found
    # Of several that decide together each is a server like any other.
    stores: List[Any] = [open_store(each, prefix=settings.prefix, options=options) for each in url]
    return [server for store in stores for server in store.servers()]


def app_facts(app: Any) -> AppFacts:
    """The app's settings and its locked tasks, after its task modules were imported."""
    import_error = _import_tasks(app)
    errors = tuple(_errors(app))
    if errors:
        return AppFacts(errors, import_error)
    settings = runtime_of(app).settings
    return AppFacts(
        import_error=import_error,
        is_enabled=settings.enabled,
        has_own_prefix=bool(settings.given.get("redlock_prefix")) or app.main not in _NO_NAMES,
        prefix=settings.prefix,
        restart_grace=settings.restart_grace,
        visibility_timeout=_visibility_timeout(app),
        renews_messages=_driver(app) in _RENEWED,
        max_park=_duration(settings.given.get("redlock_max_park")),
        tasks=tuple(_task_facts(app, task) for task in _locked_tasks(app)),
        servers=tuple(runtime_of(app).servers),
    )


def _import_tasks(app: Any) -> Optional[str]:
    """As a worker does; why it failed, None if it did not."""
    try:
        app.loader.import_default_modules()
        app.finalize(auto=True)
    except Exception as error:  # noqa: BLE001 - anybody's code
        return f"{type(error).__name__}: {error}"
    return None


def _errors(app: Any) -> Iterator[str]:
    """What a worker would not start with."""
    runtime = runtime_of(app)
    try:
        runtime.check()
        conf.server(app, runtime.settings)
    except ConfigurationError as error:
        yield error.message
        return
    for task in _locked_tasks(app):
        try:
            task.redlock_options()
        except ConfigurationError as error:
            yield error.message


def _locked_tasks(app: Any) -> List[Any]:
    return [
        task
        for name, task in sorted(app.tasks.items())
        if isinstance(task, LockedTask) and not name.startswith("celery.")
    ]


def _task_facts(app: Any, task: Any) -> TaskFacts:
    options = task.redlock_options()
    policy = options.on_conflict
    return TaskFacts(
        name=task.name,
        lease=options.ttl,
        max_hold=options.max_hold,
        wait_timeout=options.wait_timeout,
        on_conflict=policy if isinstance(policy, str) else "wait",
        soft_time_limit=_duration(task.soft_time_limit or app.conf.task_soft_time_limit),
        time_limit=_duration(task.time_limit or app.conf.task_time_limit),
        acks_late=bool(task.acks_late),
        keeps_results=not (task.ignore_result or isinstance(task.backend, DisabledBackend)),
    )


def _driver(app: Any) -> str:
    """The transport of the broker, as its URL says."""
    urls: Any = app.conf.broker_write_url
    url = (urls[0] if isinstance(urls, (list, tuple)) and urls else urls) or ""
    return str(url).split("://")[0].split("+")[0]


def _visibility_timeout(app: Any) -> Optional[float]:
    default = _VISIBLE.get(_driver(app))
    if default is None:
        return None
    given = (app.conf.broker_transport_options or {}).get("visibility_timeout")
    return _duration(given) or default


def _duration(given: Any) -> Optional[float]:
    return None if given is None else seconds(given)
