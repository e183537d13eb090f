"""Signals: who is told what, and by whom."""

from __future__ import annotations

import os
import select
import signal
import threading
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List

import pytest
from celery import Celery

from celery_redlock import LockConflict, LockedTask, LockTimeout, LockUnavailable, is_skipped
from celery_redlock import signals as public
from celery_redlock.core import events
from celery_redlock.core.ports import Acquire, Leave, Terms
from celery_redlock.core.record import Record
from celery_redlock.integration.lock_signals import SENT_AS, SIGNALS
from celery_redlock.integration.runtime import Runtime, runtime_of
from celery_redlock.locking.manager import Manager
from celery_redlock.store.memory import MemoryStore
from tests.harness.locked_shop import MakeLockedShop, eventually
from tests.worker.local import apps_apart, local_app
from tests.worker.locked_app import resource_of
from tests.worker.samples import SAMPLES

Heard = List[Dict[str, Any]]


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app whose lock server is in memory."""
    with apps_apart():
        app = local_app(redlock_eager=True)
        runtime = runtime_of(app)
        runtime._manager = Manager(MemoryStore(), runtime.emit)
        yield app


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What all signals told; ``signal`` is the name."""
    told: Heard = []

    def hear(signal: Any = None, **fields: Any) -> None:
        told.append({"signal": signal.name, **fields})

    for each in SIGNALS:
        each.connect(hear, weak=False, dispatch_uid="test")
    yield told
    for each in SIGNALS:
        each.disconnect(dispatch_uid="test")


def declare(app: Celery, body: Callable[..., Any] = lambda account: None, **options: Any) -> Any:
    @app.task(name="shop.work", base=LockedTask, **{"lock_key": "account:{account}", **options})
    def work(account: str) -> Any:
        return body(account)

    return app.tasks["shop.work"]


@contextmanager
def held(app: Celery, resource: str) -> Iterator[Any]:
    """Hold it as another task of another worker would."""
    store = runtime_of(app).manager.store
    record = Record("elsewhere", 7, 0.0, "rival", "shop.other", worker="celery@elsewhere")
    store.acquire(Acquire(resource, "rivals-token", Terms(), record.encode()))
    yield
    store.leave(Leave(resource, ("rivals-token",)))


def names(heard: Heard) -> List[str]:
    return [told["signal"] for told in heard]


# --- who is told what


def test_a_task_tells_that_it_has_and_that_it_has_released_its_lock(
    app: Celery, heard: Heard
) -> None:
    task = declare(app)
    result = task.apply(("a",))
    assert names(heard) == ["lock_acquired", "lock_released"]
    for told in heard:
        assert told["sender"] is task
        assert told["resource"] == "account:a"
        assert (told["task"], told["task_id"]) == ("shop.work", result.id)
        assert told["pid"] == os.getpid()
    acquired, released = heard
    assert acquired["fence"] == released["fence"] > 0
    assert isinstance(acquired["event"], events.Acquired)
    assert released["held"] >= 0


def test_a_receiver_of_one_task_hears_of_no_other(app: Celery) -> None:
    task, told = declare(app), []

    @app.task(name="shop.other", base=LockedTask)
    def other() -> None: ...

    def hear(sender: Any, **fields: Any) -> None:
        told.append(sender)

    public.lock_acquired.connect(hear, sender=task)
    other.apply()
    task.apply(("a",))
    assert told == [task]


def test_a_skip_tells_who_holds_the_lock_where_and_for_how_long(app: Celery, heard: Heard) -> None:
    task = declare(app, lock_on_conflict="skip")
    with held(app, "account:a"):
        assert is_skipped(task.apply(("a",)).result)
    (told,) = heard
    assert (told["signal"], told["decision"], told["reason"]) == (
        "lock_conflict",
        "skip",
        "conflict",
    )
    assert (told["holder"], told["holder_task"]) == ("rival", "shop.other")
    assert (told["holder_worker"], told["holder_host"]) == ("celery@elsewhere", "elsewhere")
    assert told["holder_age"] > 0


def test_a_failure_for_a_conflict_is_told(app: Celery, heard: Heard) -> None:
    task = declare(app, lock_on_conflict="fail")
    with held(app, "account:a"), pytest.raises(LockConflict):
        task("a")
    assert [(told["signal"], told["decision"]) for told in heard] == [("lock_conflict", "fail")]


def test_a_wait_is_told_once_and_its_end_as_a_conflict_that_timed_out(
    app: Celery, heard: Heard
) -> None:
    task = declare(app, lock_wait_timeout=0.2)
    with held(app, "account:a"), pytest.raises(LockTimeout):
        task("a")
    assert names(heard) == ["lock_waiting", "lock_conflict"]
    waiting, conflict = heard
    assert (waiting["holder"], waiting["rank"]) == ("rival", 0)
    assert (conflict["decision"], conflict["holder"]) == ("timeout", "rival")
    assert conflict["waited"] >= 0.1


