"""A worker's processes come and go, are interrupted and used again: locks mind none of it."""

from __future__ import annotations

import os
import re
import signal
import socket
import uuid
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Dict, Iterator, List, Set

import pytest
from celery.app.defaults import NAMESPACES
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError

from examples.demo.bodylog import Body, now_ns
from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.pools import PREFORK, chosen_pool
from tests.harness.proxy import Proxy
from tests.harness.servers import LockServer
from tests.harness.worker import WorkerProcess
from tests.worker import process_app
from tests.worker.locked_tasks import resource_of

APP = process_app.__name__
SOON = 20.0


class Connections:
    """Which processes asked for locks over which connection, as the server saw it."""

    def __init__(self, server: LockServer) -> None:
        self._server = server
        self._monitor = socket.create_connection(("127.0.0.1", server.port), timeout=SOON)
        self._monitor.sendall(b"MONITOR\r\n")
        assert self._monitor.recv(5) == b"+OK\r\n"

    def by_address(self) -> Dict[str, Set[int]]:
        """The processes by connection, up to now; only once."""
        marker = uuid.uuid4().hex
        with self._server.client() as client:
            client.echo(marker)
        seen = b""
        while marker.encode() not in seen:
            seen += self._monitor.recv(1 << 16)
        found: Dict[str, Set[int]] = {}
        # The holder's record, which names its process, goes with every acquire.
        for line in seen.decode().splitlines():
            asked = re.search(r'\[\d+ (\S+)\] "EVALSHA".*\\"p\\":(\d+)', line)
            if asked:
                found.setdefault(asked.group(1), set()).add(int(asked.group(2)))
        return found

    def close(self) -> None:
        self._monitor.close()


@contextmanager
def connections_of(server: LockServer) -> Iterator[Connections]:
    connections = Connections(server)
    try:
        yield connections
    finally:
        connections.close()


def open_addresses(server: LockServer) -> Set[str]:
    with server.client() as client:
        mine = client.client_id()
        return {each["addr"] for each in client.client_list() if int(each["id"]) != mine}


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    return make_locked_shop()


@pytest.fixture(scope="module")
def worker(shop: LockedShop) -> WorkerProcess:
    """Two pool processes; some tests kill one."""
    return shop.worker(app=APP, concurrency=2)


@pytest.fixture
def own_server() -> Iterator[LockServer]:
    """A lock server that a test may stop, and whose clients are the test's own."""
    with LockServer.start() as server:
        yield server


@contextmanager
def one_child_replaced(worker: WorkerProcess) -> Iterator[None]:
    """One of its processes ends; a later task must not be given to it before that is noticed."""
    if chosen_pool() != PREFORK:
        yield
        return
    assert eventually(lambda: len(worker.pids()) == 2)
    before = set(worker.pids())
    yield
    assert eventually(lambda: len(set(worker.pids()) - before) == 1, within=SOON)


def started(shop: LockedShop, account: str, count: int = 1) -> List[Body]:
    resource = resource_of(account)
    return shop.bodies.wait_for(count_started=count, resource=resource, timeout=SOON)


def assert_nothing_left(shop: LockedShop, *accounts: str) -> None:
    for account in accounts:
        assert eventually(lambda of=account: shop.locks.is_free(of)), shop.locks.holders(account)
        shop.locks.wait_for_line(account, 0)


def run_together(shop: LockedShop, *accounts: str) -> None:
    """Send a task for each, and see that all end well, one at a time for an account."""
    for result in [shop.send("work", account) for account in accounts]:
        assert result.get(timeout=60.0) == "done"
    for account in set(accounts):
        assert not shop.overlaps_of(account)
    shop.bodies.assert_fences_grow()
    assert_nothing_left(shop, *set(accounts))


# --- processes that come


