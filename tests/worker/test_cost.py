"""What a lock costs where nobody contends: one call to take it, one to give it back."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import Callable, Iterator, List

import pytest

from tests.harness.locked_shop import LockedShop, eventually
from tests.harness.pools import PREFORK, chosen_pool
from tests.harness.servers import LockServer

SOON = 20.0
TASKS = 50
CHILDREN = 2


@pytest.fixture(scope="module")
def server() -> Iterator[LockServer]:
    with LockServer.start() as server:
        yield server


@pytest.fixture(scope="module")
def shop(make_locked_shop: Callable[..., LockedShop], server: LockServer) -> LockedShop:
    """Its worker is warm: each child is connected and the server knows the scripts."""
    shop = make_locked_shop(lock_url=server.url)
    shop.worker(concurrency=CHILDREN)

    def is_warm() -> bool:
        gate = shop.gate()
        together = [shop.send("work", f"warm-{number}", gate.path) for number in range(CHILDREN)]
        gate.open()
        for result in together:
            result.get(timeout=SOON)
        pids = {body.pid for body in shop.bodies.bodies()}
        return len(pids) == (CHILDREN if chosen_pool() == PREFORK else 1)

    assert eventually(is_warm, SOON)
    return shop


@contextmanager
def commands_of_clients(server: LockServer) -> Iterator[List[str]]:
    """What clients send meanwhile; what their scripts call is not theirs."""
    heard: List[str] = []
    ready = threading.Event()

    def listen() -> None:
        with server.client() as listening, listening.monitor() as monitor:
            ready.set()
            for said in monitor.listen():
                command = said["command"]
                if command == "ECHO enough":
                    return
                if said["client_type"] != "lua":
                    heard.append(command.split()[0].upper())

    listener = threading.Thread(target=listen)
    with server.client() as client:
        client.ping()  # what a new connection says is said before
        listener.start()
        try:
            assert ready.wait(SOON)
            yield heard
        finally:
            client.echo("enough")
            listener.join(SOON)
    assert not listener.is_alive()


def test_an_uncontended_task_costs_two_calls_and_no_other_command(
    shop: LockedShop, server: LockServer
) -> None:
    calls_before = server.calls("evalsha")
    with commands_of_clients(server) as heard:
        for number in range(TASKS):
            # Every other one on an account that has been worked on before.
            account = "again" if number % 2 else f"fresh-{number}"
            assert shop.send("work", account).get(timeout=SOON) == "done"
    assert heard == ["EVALSHA"] * (2 * TASKS)
    assert server.calls("evalsha") - calls_before == 2 * TASKS
