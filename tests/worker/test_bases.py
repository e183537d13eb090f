"""LockedTask with the classes that apps and users bring along: theirs run too, inside the lock."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, ClassVar, Dict, Iterator, List, Set

import pytest
from celery import Celery, Task
from celery.worker.request import Request

from celery_redlock import ConfigurationError, LockedTask, current_lock
from celery_redlock.exceptions import LockError
from celery_redlock.integration.request import LockedRequest
from celery_redlock.signals import lock_acquired
from tests.harness.servers import LockServer
from tests.worker.local import apps_apart, local_app, local_worker

SOON = 15.0

#: What happened, in its order, as (where, whether a lock was held there).
Seen = List[Any]
Run = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def _apps_of_its_own() -> Iterator[None]:
    with apps_apart():
        yield


@pytest.fixture
def seen() -> Seen:
    return []


@pytest.fixture
def make_app(redis_server: LockServer, lock_server: LockServer) -> Callable[..., Celery]:
    def make(**options: Any) -> Celery:
        locks = {"redlock_url": lock_server.url, "redlock_eager": True}
        return local_app(server=redis_server.url, **locks, **options)

    return make


def by_worker(task: Any) -> Any:
    with local_worker(task.app):
        result = task.delay(1)
        return result.get(timeout=SOON), result.id


def eagerly(task: Any) -> Any:
    result = task.apply(args=(1,))
    return result.get(), result.id


RUNS = [by_worker, eagerly]


def is_held() -> bool:
    try:
        return current_lock().is_held
    except LockError:
        return False


def flask_task(seen: Seen) -> Any:
    """The recipe of Flask's documentation, with an application context that takes notes."""

    @contextmanager
    def app_context() -> Iterator[None]:
        seen.append(("enter context", is_held()))
        yield
        seen.append(("leave context", is_held()))

    class FlaskTask(Task):
        def __call__(self, *args: object, **kwargs: object) -> object:
            with app_context():
                return self.run(*args, **kwargs)

    return FlaskTask


INSIDE = [("enter context", True), ("body", True), ("leave context", True)]


def declare(app: Celery, seen: Seen, **options: Any) -> Any:
    """A locked task that returns the id of its request."""

    @app.task(bind=True, name="shop.sync", **{"base": LockedTask, **options})
    def sync(self: Any, account_id: int) -> Any:
        assert self.lock is current_lock()
        seen.append(("body", self.lock.is_held))
        return self.request.id

    return app.tasks["shop.sync"]


def assert_ran_inside(task: Any, run: Run, seen: Seen, expected: Seen) -> None:
    result, task_id = run(task)
    assert seen == expected
    assert result == task_id
    assert task.lock_state(1).holders == ()


@pytest.mark.parametrize("run", RUNS)
def test_flasks_recipe_runs_inside_the_lock(
    make_app: Callable[..., Celery], seen: Seen, run: Run
) -> None:
    app = make_app(task_cls=flask_task(seen))
    assert_ran_inside(declare(app, seen), run, seen, INSIDE)


@pytest.mark.parametrize("run", RUNS)
def test_a_task_class_assigned_to_the_app_runs_inside_the_lock(
    make_app: Callable[..., Celery], seen: Seen, run: Run
) -> None:
    app = make_app()
    app.Task = flask_task(seen)  # the recipe of older documentation
    assert_ran_inside(declare(app, seen), run, seen, INSIDE)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("locked_first", [True, False])
@pytest.mark.parametrize("also_apps", [True, False])
def test_the_gate_is_reached_in_either_order_of_bases(
    make_app: Callable[..., Celery], seen: Seen, run: Run, locked_first: bool, also_apps: bool
) -> None:
    flask = flask_task(seen)
    bases = (LockedTask, flask) if locked_first else (flask, LockedTask)
    both = type("Both", bases, {"abstract": True})
    app = make_app(task_cls=flask) if also_apps else make_app()
    assert_ran_inside(declare(app, seen, base=both), run, seen, INSIDE)


def calls_run(self: Any, *args: Any, **kwargs: Any) -> Any:
    self.seen.append(("call", is_held()))
    return self.run(*args, **kwargs)


@pytest.mark.parametrize("run", RUNS)
def test_a_users_call_runs_inside_the_lock(
    make_app: Callable[..., Celery], seen: Seen, run: Run
) -> None:
    base = type("Base", (LockedTask,), {"abstract": True, "__call__": calls_run, "seen": seen})
    expected = [("call", True), ("body", True)]
    assert_ran_inside(declare(make_app(), seen, base=base), run, seen, expected)


class CallsSuper(LockedTask):
    abstract = True
    seen: Seen

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.seen.append(("call", is_held()))
        return super().__call__(*args, **kwargs)


@pytest.mark.parametrize("run", RUNS)
def test_a_users_call_that_calls_super_gets_as_far_as_the_apps_class(
    make_app: Callable[..., Celery], seen: Seen, run: Run
) -> None:
    base = type("Base", (CallsSuper,), {"abstract": True, "seen": seen})
    app = make_app(task_cls=flask_task(seen))
    assert_ran_inside(declare(app, seen, base=base), run, seen, [("call", True), *INSIDE])


