"""Tasks with ``pydantic=True``: the same call has the same name, as a model and as published."""

# Not ``from __future__ import annotations``: before 5.7 Celery reads the annotations as they are.

from typing import Any, Callable, Iterator, List

import pytest
from celery import Celery, Task
from celery.app import base

from celery_redlock import ConfigurationError, LockedTask
from tests.harness.servers import LockServer
from tests.worker.local import apps_apart, local_app, local_worker

pydantic = pytest.importorskip("pydantic")

pytestmark = pytest.mark.skipif(
    not hasattr(base, "pydantic_wrapper"), reason="pydantic=True came with Celery 5.5"
)

SOON = 15.0


class Order(pydantic.BaseModel):
    number: int
    customer: str = "nobody"


class Receipt(pydantic.BaseModel):
    number: int
    names: List[str]


ORDER = Order(number=7, customer="ann")
PUBLISHED = {"number": 7, "customer": "ann"}


@pytest.fixture
def app(redis_server: LockServer, lock_server: LockServer) -> Iterator[Celery]:
    with apps_apart():
        locks = {"redlock_url": lock_server.url, "redlock_eager": True}
        yield local_app(server=redis_server.url, **locks)


def declare(app: Celery, name: str = "shop.ship", **options: Any) -> Any:
    @app.task(name=name, base=LockedTask, pydantic=True, bind=True, **options)
    def ship(self: Any, order: Order, to: str = "home") -> Receipt:
        assert isinstance(order, Order)
        assert self.lock.is_held
        return Receipt(number=order.number, names=list(self.lock.resources))

    app.finalize()
    return app.tasks[name]


def eagerly(task: Any) -> Any:
    return task.apply(args=(ORDER,)).get()


def directly(task: Any) -> Any:
    return task(order=ORDER)


KEYS = {
    "all": None,
    "model": ("order",),
    "plain": ("to",),
    "template": "to:{to}",
    "callable": lambda order, to: f"order:{order['number']}",
}


@pytest.mark.parametrize("run", [eagerly, directly])
@pytest.mark.parametrize("key", KEYS)
def test_a_call_with_a_model_is_named_as_it_is_published(
    app: Celery, key: str, run: Callable[[Any], Any]
) -> None:
    task = declare(app, lock_key=KEYS[key])
    name = task.lock_resource(PUBLISHED)
    assert task.lock_resource(ORDER) == task.lock_resource(order=ORDER, to="home") == name
    assert run(task) == {"number": 7, "names": [name]}
    assert task.lock_state(ORDER).holders == ()


def test_a_message_is_named_as_its_client_names_it(app: Celery) -> None:
    tasks = [declare(app, f"shop.{key}", lock_key=KEYS[key]) for key in KEYS]
    with local_worker(app):
        for task in tasks:
            receipt = task.delay(PUBLISHED).get(timeout=SOON)
            assert receipt == {"number": 7, "names": [task.lock_resource(ORDER)]}


@pytest.mark.parametrize("key", [None, ("order",), lambda order: f"order:{order['number']}"])
def test_different_models_have_different_names(app: Celery, key: Any) -> None:
    task = declare(app, lock_key=key)
    assert task.lock_resource(ORDER) != task.lock_resource(Order(number=8))


def test_a_template_cannot_render_a_model(app: Celery) -> None:
    task = declare(app, lock_key="order:{order}")
    for order in (ORDER, PUBLISHED):
        with pytest.raises(ConfigurationError, match="order"):
            task.lock_resource(order)


def test_models_of_a_task_that_takes_them_as_they_are_stay_so(app: Celery) -> None:
    """A pickled message carries the model itself, and a callable is given that."""

    @app.task(name="shop.pack", base=LockedTask, lock_key=lambda order: f"order:{order.number}")
    def pack(order: Order) -> None: ...

    assert pack.lock_resource(ORDER) == "order:7"


@pytest.mark.skipif(
    not hasattr(Task, "_dump_pydantic_arguments"), reason="before 5.7 the caller dumps a model"
)
def test_a_model_can_be_published(app: Celery) -> None:
    task = declare(app, lock_key=("order",))
    with local_worker(app):
        assert task.delay(ORDER).get(timeout=SOON)["names"] == [task.lock_resource(ORDER)]
