"""No password of the lock server is ever shown: whoever writes it, wherever it stands."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List, Set

import pytest
from celery import Celery

from celery_redlock import (
    ConfigurationError,
    LockConflict,
    LockedTask,
    LockTimeout,
    LockUnavailable,
)
from celery_redlock.core.ports import Acquire, AcquireAnswer
from celery_redlock.integration.lock_signals import SIGNALS
from celery_redlock.integration.runtime import Runtime, runtime_of
from celery_redlock.locking.manager import Manager
from celery_redlock.store.memory import MemoryStore
from tests.harness.servers import LockServer
from tests.worker.local import apps_apart, local_app, local_worker

SECRET = "S3CRET"

#: Settings as a user may write them, each with the password in it.
WRITTEN: Dict[str, Dict[str, Any]] = {
    "url": {"redlock_url": f"redis://:{SECRET}@127.0.0.1:1/2"},
    "user": {"redlock_url": f"redis://locks:{SECRET}@127.0.0.1:1/2"},
    "query": {"redlock_url": f"redis://127.0.0.1:1/2?password={SECRET}"},
    "socket": {"redlock_url": f"redis+socket://:{SECRET}@/nobody.sock"},
    "list": {"redlock_url": [f"redis://:{SECRET}@{host}" for host in "abc"]},
    "options": {"redlock_url": "redis://127.0.0.1:1", "redlock_options": {"password": SECRET}},
    "nested": {
        "redlock_url": "redis://127.0.0.1:1",
        "redlock_options": {"sentinel_kwargs": {"password": SECRET}},
    },
}


@pytest.fixture(autouse=True)
def _apps_of_its_own() -> Iterator[None]:
    with apps_apart():
        yield


def plain(settings: Dict[str, Any], **options: Any) -> Celery:
    return local_app(**settings, **options)


def namespaced(settings: Dict[str, Any], **options: Any) -> Celery:
    app = local_app(**options)
    source = {f"CELERY_{name.upper()}": value for name, value in settings.items()}
    given = {f"CELERY_{name.upper()}": value for name, value in app.conf.changes.items()}
    given.update(CELERY_BROKER_URL=app.conf.broker_url, CELERY_RESULT_BACKEND="cache+memory://")
    app = Celery("shop", set_as_current=False)
    app.config_from_object(SimpleNamespace(**{**given, **source}), namespace="CELERY")
    return app


WAYS = [plain, namespaced]
Way = Callable[..., Celery]


def declare(app: Celery, **options: Any) -> Any:
    @app.task(name="shop.sync", base=LockedTask, lock_on_outage="fail", **options)
    def sync() -> None: ...

    return app.tasks["shop.sync"]


def in_full(error: BaseException) -> str:
    return repr(error) + "".join(
        traceback.format_exception(type(error), error, error.__traceback__)
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("written", WRITTEN)
def test_celerys_views_of_the_configuration_mask_it(way: Way, written: str) -> None:
    app = way(WRITTEN[written])
    for text in (
        repr(app.conf.table()),
        repr(app.conf.table(with_defaults=True)),
        app.conf.humanize(),
        app.bugreport(),
    ):
        assert SECRET not in text
        assert "redlock_url" in text.lower()


@pytest.mark.parametrize("way", WAYS)
def test_inspect_conf_masks_it(redis_server: LockServer, way: Way) -> None:
    for written in ("list", "options"):
        app = way({**WRITTEN[written], "redlock_eager": True})
        app.conf.broker_url = app.conf.result_backend = redis_server.url
        with local_worker(app):
            text = json.dumps(app.control.inspect(timeout=5, limit=1).conf())
        assert "redlock_eager" in text.lower()
        assert "redlock_url" in text.lower()
        assert SECRET not in text


APP = """
from types import SimpleNamespace
from celery import Celery
app = Celery("project", broker="memory://")
app.config_from_object(SimpleNamespace(**{}), namespace={!r})
"""


@pytest.mark.parametrize("namespace", ["", "CELERY_"])
def test_celery_report_masks_it_also_if_the_app_imports_nothing_of_ours(
    tmp_path: Path, namespace: str
) -> None:
    settings = {name: value for written in WRITTEN.values() for name, value in written.items()}
    names = {namespace.lower() + name: value for name, value in settings.items()}
    given = {name.upper() if namespace else name: value for name, value in names.items()}
    (tmp_path / "project.py").write_text(APP.format(given, namespace.rstrip("_") or None))
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "project", "report"],
        cwd=str(tmp_path),
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "redlock_url" in done.stdout.lower()
    assert SECRET not in done.stdout + done.stderr


def everything_of(runtime: Runtime) -> List[Any]:
    """The runtime and all objects of ours that it is made of."""
    found: List[Any] = [runtime]
    for thing in found:
        for part in vars(thing).values() if hasattr(thing, "__dict__") else ():
            ours = type(part).__module__.startswith(("celery_redlock", "redis"))
            if ours and not any(part is known for known in found):
                found.append(part)
    return found


@pytest.mark.parametrize("written", ["url", "user", "query", "socket", "options"])
def test_our_objects_do_not_show_it(written: str) -> None:
    app = plain(WRITTEN[written])
    runtime = runtime_of(app)
    assert runtime.settings.given["redlock_url"]
    assert runtime.manager is not None
    things = everything_of(runtime)
    assert {"Runtime", "Settings", "Manager", "SingleServer", "Connections"} <= {
        type(thing).__name__ for thing in things
    }
    assert SECRET not in repr(things)
    assert SECRET not in "".join(str(thing) for thing in things)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("written", ["url", "user", "query", "options"])
def test_errors_and_log_lines_about_a_server_that_is_away_do_not_show_it(
    way: Way, written: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(LockUnavailable) as caught:
        declare(way(WRITTEN[written]))()
    assert SECRET not in in_full(caught.value)
    assert "127.0.0.1:1" in str(caught.value)
    assert "no answer about shop.sync" in caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in "".join(repr(vars(record)) for record in caplog.records)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """All that is logged, with its extra fields, and all that is signalled."""
    heard: List[Dict[str, Any]] = []

    def hear(**fields: Any) -> None:
        heard.append(fields)

    caplog.set_level(logging.DEBUG)
    for each in SIGNALS:
        each.connect(hear, weak=False, dispatch_uid="secrets")
    yield lambda: caplog.text + repr([vars(line) for line in caplog.records]) + repr(heard)
    for each in SIGNALS:
        each.disconnect(dispatch_uid="secrets")


@pytest.mark.parametrize("written", ["url", "user", "query", "options"])
def test_signals_about_a_server_that_is_away_do_not_show_it(
    written: str, told: Callable[[], str]
) -> None:
    with pytest.raises(LockUnavailable):
        declare(plain(WRITTEN[written]))()
    assert "'servers': 'redis://127.0.0.1:1" in told()
    assert SECRET not in told()


class TokensSeen(MemoryStore):
    """A lock server that notes whom it hears of."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: Set[str] = set()

    def acquire(self, request: Acquire) -> AcquireAnswer:
        self.tokens.add(request.token)
        return super().acquire(request)