@pytest.mark.parametrize("run", RUNS)
def test_a_subclass_of_a_task_passes_one_gate(
    make_app: Callable[..., Celery], seen: Seen, run: Run
) -> None:
    class Sync(LockedTask):
        name = "shop.simple"

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(("parent's call", is_held()))
            return self.run(*args, **kwargs)

        def run(self, account_id: int) -> Any:
            seen.append(("body", self.lock.is_held))
            return self.request.id

    class Deep(Sync):
        name = "shop.sync"

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(("call", is_held()))
            return super().__call__(*args, **kwargs)

    app = make_app()
    app.register_task(Sync())
    task = app.register_task(Deep())
    task.apply(args=(1,))
    del seen[:]
    acquired: List[str] = []

    def note(resource: str, **_fields: Any) -> None:
        acquired.append(resource)

    lock_acquired.connect(note)
    expected = [("call", True), ("parent's call", True), ("body", True)]
    assert_ran_inside(task, run, seen, expected)
    assert acquired == [task.lock_resource(1)]


@pytest.mark.parametrize("run", RUNS)
def test_the_request_is_what_celery_makes_of_it_when_call_calls_super(
    make_app: Callable[..., Celery], seen: Seen, run: Run
) -> None:
    """Celery's Task.__call__ pushes an empty request, unless a worker's process replaced it."""
    app = make_app()

    class Plain(Task):
        abstract = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    @app.task(base=Plain, bind=True)
    def plain(self: Any, account_id: int) -> Any:
        return self.request.id

    base = type("Base", (CallsSuper,), {"abstract": True, "seen": seen})
    locked, locked_id = run(declare(app, seen, base=base))
    unlocked, unlocked_id = run(app.tasks[plain.name])
    assert (locked == locked_id) == (unlocked == unlocked_id)


@pytest.mark.parametrize("run", RUNS)
def test_before_start_runs_before_the_lock_and_after_return_after_it(
    make_app: Callable[..., Celery], seen: Seen, run: Run
) -> None:
    class Noting(LockedTask):
        abstract = True

        def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
            seen.append(("before_start", is_held()))

        def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
            seen.append(("on_success", is_held()))

        def after_return(self, *details: Any) -> None:
            seen.append(("after_return", is_held()))

    task = declare(make_app(), seen, base=Noting)
    expected = [
        ("before_start", False),
        ("body", True),
        ("on_success", False),
        ("after_return", False),
    ]
    assert_ran_inside(task, run, seen, expected)


def test_methods_of_the_apps_class_stay_available(
    make_app: Callable[..., Celery], seen: Seen
) -> None:
    class DjangoLike(Task):
        def delay_on_commit(self, *args: Any, **kwargs: Any) -> Any:
            return self.delay(*args, **kwargs)

    app = make_app(task_cls=DjangoLike)
    task = declare(app, seen)
    with local_worker(app):
        result = task.delay_on_commit(1)
        assert result.get(timeout=SOON) == result.id
    assert seen == [("body", True)]

    class Sync(LockedTask):
        name = "shop.class_based"

        def run(self) -> None: ...

    assert app.register_task(Sync()).delay_on_commit().id


def test_defaults_of_the_apps_class_hold(make_app: Callable[..., Celery], seen: Seen) -> None:
    class Patient(Task):
        max_retries = 99
        lock_ttl = 77

    task = declare(make_app(task_cls=Patient), seen)
    assert task.max_retries == 99
    assert isinstance(task, Patient)


class NotingRequest(Request):
    noted: ClassVar[Set[str]] = set()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.noted.add(self.id)


@pytest.mark.parametrize("way", ["option", "base", "app", "name"])
def test_a_users_request_class_is_used_with_the_locks_own(
    make_app: Callable[..., Celery], seen: Seen, way: str
) -> None:
    app_class = type("AppTask", (Task,), {"Request": NotingRequest})
    base = type("Base", (LockedTask,), {"abstract": True, "Request": NotingRequest})
    options: Dict[str, Any] = {
        "option": {"Request": NotingRequest},
        "base": {"base": base},
        "app": {},
        "name": {"Request": f"{__name__}:NotingRequest"},
    }[way]
    app = make_app(task_cls=app_class) if way == "app" else make_app()
    task = declare(app, seen, **options)
    assert issubclass(task.Request, LockedRequest)
    assert task.Request.__name__ == "NotingRequest"
    result, task_id = by_worker(task)
    assert result == task_id
    assert seen == [("body", True)]
    assert task_id in NotingRequest.noted
    assert Task.Request == "celery.worker.request:Request"


def test_bases_that_cannot_be_combined_are_one_clear_error(
    make_app: Callable[..., Celery], seen: Seen
) -> None:
    one, two = type("One", (), {}), type("Two", (), {})
    app = make_app(task_cls=type("AppTask", (one, two, Task), {}))
    base = type("Mine", (two, one, LockedTask), {"abstract": True})
    with pytest.raises(ConfigurationError) as caught:
        declare(app, seen, base=base)
    text = str(caught.value)
    assert "expected a base that can be combined with the app's own Task class" in text
    assert "got Mine (" in text
    assert "make one base class of both" in text
    assert "shop.sync" not in app.tasks
