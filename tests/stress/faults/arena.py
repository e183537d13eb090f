"""Where a fault run takes place: servers, proxies before them, workers, and tasks all the while.

One loop in the test's own thread does everything: it sends tasks, begins faults when they are due
and ends them.
"""

from __future__ import annotations

import contextlib
import random
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, List, Tuple

from celery.result import AsyncResult
from kombu.utils.uuid import uuid
from redis import Redis

from celery_redlock.core.ports import ResourceView
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.store.urls import open_store
from tests.harness.broker import RabbitMQ
from tests.harness.proxy import Proxy
from tests.harness.servers import LockServer
from tests.harness.shop import Shop
from tests.harness.worker import START_WITHIN, WorkerProcess
from tests.stress.faults import app as faulty_app
from tests.stress.faults.app import APART, resources_of
from tests.stress.faults.deeds import Deeds
from tests.stress.faults.lost import Lost
from tests.stress.faults.mail import Mail
from tests.stress.faults.plan import LEASE, RESOURCES, Plan
from tests.worker.app import ShopSettings

WORKERS = 2
CONCURRENCY = 3

#: Tasks that are published and have not ended yet.
AT_ONCE = 10

#: A Redis broker gives a dead worker's messages back after so many seconds.
VISIBILITY = 8

#: Seconds until the next task ends: one may have been sent back for an outage more than once.
PATIENCE = 60.0

#: Seconds after which a message that was on its way to a worker has come there.
LOOK_AGAIN = 2.0

TICK = 0.02


