"""A broker that Celery reads without its event loop: who waits does so in a slot, and in line."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Callable

import pytest

from tests.harness.locked_shop import LockedShop, eventually
from tests.worker.locked_app import resource_of

SOON = 30.0


@pytest.fixture(scope="module")
def shop(
    make_locked_shop: Callable[..., LockedShop], tmp_path_factory: pytest.TempPathFactory
) -> LockedShop:
    place: Path = tmp_path_factory.mktemp("broker")
    folders = {"data_folder_in": "data", "data_folder_out": "data", "control_folder": "control"}
    for folder in set(folders.values()):
        (place / folder).mkdir()
    options = {name: str(place / folder) for name, folder in folders.items()}
    shop = make_locked_shop(
        broker_url="filesystem://",
        broker_transport_options={**options, "polling_interval": 0.05},
        worker_prefetch_multiplier=1,
    )
    shop.worker(concurrency=3)
    return shop


def test_they_wait_in_order_and_exclude_each_other(shop: LockedShop, account: str) -> None:
    with shop.locks.held(account):
        results = []
        for number in range(2):
            results.append(shop.send("work", account))
            shop.locks.wait_for_line(account, number + 1)
        assert shop.send("work", f"{account}-other").get(timeout=SOON) == "done"
    assert [result.get(timeout=SOON) for result in results] == ["done"] * 2
    assert [body.task_id for body in shop.bodies_of(account)] == [result.id for result in results]
    assert shop.overlaps_of(account) == []


def test_what_a_killed_child_held_is_freed(shop: LockedShop, account: str) -> None:
    shop.send("work", account, shop.gate().path)
    (body,) = shop.bodies.wait_for(count_started=1, resource=resource_of(account), timeout=SOON)
    os.kill(body.pid, signal.SIGKILL)
    assert eventually(lambda: shop.locks.is_free(account), SOON)
