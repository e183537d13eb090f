"""Shops whose workers keep each ``shop.kept`` until they are told."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

from tests.harness.pools import is_installed
from tests.harness.servers import missing
from tests.harness.shop import Shop
from tests.harness.worker import WorkerProcess
from tests.worker.app import ShopSettings
from tests.worker.parking import holding as holding  # its tasks, for the client

APP = "tests.worker.parking.holding"

#: Deadline for what comes within a moment on a machine that has nothing else to do.
WITHIN = 20.0


class HoldingShop(Shop):
    """One worker that keeps, and what to tell it."""

    node: WorkerProcess

    def open(self, pool: str, **options: Any) -> WorkerProcess:
        self.node = self.worker(app=APP, pool=pool, **options)
        return self.node

    def tell(self, what: str, ids: List[str], **options: Any) -> Dict[str, Any]:
        """Have the worker do it for each of the ids; what it keeps and has published."""
        # A broadcast or its reply may be lost on its way: who only looks, looks again.
        tries = 1 if ids else 4
        answers: Any = None
        while not answers and tries:
            tries -= 1
            answers = self.app.control.broadcast(
                "holding",
                arguments={"what": what, "ids": ids, **options},
                destination=[self.node.nodename],
                reply=True,
                timeout=WITHIN if ids else WITHIN / 4,
                limit=1,
            )
        assert answers, f"{self.node.nodename} does not answer"
        answer: Dict[str, Any] = answers[0][self.node.nodename]
        assert "error" not in answer, answer
        return answer

    def held(self) -> List[str]:
        ids: List[str] = self.tell("go", [])["held"]
        return ids

    def keep(self, resource: str, count: int = 1, **options: Any) -> List[str]:
        """Publish some and wait until the worker keeps them; their ids."""
        ids = [self.task("kept").apply_async((resource,), **options).id for _ in range(count)]
        self.wait_until(lambda: set(ids) <= set(self.held()))
        return ids

    def ran(self, resource: str) -> List[Optional[str]]:
        """The ids of the bodies so far, in the order of their starts."""
        return [body.task_id for body in self.bodies.bodies(resource)]

    def wait_for_bodies(self, resource: str, count: int) -> List[Optional[str]]:
        def have_ended() -> bool:
            bodies = self.bodies.bodies(resource)
            return len(bodies) >= count and all(body.end is not None for body in bodies)

        self.wait_until(have_ended)
        return self.ran(resource)

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 2 * WITHIN
        while not is_so():
            assert time.monotonic() < deadline, self.node.output()[-4000:]
            time.sleep(0.01)

    def wait_until_idle(self) -> None:
        """A body writes its end before the worker knows of it and has settled its message."""
        node = self.app.control.inspect(destination=[self.node.nodename], timeout=WITHIN, limit=1)
        for tasks in (node.reserved, node.active):
            self.wait_until(lambda tasks=tasks: list(tasks().values()) == [[]])

    def prefetch_count(self) -> int:
        node = self.app.control.inspect(destination=[self.node.nodename], timeout=WITHIN, limit=1)
        ((_, stats),) = node.stats().items()
        return int(stats["prefetch_count"])

    def queued(self) -> List[str]:
        """The ids of the messages in the queue, the next to be delivered first; they are taken."""
        ids = []
        with self.app.connection_for_read() as connection:
            channel = connection.default_channel
            while True:
                message = channel.basic_get(self.queue)
                if message is None:
                    return ids
                ids.append(_message(message, channel).headers["id"])
                channel.basic_ack(message.delivery_tag)


def _message(message: Any, channel: Any) -> Any:
    """As kombu's consumers make it."""
    return message if hasattr(message, "payload") else channel.message_to_python(message)


MakeHoldingShop = Callable[..., HoldingShop]


@pytest.fixture(scope="module")
def make_holding_shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeHoldingShop]:
    """Make shops on ``broker`` redis, rabbitmq or a URL, with Redis for results."""
    with ExitStack() as shops:

        def make(broker: str = "redis", **conf: Any) -> HoldingShop:
            directory = tmp_path_factory.mktemp("shop")
            redis = request.getfixturevalue("redis_server").url
            urls = {"redis": lambda: redis}
            urls["rabbitmq"] = lambda: request.getfixturevalue("rabbitmq").url
            settings = ShopSettings(
                broker_url=urls[broker]() if broker in urls else broker,
                backend_url=redis[: -len("/0")] + "/1",
                lock_url=redis,
                body_log=str(directory / "bodies.log"),
                conf=conf,
            )
            return shops.enter_context(HoldingShop(settings, directory))

        yield make


def needed(pool: str) -> str:
    """The pool, or the test is skipped for want of it."""
    return pool if is_installed(pool) else missing(pool)