@pytest.mark.needs("processes")
def test_processes_of_one_task_each_lock_over_connections_of_their_own(
    make_locked_shop: MakeLockedShop, own_server: LockServer, account: str
) -> None:
    shop = make_locked_shop(lock_url=own_server.url)
    worker = shop.worker(app=APP, concurrency=2, arguments=["--max-tasks-per-child", "1"])
    with connections_of(own_server) as connections:
        # For the first account the parent asks, for the second the process that runs the body.
        tasks = [shop.send("work_on_both", f"{account}-{number}", account) for number in range(8)]
        assert [task.get(timeout=60.0) for task in tasks] == ["done"] * 8
        used = connections.by_address()
    pids = {body.pid for body in shop.bodies_of(account)}
    assert len(pids) == 8, "a process ran two tasks: the test proves nothing"
    assert all(len(owners) == 1 for owners in used.values()), used
    assert set().union(*used.values()) == {worker.pid, *pids}
    assert worker.stop()


@pytest.mark.needs("processes")
def test_children_leave_the_connections_alone_that_their_parent_opened(
    make_locked_shop: MakeLockedShop, own_server: LockServer, account: str
) -> None:
    shop = make_locked_shop(lock_url=own_server.url)
    worker = shop.worker(app="tests.worker.early_app", concurrency=4)
    parents = open_addresses(own_server)
    assert parents, "the parent has no connection: the test proves nothing"
    with connections_of(own_server) as connections:
        tasks = [
            shop.send("work_on_both", f"{account}-{number}", f"{account}-inner-{number % 8}")
            for number in range(40)
        ]
        assert [task.get(timeout=60.0) for task in tasks] == ["done"] * 40
        used = connections.by_address()
    assert all(len(owners) == 1 for owners in used.values()), used
    # The parent goes on asking over its own.
    childrens = {address for address, owners in used.items() if owners != {worker.pid}}
    assert len(set().union(*(used[each] for each in childrens))) > 1, "one process ran everything"
    assert not parents & childrens
    assert "Traceback" not in worker.output()
    assert worker.stop()