@pytest.mark.parametrize("policy", ["wait", "skip", "fail"])
def test_neither_tokens_nor_arguments_are_told(policy: str, told: Callable[[], str]) -> None:
    app = plain({})
    runtime, store = runtime_of(app), TokensSeen()
    runtime._manager = Manager(store, runtime.emit)

    @app.task(name="shop.pay", base=LockedTask, lock_on_conflict=policy, lock_wait_timeout=0.1)
    def pay(card: str) -> None:
        # The same call, made by somebody else meanwhile.
        if not rivals:
            rivals.append(threading.Thread(target=pay_too))
            rivals[0].start()
            rivals[0].join(20)
            assert not rivals[0].is_alive()

    rivals: List[threading.Thread] = []

    def pay_too() -> None:
        with suppress(LockConflict, LockTimeout):
            pay(SECRET)

    pay(SECRET)
    said = told()
    for line in ("lock_acquired", "lock_timeout" if policy == "wait" else "lock_conflict"):
        assert f"'redlock_event': '{line}'" in said
    assert SECRET not in said
    assert len(store.tokens) >= 2
    assert not [token for token in store.tokens if token in said]


@pytest.fixture
def locks_user(lock_server: LockServer) -> Iterator[str]:
    """A user of the lock server with another password than the one that is used."""
    with lock_server.client() as client:
        client.acl_setuser("locks", enabled=True, passwords=["+right"], categories=["+@all"])
        yield "locks"
        client.acl_deluser("locks")


