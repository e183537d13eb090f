"""Log lines: what a person reads of a lock, and what a program finds in the record."""

from __future__ import annotations

import logging
import re
import socket
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, Dict, Iterator, List

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from celery_redlock import (
    Lock,
    LockConflict,
    LockedTask,
    LockError,
    LockTimeout,
    LockUnavailable,
)
from celery_redlock.core import events
from celery_redlock.core.ports import Leave
from celery_redlock.core.record import Record
from celery_redlock.integration import asking
from celery_redlock.integration.call import worker_of
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.locking.execution import NOWHERE, Execution, Scope
from celery_redlock.locking.manager import Manager
from celery_redlock.observe.fields import fields_of
from celery_redlock.observe.logs import log, logger
from celery_redlock.observe.words import age, held_by, who
from celery_redlock.store.memory import MemoryStore
from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.worker import WorkerProcess
from tests.worker.local import apps_apart, local_app
from tests.worker.locked_app import resource_of
from tests.worker.samples import HOLDER, SAMPLES
from tests.worker.test_signals import declare, held

SOON = 20.0

WHO = "shop.work[owners-id] on celery@web1 (pid 71)"
HELD = "shop.other[holders-id] on celery@web2 (pid 4242), for 12.3 s"

#: What each sample reads as, 12.3 seconds after its holder began.
WORDS = {
    "lock_acquired": ("DEBUG", f"{WHO} acquired account:7, fence 12"),
    "lock_waiting": ("INFO", f"{WHO} waits for account:7, held by {HELD}"),
    "lock_conflict": ("INFO", f"{WHO}: skip, account:7 is held by {HELD}"),
    "lock_timeout": ("WARNING", f"{WHO} gave up account:7 after 2.500 s, held by {HELD}"),
    "lock_released": ("DEBUG", f"{WHO} released account:7 after 1.500 s"),
    "lock_abandoned": (
        "WARNING",
        f"{WHO} left account:7 without an answer of the lock server to that; "
        "its release goes on in the background",
    ),
    "lock_cleared": ("INFO", f"{WHO}: the late release of account:7 is acknowledged"),
    "lock_renewal_failed": (
        "WARNING",
        f"{WHO} could not renew account:7, trusted for 4.500 s more: redis://host:1/0",
    ),
    "lock_unsure": ("WARNING", f"{WHO} may have lost account:7: it was not renewed in time"),
    "lock_recovered": ("INFO", f"{WHO} holds account:7 for certain again"),
    "lock_reestablished": (
        "WARNING",
        f"{WHO} holds account:7 again: the lock server had forgotten that, and nobody else had it",
    ),
    "lock_lost": ("ERROR", f"{WHO} lost account:7: granted to another"),
    "lock_unavailable": ("WARNING", f"{WHO}: fail, no answer about account:7: redis://host:1/0"),
    "lock_kept": ("INFO", f"{WHO} keeps account:7 for its retry, for at most 10.5 s"),
    "lock_reclaimed": (
        "WARNING",
        f"{WHO} ended the hold of account:7 that a dead process left behind: {HELD}",
    ),
    "lock_forced": ("WARNING", f"admin on web3 released account:7 by force, held by {HELD}"),
    "lock_watchdog_failed": ("ERROR", "the watchdog met ValueError('secret text') and goes on"),
}

