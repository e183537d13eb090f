"""The shop, with a consumer step that keeps each ``shop.kept`` until the test says what to do.

It stands for the parking place, with nothing of locks in it.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Optional

from celery import bootsteps
from celery.worker.control import control_command

from celery_redlock.integration.parking.giving_back import give_back, stop_consuming
from celery_redlock.integration.parking.keeping import Kept, forget, keep, let_go
from celery_redlock.integration.parking.loop import Loop
from celery_redlock.integration.parking.pools import slots_of
from celery_redlock.integration.parking.republishing import Republisher
from celery_redlock.integration.parking.visibility import Visibility
from tests.worker.app import PREFIX, ShopSettings, make_app, pass_gate, task

HELD = "shop.kept"


@task(bind=True)
def kept(self: Any, resource: str, gate: Optional[str] = None) -> Dict[str, Any]:
    """What the body finds in its request."""
    with self.app.body_log.body(resource, task_id=self.request.id):
        pass_gate(gate)
    wanted = ("retries", "headers", "reply_to", "correlation_id", "timelimit", "group", "stamps")
    wanted += ("redlock_wait",)
    found = {name: getattr(self.request, name, None) for name in wanted}
    priority = self.request.delivery_info.get("priority")
    return {**found, "priority": priority, "has_chain": bool(self.request.chain)}


@task(bind=True)
def leave(self: Any, resource: str) -> None:
    """Ends in SystemExit, after which Celery counts a free slot too many."""
    with self.app.body_log.body(resource, task_id=self.request.id):
        raise SystemExit


class Holding(bootsteps.StartStopStep):
    """What the test says comes by remote control, with the ids of tasks."""

    name = "tests.Holding"
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        consumer.holding = self
        self._consumer = consumer
        loop = Loop.for_consumer(consumer)
        assert loop is not None
        self.loop = loop
        slots = slots_of(consumer, loop, consumer.on_task_request)
        assert slots is not None
        self._slots = slots
        self._visibility = Visibility(consumer, loop, lambda: self.held.values())
        self._republisher = Republisher(consumer, loop)
        self.held: Dict[str, Kept] = {}
        self._turns: Dict[str, Any] = {}
        self.published: List[bool] = []
        consumer.on_task_request = self._arrived

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        self.loop.register(hub)

    def start(self, consumer: Any) -> None:
        self._visibility.start()

    def stop(self, consumer: Any) -> None:
        if consumer.blueprint.state == bootsteps.CLOSE:
            stop_consuming(consumer)
            give_back(consumer, list(self.held.values()))
        else:
            for each in self.held.values():
                forget(consumer, each)
        self.held.clear()
        self._slots.clear()
        self._turns.clear()

    def _arrived(self, request: Any) -> None:
        if request.name == HELD:
            held = self.held[request.id] = keep(self._consumer, request)
            self.loop.call(held.make_room, self._consumer)
        else:
            self._slots.pass_through(request)

    # --- what the test says

    def go(self, task_id: str, first: bool = False) -> None:
        self._turns[task_id] = self._slots.take(lambda: self._run(task_id), first)

    def stay(self, task_id: str) -> None:
        self._turns.pop(task_id).cancel()

    def waste(self, task_id: str) -> None:
        """Reserve a slot and use it for nothing."""
        self._slots.take(self._slots.give_back)

    def send_again(
        self, task_id: str, delay: float, place: Dict[str, Any], queue: Optional[str] = None
    ) -> None:
        if queue is not None:
            self.held[task_id].queue = queue
        self._republisher.republish(
            self.held[task_id], delay, {"redlock_wait": place}, self._sent_again(task_id)
        )

    def _sent_again(self, task_id: str) -> Callable[[bool], None]:
        original = self.held[task_id]

        def done(is_published: bool) -> None:
            self.published.append(is_published)
            if is_published and self.held.get(task_id) is original:
                del self.held[task_id]

        return done

    def _run(self, task_id: str) -> None:
        each = self.held.pop(task_id, None)
        if each is None:
            self._slots.give_back()
            return
        let_go(self._consumer, each)
        self._slots.run(each.request)


@control_command(name="holding")
def holding(state: Any, what: str, ids: List[str], **options: Any) -> Dict[str, Any]:
    """Do it for each id; the answer is what is kept."""
    step: Holding = state.consumer.holding

    def do() -> None:
        for task_id in ids:
            getattr(step, what)(task_id, **options)

    # As all that other threads ask for: the answers of a green worker come from a greenlet.
    step.loop.call(do)
    return {"held": list(step.held), "published": step.published}


if PREFIX + "BROKER_URL" in os.environ:
    app = make_app(ShopSettings.from_environment(os.environ))
    app.steps["consumer"].add(Holding)