def test_a_wrong_password_is_not_shown(
    lock_server: LockServer, locks_user: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"redis://{locks_user}:{SECRET}@127.0.0.1:{lock_server.port}/0"
    with pytest.raises(LockUnavailable) as caught:
        declare(plain({"redlock_url": url}))()
    assert str(caught.value) == (
        f"no answer from the lock server: redis://127.0.0.1:{lock_server.port}/0 "
        "(the server refused the user name or password)"
    )
    assert SECRET not in in_full(caught.value) + caplog.text


def test_a_workers_output_does_not_show_a_wrong_password(
    redis_server: LockServer, lock_server: LockServer, locks_user: str, tmp_path: Path
) -> None:
    url = f"redis://{locks_user}:{SECRET}@127.0.0.1:{lock_server.port}/0"
    (tmp_path / "project.py").write_text(
        "from tests.worker.local import local_app\n"
        "from tests.worker.test_secrets import declare\n"
        f"app = local_app(server={redis_server.url!r}, redlock_url={url!r})\n"
        "app.conf.task_default_queue = 'secrets'\n"
        "declare(app)\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "project", "worker", "-l", "DEBUG", "-c", "1"],
        cwd=str(tmp_path),
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        app = local_app(server=redis_server.url, redlock_url=url)
        app.conf.task_default_queue = "secrets"
        with pytest.raises(LockUnavailable) as caught:
            declare(app).delay().get(timeout=30)
    finally:
        worker.terminate()
        # Up to Celery 5.6 a child may wait half a minute for its parent to read its last result.
        output = worker.communicate(timeout=60)[0]
    assert "refused the user name or password" in str(caught.value)
    assert "refused the user name or password" in output
    assert SECRET not in str(caught.value) + output


@pytest.mark.parametrize(
    "settings",
    [
        {"redlock_url": f"redis://:{SECRET}/x@host/0"},
        {"redlock_url": f"redis://:x{SECRET}#y@host/0"},
        {"redlock_url": f"redis://:{SECRET}?y@host/0"},
        {"redlock_url": f"redis://:{SECRET}[@host/0"},
        {"redlock_url": f"redis://:{SECRET}@host:port/0"},
        {"redlock_url": f"redis://:{SECRET}@host/zero"},
        {"redlock_url": f"http://:{SECRET}@host"},
        {"redlock_url": f":{SECRET}@host"},
        {"redlock_url": [f"redis://:{SECRET}@a", f"redis://:{SECRET}@b"]},
        {"redlock_url": f"redis://:{SECRET}@a;redis://:{SECRET}@b"},
        {"redlock_url": f"sentinel://:{SECRET}@a"},
        {"redlock_url": {"password": SECRET}},
        {"redlock_url": "redis://a", "redlock_options": {"password": SECRET, "x": SECRET}},
        {"redlock_url": "redis://a", "redlock_options": SECRET},
        {"redlock_urls": f"redis://:{SECRET}@a"},
    ],
)
def test_a_setting_that_is_refused_does_not_show_it(settings: Dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        declare(plain(settings))()
    assert SECRET not in in_full(caught.value)
