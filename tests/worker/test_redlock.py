"""Locked tasks over five independent servers, and what is refused there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Iterator

import pytest

from celery_redlock import ConfigurationError, Lock, LockedTask, LockUnavailable
from celery_redlock.integration.runtime import runtime_of
from tests.harness.independent import Independent
from tests.harness.locked_shop import eventually
from tests.harness.servers import LockServer
from tests.harness.shop import MakeShop
from tests.harness.ways import WAYS
from tests.harness.worker import ROOT
from tests.worker.forked_locks import Settings
from tests.worker.local import apps_apart, local_app, local_worker

SOON = 40.0
NOBODY = [f"redis://:secret@127.0.0.1:{port}" for port in (1, 2, 3)]


@pytest.fixture(autouse=True)
def _apps_of_its_own() -> Iterator[None]:
    with apps_apart():
        yield


def test_tasks_of_a_worker_exclude_each_other_while_two_servers_die(make_shop: MakeShop) -> None:
    with Independent.durable() as independent:
        shop = make_shop(redlock_url=independent.urls)
        shop.worker(app="tests.worker.redlock_app", concurrency=4)
        gate = shop.gate()
        results = [shop.app.send_task("shop.count", (str(gate.path),)) for _ in range(6)]
        shop.bodies.wait_for(count_started=1, resource="counted", timeout=SOON)
        for server in independent.servers[:2]:
            server.kill()
        gate.open()
        fences = [result.get(timeout=SOON) for result in results]
        assert len(set(fences)) == len(fences)
        shop.bodies.assert_exclusive()
        shop.bodies.assert_fences_grow()


def test_without_a_majority_no_body_runs_and_the_result_says_who_is_missing_and_how(
    make_shop: MakeShop,
) -> None:
    with Independent.durable() as independent:
        shop = make_shop(redlock_url=independent.urls, redlock_on_outage="fail")
        shop.worker(app="tests.worker.redlock_app", concurrency=2)
        assert shop.app.send_task("shop.count").get(timeout=SOON) > 0
        *dead, hung = independent.servers[:3]
        for server in dead:
            server.kill()
        hung.pause()
        try:
            results = [shop.app.send_task("shop.count") for _ in range(3)]
            for result in results:
                with pytest.raises(LockUnavailable) as away:
                    result.get(timeout=SOON)
                told = away.value.servers
                for server in dead:
                    assert re.search(rf"{server.url} \((refused|connection lost)\)", told), told
                assert f"{hung.url} (no answer in 0.5 s)" in told
                assert told.endswith("; 3 of 5 must answer")
                assert not any(server.url in told for server in independent.servers[3:]), told
            assert len(shop.bodies.bodies()) == 1
        finally:
            hung.resume()
        dead[0].restart()

        def runs_again() -> bool:
            with suppress(LockUnavailable):
                return bool(shop.app.send_task("shop.count").get(timeout=SOON))
            return False

        assert eventually(runs_again, SOON)
        shop.bodies.assert_exclusive()


@pytest.mark.parametrize("way", ["tls", "unix"])
def test_a_forked_child_begins_clean_and_both_sides_go_on(way: str, tmp_path: Path) -> None:
    """Neither uses the other's connections, and the hold stays the parent's."""
    with Independent.durable(3, WAYS[way](tmp_path)) as independent:
        settings = Settings(independent.urls, independent.options)
        command = [sys.executable, "-m", "tests.worker.forked_locks"]
        done = subprocess.run(
            [*command, json.dumps(settings._asdict())],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=str(ROOT),
            check=False,
        )
    assert done.returncode == 0, done.stderr
    facts = [json.loads(line) for line in done.stdout.splitlines()]
    clean = {"owned": False, "is_held": False, "released": "LockError", "acquired": False}
    assert facts == [
        {"child": True, **clean},
        {"child": True, "is_held": True, "shared": 0},
        {"child": False, "is_held": True, "went_on": True, "same_fence": True, "holders": 1},
        {"child": False, "left": 0},
    ]


def declare(**options: Any) -> Any:
    app = local_app(redlock_url=NOBODY)

    @app.task(base=LockedTask, **options)
    def work(number: int = 1) -> None: ...

    return app.tasks[work.name]


REFUSED = pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lock_limit": 2}, "expected a limit of 1 over several lock servers"),
        ({"lock_mode": "shared"}, "expected an exclusive lock over several lock servers"),
        ({"lock_max_waiting": 1}, "expected no bound on who waits over several lock servers"),
        ({"lock_key": ["a:{number}", "b:{number}"]}, "expected one resource at a time"),
    ],
)


@REFUSED
def test_what_a_majority_cannot_give_is_refused(options: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        declare(**options).redlock_options()


@REFUSED
def test_no_worker_starts_with_what_a_majority_cannot_give(
    options: Any, said: str, lock_server: LockServer
) -> None:
    """It says so before it asks any of the servers, which are not there."""
    app = local_app(server=lock_server.url, redlock_url=NOBODY)

    @app.task(name="shop.work", base=LockedTask, **options)
    def work(number: int = 1) -> None: ...

    told = f"task shop.work: {said}"
    with pytest.raises(ConfigurationError, match=told), local_worker(app):
        raise AssertionError("it started")


def test_so_is_a_lock_with_a_limit() -> None:
    with pytest.raises(ConfigurationError, match="expected a limit of 1 over several"):
        Lock("desk", app=local_app(redlock_url=NOBODY), limit=2).acquire()


def test_who_is_missing_is_said_without_a_password() -> None:
    with pytest.raises(LockUnavailable) as unavailable:
        Lock("desk", app=local_app(redlock_url=NOBODY)).acquire()
    assert "127.0.0.1:1 (refused)" in unavailable.value.servers
    assert "secret" not in str(unavailable.value)


def test_two_databases_of_one_server_are_refused() -> None:
    urls = ["redis://a:6379/0", "redis://a/1", "redis://b"]
    with pytest.raises(ConfigurationError, match="expected a list of different servers"):
        runtime_of(local_app(redlock_url=urls)).check()