CONFLICTS = {
    "full": f"{WHO}: skip, the line for account:7 is full, held by {HELD}",
    "replaced": f"{WHO}: skip, another took its place in line for account:7",
    "ended": f"{WHO}: skip, it was taken out of the line for account:7",
    "done": f"{WHO}: skip, another copy of this task on account:7 has succeeded",
}


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[List[logging.LogRecord]]:
    """What is logged from now on."""
    found: List[logging.LogRecord] = []
    listener = logging.Handler()
    listener.emit = found.append  # type: ignore[method-assign]
    caplog.set_level(logging.DEBUG, "celery_redlock")
    logger.addHandler(listener)
    yield found
    logger.removeHandler(listener)


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app whose lock server is in memory."""
    with apps_apart():
        app = local_app()
        runtime = runtime_of(app)
        runtime._manager = Manager(MemoryStore(), runtime.emit)
        yield app


def named(lines: List[logging.LogRecord]) -> List[str]:
    return [line.redlock_event for line in lines]  # type: ignore[attr-defined]


# --- words


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
def test_every_event_is_one_line_in_words_with_its_fields(
    event: events.Event, lines: List[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: HOLDER.since + 12.3)
    log(event)
    (line,) = lines
    (name,) = named(lines)
    assert (line.levelname, line.getMessage()) == WORDS[name]
    assert line.redlock == fields_of(event)  # type: ignore[attr-defined]


@pytest.mark.parametrize("reason", CONFLICTS)
def test_a_conflict_says_why_it_does_not_wait(
    reason: str, lines: List[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: HOLDER.since + 12.3)
    owner, holder = SAMPLES[1].owner, HOLDER if reason == "full" else None  # type: ignore[union-attr]
    log(events.Conflicted("account:7", owner, holder, "skip", reason))
    assert lines[0].getMessage() == CONFLICTS[reason]


def test_the_end_of_a_wait_is_logged_where_its_beginning_is(
    lines: List[logging.LogRecord],
) -> None:
    owner = Record("web1", 71, 0.0, "id", "shop.work")
    log(events.Waiting("account:7", owner, 0, None))
    log(events.Acquired("account:7", 12, owner, 1.5, queued=True))
    assert {line.levelname for line in lines} == {"INFO"}
    assert lines[1].getMessage() == (
        "shop.work[id] on web1 (pid 71) waited 1.500 s for and acquired account:7, fence 12"
    )


def test_a_script_is_named_by_its_host_and_pid() -> None:
    assert who(Record("web1", 71, 0.0)) == "a Lock on web1 (pid 71)"
    assert who(Record("web1", 71, 0.0, None, "shop.work")) == "shop.work on web1 (pid 71)"
    assert held_by(None) == "another"


def test_a_holder_whose_clock_is_ahead_is_not_younger_than_new() -> None:
    assert age(Record("web1", 71, time.time() + 60)) == 0


def test_names_from_elsewhere_cannot_forge_a_line(lines: List[logging.LogRecord]) -> None:
    forged = Record("web1", 71, 0.0, "id\n[ERROR] all is lost\x1b[2J", "shop.work")
    log(events.Waiting("account:7", forged, 0, forged))
    assert lines[0].getMessage().isprintable()
    assert "id\\n[ERROR] all is lost\\x1b[2J" in lines[0].getMessage()


def test_the_text_of_an_error_is_no_field() -> None:
    assert fields_of(events.WatchdogFailed(ValueError("S3CRET"))) == {"error": "ValueError"}


# --- once, and never silently


@pytest.mark.parametrize("policy", ["skip", "fail"])
def test_a_conflict_is_one_line_for_each_decision(
    app: Celery, lines: List[logging.LogRecord], policy: str
) -> None:
    task = declare(app, lock_on_conflict=policy)
    with held(app, "account:a"):
        for _ in range(2):
            with suppress(LockConflict):
                task("a")
    assert named(lines) == ["lock_conflict"] * 2
    assert {line.redlock["decision"] for line in lines} == {policy}  # type: ignore[attr-defined]


def test_a_wait_that_was_too_long_is_two_lines(app: Celery, lines: List[logging.LogRecord]) -> None:
    task = declare(app, lock_wait_timeout=0.1)
    with held(app, "account:a"), pytest.raises(LockTimeout):
        task("a")
    assert named(lines) == ["lock_waiting", "lock_timeout"]


@pytest.mark.parametrize("way", ["task", "Lock"])
def test_who_is_taken_out_of_the_line_is_told_of(
    app: Celery, lines: List[logging.LogRecord], way: str
) -> None:
    runtime = runtime_of(app)
    task, lock = declare(app), Lock("account:a", app=app)

    def drop(event: events.Event) -> None:
        if isinstance(event, events.Waiting):
            store: Any = runtime.manager.store
            (waiter,) = store.inspect("account:a").waiters
            store.leave(Leave("account:a", (waiter.token,), tomb_ms=60_000, why="forced"))

    runtime.sinks.append(drop)
    with held(app, "account:a"), pytest.raises(LockError):
        task("a") if way == "task" else lock.acquire()
    assert named(lines) == ["lock_waiting", "lock_conflict"]
    fields: Dict[str, Any] = lines[1].redlock  # type: ignore[attr-defined]
    assert (fields["decision"], fields["reason"]) == ("fail", "ended")


def test_a_time_limit_that_comes_while_an_event_is_told_is_the_bodys(
    app: Celery, lines: List[logging.LogRecord]
) -> None:
    runtime = runtime_of(app)
    task = declare(app)

    def be_interrupted(event: events.Event) -> None:
        if isinstance(event, events.Waiting):
            raise SoftTimeLimitExceeded

    runtime.sinks.append(be_interrupted)
    with held(app, "account:a"):
        with pytest.raises(SoftTimeLimitExceeded):
            task("a")
        # It leaves the line in the background.
        assert eventually(lambda: not runtime.manager.inspect("account:a").waiters)


def test_a_lock_that_cannot_be_asked_for_tells_of_the_outage(
    lines: List[logging.LogRecord],
) -> None:
    with apps_apart():
        app = local_app(redlock_url="redis://127.0.0.1:1/0")
        with pytest.raises(LockUnavailable):
            Lock("r", app=app).acquire()
    assert named(lines).count("lock_unavailable") == 1


def test_a_call_that_waits_for_the_server_in_place_says_so_once_in_a_while(
    lines: List[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_OUTAGE_PAUSE", (0.01, 0.01))
    with apps_apart():
        app = local_app(redlock_url="redis://127.0.0.1:1/0")
        with pytest.raises(LockUnavailable):
            declare(app, lock_wait_timeout=0.5)("a")
    told = [
        line.redlock["decision"]  # type: ignore[attr-defined]
        for line in lines
        if line.redlock_event == "lock_unavailable"  # type: ignore[attr-defined]
    ]
    assert told == ["wait", "fail"]


# --- on a real worker


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    return make_locked_shop()


@pytest.fixture(scope="module")
def worker(shop: LockedShop) -> WorkerProcess:
    return shop.worker(concurrency=3)


def test_a_workers_log_says_who_holds_the_lock_on_which_worker_and_for_how_long(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    gate = shop.gate()
    holder = shop.send("work", account, gate.path)
    (body,) = shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    skipped, waiting = shop.send("work_or_skip", account), shop.send("work", account)
    node = re.escape(worker.nodename)
    # Until its first renewal a hold is its worker's parent's, which has asked for it.
    by = rf"\(pid ({worker.pid}|{body.pid})\)"
    holds = rf"held by shop\.work\[{holder.id}\] on {node} {by}, for \d+\.\d s"
    resource = re.escape(resource_of(account))
    try:
        wait_for_line(
            worker, rf"shop\.work_or_skip\[{skipped.id}\] on {node} .*: skip, {resource} is {holds}"
        )
        wait_for_line(worker, rf"shop\.work\[{waiting.id}\] on {node} .* waits for .*, {holds}")
    finally:
        gate.open()
    assert waiting.get(timeout=SOON) == "done"
    wait_for_line(worker, rf"INFO.*shop\.work\[{waiting.id}\] on {node} .* waited \d.* acquired")
    assert len(re.findall(rf"{waiting.id}\].* waits for", worker.output())) == 1


def wait_for_line(worker: WorkerProcess, pattern: str) -> None:
    deadline = time.monotonic() + SOON
    while not re.search(pattern, worker.output()):
        assert time.monotonic() < deadline, f"no line {pattern!r} in:\n{worker.output()}"
        time.sleep(0.02)


def test_what_a_body_calls_runs_in_the_bodys_worker() -> None:
    def executed(hostname: Any, around: Scope = NOWHERE) -> Execution:
        return Execution(None, SimpleNamespace(hostname=hostname), around)

    body = executed("celery@web1")
    inside = NOWHERE._replace(body=body)
    assert worker_of(body) == "celery@web1"
    assert worker_of(executed(None, inside)) == "celery@web1"  # a direct call
    assert worker_of(executed("web1", inside)) == "celery@web1"  # an eager task
    assert worker_of(Execution(None, None, inside)) == "celery@web1"
    assert worker_of(executed("web1")) is None


def test_a_script_has_no_worker(app: Celery) -> None:
    @app.task(name="shop.look", base=LockedTask, lock_key="look")
    def look() -> Any:
        (holder,) = runtime_of(app).manager.inspect("look").holders
        return Record.decode(holder.record)

    record = look()
    assert (record.worker, record.host) == (None, socket.gethostname())