@pytest.mark.needs("processes")
@pytest.mark.skipif(
    "pool_start_method" not in NAMESPACES["worker"], reason="this Celery can only fork"
)
def test_spawned_processes_lock_by_the_workers_flags(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    shop = make_locked_shop(worker_pool_start_method="spawn")
    worker = shop.worker(app=APP, concurrency=2, arguments=["--redlock-ttl", "7"])
    results = [shop.send("tell_process", account) for _ in range(6)]
    told = [result.get(timeout=60.0) for result in results]
    # A fresh interpreter knows the flags from the environment alone.
    assert worker.pid not in {pid for pid, _lease in told}
    assert all(3.0 < lease <= 7.0 for _pid, lease in told), told
    assert not shop.overlaps_of(account)
    assert_nothing_left(shop, account)
    assert worker.stop()


# --- processes that are interrupted


@pytest.mark.needs("soft time limits")
def test_a_soft_time_limit_ends_the_wait_of_a_body_and_its_place_in_line(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    other = f"{account}-other"
    with shop.locks.held(other):
        task = shop.task("work_on_both").apply_async((account, other), soft_time_limit=1)
        shop.locks.wait_for_line(other, 1)
        with pytest.raises(SoftTimeLimitExceeded):
            task.get(timeout=SOON)
        assert_nothing_left(shop, account)
        shop.locks.wait_for_line(other, 0)
    assert shop.bodies_of(other) == []


@pytest.mark.needs("terminate")
@pytest.mark.parametrize("where", ["before its body", "in its body"])
def test_a_task_terminated_while_it_waits_leaves_the_line(
    shop: LockedShop, worker: WorkerProcess, where: str, account: str
) -> None:
    own = f"{account}-own"
    in_body = where == "in its body"
    with one_child_replaced(worker) if in_body else nullcontext(), shop.locks.held(account):
        # Before its body it waits in the parent: no process has it, and none is replaced.
        task = shop.send("work_on_both", own, account) if in_body else shop.send("work", account)
        shop.locks.wait_for_line(account, 1)
        shop.app.control.revoke(task.id, terminate=True, signal="SIGTERM")
        shop.locks.wait_for_line(account, 0)
        assert_nothing_left(shop, own)
        with pytest.raises(TaskRevokedError):
            task.get(timeout=SOON)
    assert shop.bodies_of(account) == []
    run_together(shop, account, account)


@pytest.mark.needs("terminate")
def test_a_task_terminated_while_it_holds_makes_room_for_who_waits(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    with one_child_replaced(worker):
        holder = shop.send("work", account, shop.gate().path)
        started(shop, account)
        waiter = shop.send("work", account)
        shop.locks.wait_for_line(account, 1)
        shop.app.control.revoke(holder.id, terminate=True, signal="SIGTERM")
        assert waiter.get(timeout=SOON) == "done"
    assert not shop.overlaps_of(account)
    assert_nothing_left(shop, account)


@pytest.mark.needs("processes")
def test_a_killed_childs_lock_goes_to_who_waits_for_it(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    """The parent knows the token. The lease is thirty seconds, and is not waited for."""
    with one_child_replaced(worker):
        shop.send("work", account, shop.gate().path)
        (killed,) = started(shop, account)
        waiter = shop.send("work", account)
        shop.locks.wait_for_line(account, 1)
        worker.send(signal.SIGKILL, killed.pid)
        dead_at = now_ns()
        assert waiter.get(timeout=SOON) == "done"
    _killed, next_one = shop.bodies_of(account)
    assert 0 < (next_one.start - dead_at) / 1e9 < 5.0
    assert next_one.pid != killed.pid
    assert_nothing_left(shop, account)


# --- processes that are used again


def test_a_thread_that_outlives_its_body_harms_no_later_task(
    shop: LockedShop, tmp_path: Path, make_locked_shop: MakeLockedShop, account: str
) -> None:
    shop = make_locked_shop()
    shop.worker(app=APP, concurrency=1)
    told = tmp_path / "told"
    shop.send("leak", account, str(told)).get(timeout=SOON)
    run_together(shop, account, account)
    leaky, *later = shop.bodies_of(account)
    assert {body.pid for body in later} == {leaky.pid}
    assert eventually(lambda: told.exists() and told.read_text() == "LockNotOwned False")


@pytest.mark.needs("signals")
def test_a_release_interrupted_by_a_signal_harms_no_later_task_of_the_process(
    make_locked_shop: MakeLockedShop, own_server: LockServer, account: str
) -> None:
    """A second soft time limit comes as SIGUSR1, while the release waits for its answer."""
    with Proxy(own_server.url) as proxy:
        shop = make_locked_shop(lock_url=proxy.url)
        worker = shop.worker(app=APP, concurrency=1)
        # The process has its connection, and would not wait for that.
        run_together(shop, account)
        left, gate = proxy.calls["leave"], shop.gate()
        task = shop.send("work", account, gate.path)
        _earlier, body = started(shop, account, 2)
        own_server.pause()
        try:
            gate.open()
            assert eventually(lambda: proxy.calls["leave"] == left + 1)
            os.kill(body.pid, signal.SIGUSR1)
            with pytest.raises(SoftTimeLimitExceeded):
                task.get(timeout=SOON)
        finally:
            own_server.resume()
        sent = now_ns()
        assert shop.send("work", account).get(timeout=SOON) == "done"
        run_together(shop, account)
        _earlier, first, second, third = shop.bodies_of(account)
        assert first.pid == second.pid == third.pid
        assert (second.start - sent) / 1e9 < 5.0
        assert worker.stop()


# --- processes that end


def test_a_warm_shutdown_leaves_no_lock_and_loses_no_task(
    make_locked_shop: MakeLockedShop, account: str
) -> None:
    shop = make_locked_shop()
    worker = shop.worker(app=APP, concurrency=2)
    gate = shop.gate()
    holder = shop.send("work", account, gate.path)
    started(shop, account)
    others: List[Any] = [shop.send("work", account) for _ in range(3)]
    assert eventually(lambda: shop.locks.waiting_tasks(account))
    worker.send(signal.SIGTERM)
    worker.wait_for_output("Warm shutdown", SOON)
    gate.open()
    assert worker.wait(30.0)
    assert holder.get(timeout=SOON) == "done"
    assert_nothing_left(shop, account)

    shop.worker(app=APP, concurrency=2)
    for other in others:
        assert other.get(timeout=SOON) == "done"
    assert not shop.overlaps_of(account)
    assert len(shop.bodies_of(account)) == 4