class Arena:
    """Use as a context manager: its end ends everything that it started."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self._directory = directory
        self._choose = random.Random(plan.seed + 1)
        self._exit = ExitStack()
        self.workers: List[WorkerProcess] = []
        self.results: List[AsyncResult] = []
        self.deeds = Deeds(self)

    def __enter__(self) -> Arena:
        with self._exit as exit_stack:
            self._start(exit_stack)
            self._exit = exit_stack.pop_all()
        return self

    def __exit__(self, *_error: Any) -> None:
        self.deeds.resume_all()
        self._exit.close()

    def _start(self, owned: ExitStack) -> None:
        variant = self.plan.variant
        self._redis = owned.enter_context(LockServer.start())
        self.server = owned.enter_context(LockServer.start())
        broker_url = self._redis.url
        if variant.broker == "rabbitmq":
            rabbit = RabbitMQ(self._directory)
            owned.callback(rabbit.stop)
            rabbit.start()
            broker_url = rabbit.url
        self.broker_proxy = owned.enter_context(Proxy(broker_url))
        self.proxy = owned.enter_context(Proxy(self.server.url))
        settings = ShopSettings(
            broker_url=broker_url,
            backend_url=f"{self._redis.url[: -len('/0')]}/1",
            lock_url=self.server.url,
            body_log=str(self._directory / "bodies.log"),
            conf=self._conf(),
        )
        self.shop = owned.enter_context(Shop(settings, self._directory))
        self.mail = Mail(self.shop.bodies.path)
        for worker in [self.launch_worker() for _ in range(WORKERS)]:
            worker.wait_until_ready()

    def _conf(self) -> Dict[str, Any]:
        conf: Dict[str, Any] = {
            "redlock_ttl": self.plan.lease,
            "redlock_restart_grace": LEASE,
            "task_acks_late": self.plan.variant.acks_late,
            "task_reject_on_worker_lost": self.plan.variant.acks_late,
            "worker_prefetch_multiplier": 1,
        }
        if self.plan.variant.pool != "prefork":
            # Celery restores the count in the thread or greenlet of a task, which then reads from
            # the broker's connection beside the worker's loop: one of the two may wait for ever.
            conf["worker_enable_prefetch_count_reduction"] = False
        if self.plan.variant.broker == "rabbitmq":
            # Else what a worker publishes while its connection is cut is lost in silence.
            conf["broker_transport_options"] = {"confirm_publish": True}
        else:
            conf["broker_transport_options"] = {
                # Who has waited for half of it goes round by the queue, out of the line.
                "visibility_timeout": VISIBILITY if not self.plan.judged else 10 * VISIBILITY,
                "unacked_restore_interval": 1,
                "unacked_restore_throttle": 1,
                # Who is killed while it gives messages back keeps all others from it so long.
                "unacked_mutex_expire": 2,
            }
        return conf

    @property
    def living_workers(self) -> List[WorkerProcess]:
        return [worker for worker in self.workers if worker.is_running]

    def launch_worker(self) -> WorkerProcess:
        worker = self.shop.worker(
            ready=False,
            app=faulty_app.__name__,
            pool=self.plan.variant.pool,
            concurrency=CONCURRENCY,
            environment={
                "REDLOCK_TEST_BROKER_URL": self.broker_proxy.url,
                "REDLOCK_TEST_LOCK_URL": self.proxy.url,
                **({APART: "1"} if self.plan.is_apart else {}),
            },
        )
        self.workers.append(worker)
        return worker

    # --- the run

    def run(self) -> None:
        """Carry out the plan, tasks coming all the while; then put everything back in order."""
        began = time.monotonic()
        faults = list(self.plan.faults)
        while time.monotonic() < began + self.plan.seconds:
            now = time.monotonic()
            self.deeds.end_what_is_over()
            while faults and began + faults[0].at <= now:
                self.deeds.begin(faults.pop(0))
            self._keep_busy()
            time.sleep(TICK)
        while self.deeds.are_under_way:
            self.deeds.end_what_is_over()
            time.sleep(TICK)
        self.proxy.mend()

    def _keep_busy(self) -> None:
        if sum(not result.ready() for result in self.results[-3 * AT_ONCE :]) < AT_ONCE:
            self.results.append(self._send())

    def _send(self) -> AsyncResult:
        choose, plan = self._choose, self.plan
        name = "strike_or_skip" if choose.random() < 0.15 else plan.task
        numbers = choose.sample(range(plan.resources), 1 if choose.random() < 1 - plan.pairs else 2)
        shortest, longest = plan.usual
        longest = plan.longest if choose.random() < plan.long_share else longest
        seconds = round(choose.uniform(shortest, longest), 3)
        task_id = uuid()
        self.mail.note("published", task_id)
        return self.shop.task(name).apply_async((numbers, seconds), task_id=task_id)

    # --- afterwards

    def settle(self) -> Tuple[List[str], Lost]:
        """Wait until every task has ended or is lost; the ids of those that have not ended."""
        for worker in self.workers:
            worker.wait_until_ready(START_WITHIN)
        deadline, left = time.monotonic() + PATIENCE, self._unended()
        while left and time.monotonic() < deadline:
            lost = self.lost()
            if all(map(lost.reason, left)):
                # What is between two places now is not lost: see whether it appears.
                time.sleep(LOOK_AGAIN)
                if left == self._unended() and all(map(self.lost().reason, left)):
                    break
            time.sleep(0.1)
            before, left = left, self._unended()
            if len(left) < len(before):
                deadline = time.monotonic() + PATIENCE
        return left, self.lost()

    def _unended(self) -> List[str]:
        return [result.id for result in self.results if not result.ready()]

    def lost(self) -> Lost:
        """What has become of the tasks until now."""
        deeds = self.deeds
        kept = self._kept()
        return Lost(
            self.plan.variant,
            self.mail.events(),
            deeds.deaths,
            deeds.cuts,
            lambda task_id: task_id in kept,
        )

    def _kept(self) -> str:
        """All messages that a Redis broker has, queued or as a worker's."""
        with contextlib.closing(Redis.from_url(self._redis.url, decode_responses=True)) as client:
            return "".join([*client.hvals("unacked"), *client.lrange(self.shop.queue, 0, -1)])

    def views(self) -> Dict[str, ResourceView]:
        """The resources as the server has them."""
        prefix = runtime_of(self.shop.app).settings.prefix
        store = open_store(self.server.url, prefix=prefix, restart_grace=0)
        try:
            return {name: store.inspect(name) for name in resources_of(range(RESOURCES))}
        finally:
            store.close()

    def is_quiet(self, seconds: float) -> bool:
        """Whether no process asked the lock server for anything for so long."""
        before = self.server.calls("evalsha")
        time.sleep(seconds)
        return self.server.calls("evalsha") == before