def test_an_outage_is_told_with_what_is_done_about_it(heard: Heard) -> None:
    with apps_apart():
        app = local_app(redlock_url="redis://127.0.0.1:1/0")
        with pytest.raises(LockUnavailable):
            declare(app, lock_on_outage="fail")("a")
    (told,) = heard
    assert (told["signal"], told["decision"]) == ("lock_unavailable", "fail")
    assert "127.0.0.1:1" in told["servers"]


def test_a_lost_lock_is_told_while_the_body_runs(app: Celery, heard: Heard) -> None:
    lost = threading.Event()

    def hear(why: str, **_fields: Any) -> None:
        lost.set()

    public.lock_lost.connect(hear)

    def body(account: str) -> None:
        manager = runtime_of(app).manager
        (holder,) = manager.inspect("account:a").holders
        leave = Leave("account:a", (holder.token,), tomb_ms=60_000, why="forced")
        manager.store.leave(leave)
        (hold,) = manager.watchdog.renewing
        hold.due = 0.0
        manager.watchdog.beat_now()
        assert lost.wait(20)

    task = declare(app, body)
    assert task.apply(("a",)).successful()
    assert names(heard) == ["lock_acquired", "lock_lost"]
    assert heard[1]["sender"] is task
    assert (heard[1]["fence"], heard[1]["why"]) == (heard[0]["fence"], "forced")


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
def test_each_event_is_sent_as_its_signal_by_its_task(
    app: Celery, heard: Heard, event: events.Event
) -> None:
    task = declare(app)
    runtime_of(app).emit(event)
    sent_as = SENT_AS.get(type(event))
    if sent_as is None:
        assert heard == []
        return
    (told,) = heard
    assert told["signal"] == sent_as.name
    assert told["sender"] is task
    assert told["event"] is event
    assert set(told) - {"signal", "sender"} <= sent_as.providing_args


def test_the_sender_is_the_app_where_no_task_of_it_is_concerned(app: Celery, heard: Heard) -> None:
    for task in (None, "somebody.elses"):
        record = Record("here", 1, 0.0, None, task)
        runtime_of(app).emit(events.Acquired("r", 1, record, 0.0))
    assert [told["sender"] for told in heard] == [app, app]


# --- what a receiver may do, and what it costs


def test_a_receiver_that_fails_harms_nobody(
    app: Celery, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**_fields: Any) -> None:
        raise KeyError("receiver")

    public.lock_acquired.connect(fail)
    assert declare(app, lambda account: "done").apply(("a",)).result == "done"
    assert names(heard) == ["lock_acquired", "lock_released"]
    assert "KeyError" in caplog.text
    public.lock_acquired.disconnect(fail)


def test_without_a_receiver_nothing_is_made_of_an_event(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: List[events.Event] = []
    monkeypatch.setattr("celery_redlock.integration.lock_signals.fields_of", made.append)
    for each in SIGNALS:
        monkeypatch.setattr(each, "receivers", [])
    assert declare(app, lambda account: "done").apply(("a",)).result == "done"
    assert made == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_while_a_signal_is_sent_does_not_block_the_child(app: Celery, heard: Heard) -> None:
    runtime = Runtime(app)
    record = Record("here", 1, 0.0)
    heard_by, says = os.pipe()
    with public.lock_acquired.lock:  # another thread of the parent is just sending
        pid = os.fork()
        if pid == 0:
            runtime.emit(events.Acquired("r", 1, record, 0.0))
            os.write(says, bytes([len(heard)]))
            os._exit(0)
    try:
        told, _, _ = select.select([heard_by], (), (), 20)
        assert told, "the child waits for the parent's mutex"
        assert os.read(heard_by, 1) == bytes([1])
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(heard_by)
        os.close(says)


# --- on real workers


@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_the_parent_tells_that_a_lock_is_acquired_and_the_bodys_process_that_it_is_lost(
    make_locked_shop: MakeLockedShop, pool: str, account: str
) -> None:
    # Renewed, and so found lost, every third of its lease; and then its body goes on.
    shop = make_locked_shop(redlock_ttl=1, redlock_on_lost="warn")
    worker = shop.worker(app="tests.worker.signal_app", pool=pool)
    gate = shop.gate()
    result = shop.send("work", account, gate.path)
    (body,) = shop.bodies.wait_for(count_started=1, timeout=20)
    (holder,) = shop.locks.holders(account)
    leave = Leave(resource_of(account), (holder.token,), tomb_ms=60_000, why="forced")
    shop.locks._store.leave(leave)
    assert eventually(lambda: shop.said(signal="lock_lost"), 20)
    gate.open()
    assert result.get(timeout=20) == "done"
    told = shop.said(task_id=result.id)
    assert [each["signal"] for each in told] == ["lock_acquired", "lock_lost"]
    for each in told:
        assert each["sender"] == "shop.work"
        assert each["worker"] == worker.nodename
    assert [each["told_by"] for each in told] == [worker.pid, body.pid]
