"""A Django project as Celery's documentation lays it out."""

from __future__ import annotations

import json
import re
from typing import Any, Dict

import psutil
import pytest
from celery.exceptions import WorkerLostError

from tests.layouts.conftest import MakeProject
from tests.layouts.project import Project, pass_time
from tests.layouts.versions import HAS_DJANGO_TASK

SOON = 30.0


@pytest.fixture(scope="module")
def project(make_project: MakeProject) -> Project:
    project = make_project("django")
    done = project.python("manage.py", "migrate", "--run-syncdb", "--verbosity=0")
    assert done.returncode == 0, done.stderr
    return project


def shell(project: Project, code: str, **environment: str) -> Any:
    """What ``answer`` is after the code, run where Django is set up."""
    lines = ["import json", code, "print(json.dumps(answer))"]
    done = project.python("manage.py", "shell", "-c", "\n".join(lines), environment=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def new_order(project: Project, customer: str) -> int:
    code = f"from orders.models import Order; order = Order.objects.create(customer={customer!r})"
    return int(shell(project, f"{code}\nanswer = order.pk"))


def with_settings(name: str) -> Dict[str, str]:
    return {"DJANGO_SETTINGS_MODULE": f"bookshop.{name}"}


ON_COMMIT = """
from bookshop.celery import app
from django.db import transaction
from orders.checkout import place_order
from orders.models import Order
from orders.tasks import ship

sent = []
app.amqp.send_task_message = lambda producer, name, message, **options: sent.append(name)
answer = []

with transaction.atomic():
    place_order("Ann")
    ship.apply_async_on_commit(args=(7,))
    answer.append(len(sent))
answer.append(len(sent))

try:
    with transaction.atomic():
        place_order("Bob")
        raise KeyError
except KeyError:
    answer.append(len(sent))
answer.append(Order.objects.filter(customer="Bob").count())
"""


@pytest.mark.skipif(not HAS_DJANGO_TASK, reason="DjangoTask came with Celery 5.4")
def test_a_task_sent_on_commit_is_published_by_the_commit_and_by_nothing_else(
    project: Project,
) -> None:
    before, after, rolled_back, kept = shell(project, ON_COMMIT)
    assert (before, after) == (0, 2)
    assert (rolled_back, kept) == (2, 0)


@pytest.mark.skipif(not HAS_DJANGO_TASK, reason="DjangoTask came with Celery 5.4")
def test_the_worker_runs_what_was_sent_on_commit(project: Project) -> None:
    worker = project.worker(concurrency=1)
    code = """
from orders.checkout import place_order
answer = place_order("Cid").pk
"""
    order = shell(project, code)
    # The same order once more: ended after the first.
    assert project.send("orders.tasks.ship", order).get(timeout=SOON) is None
    code = f"from orders.models import Order; answer = Order.objects.get(pk={order}).is_shipped"
    assert shell(project, code) is True
    worker.kill()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("misspelt_settings", "redlock_ttll must be .*; did you mean redlock_ttl?"),
        ("unfit_settings", "redlock_ttl must be a duration from 1 to 86400 seconds, got '60'"),
    ],
)
@pytest.mark.parametrize("how", ["celery", "manage.py"])
def test_a_worker_with_wrong_settings_ends_at_once_with_one_clear_line(
    project: Project, settings: str, says: str, how: str
) -> None:
    command = {
        "celery": ["-W", "ignore", "-m", "celery", "-A", "bookshop", "worker", "--pool=solo"],
        "manage.py": ["-W", "ignore", "manage.py", "run_worker", "--pool=solo"],
    }[how]
    done = project.python(*command, environment=with_settings(settings))
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert re.search(says, last)
    assert "Traceback" not in done.stdout + done.stderr


MODELS = """
from celery_redlock import ConfigurationError
from orders.models import Order
from orders.tasks import mistaken, price

one, two = Order.objects.create(customer="Dan"), Order.objects.create(customer="Eve")
again = Order.objects.get(pk=one.pk)
again.customer = "Daniela"
try:
    mistaken.lock_resource(one)
except ConfigurationError as problem:
    text = str(problem)
try:
    price.lock_resource(Order(customer="Flo"))
except ConfigurationError as problem:
    unsaved = str(problem)
answer = {
    "one": price.lock_resource(one),
    "again": price.lock_resource(again, discount=5),
    "two": price.lock_resource(two),
    "called": price(again),
    "template": text,
    "unsaved": unsaved,
}
"""


def test_a_model_instance_is_named_by_its_row_and_refused_in_a_template(project: Project) -> None:
    told = shell(project, MODELS)
    assert told["one"] == told["again"] == told["called"]
    assert told["one"] != told["two"]
    assert "argument 'order'" in told["template"]
    assert "Dan" not in told["template"]
    assert "argument 'order'" in told["unsaved"]
    assert "has no primary key yet" in told["unsaved"]


def test_after_a_long_wait_the_body_finds_a_database_connection_that_works(
    project: Project, account: str
) -> None:
    order = new_order(project, customer=account)
    # Solo: it waits in the process, and on the connection, in which its body runs.
    worker = project.worker(pool="solo", environment=with_settings("impatient_settings"))
    resource = f"customer:{account}"
    with project.locks() as locks:
        with locks.held(resource):
            result = project.send("orders.tasks.remind", order)
            locks.wait_for_line(resource, 1)
            pass_time(2.5)
        assert result.get(timeout=SOON) == [resource, account]
    worker.kill()


CALLED_BY_HAND = """
from django.db import connection
from orders.models import Order
from orders.tasks import remind
from celery_redlock.integration import gate

gate._LONG_WAIT = 0.0
order = Order.objects.create(customer="Gus").pk
answer = []
for call in (remind, lambda pk: remind.apply(args=(pk,)).get()):
    before = connection.connection
    call(order)
    answer.append(connection.connection is before)
"""


def test_a_direct_call_and_eager_mode_leave_the_callers_connections_alone(
    project: Project,
) -> None:
    assert shell(project, CALLED_BY_HAND, **with_settings("impatient_settings")) == [True, True]


def test_the_workers_parent_keeps_no_database_connection_after_it_named_a_dead_childs_lock(
    project: Project, account: str
) -> None:
    order = new_order(project, customer=account)
    worker = project.worker(concurrency=1)
    with pytest.raises(WorkerLostError):
        project.send("orders.tasks.crash", order).get(timeout=SOON)
    # The next one is granted the lock of the dead: the parent has named and released it.
    told = project.send("orders.tasks.remind", order).get(timeout=SOON)
    assert told == [f"customer:{account}", account]
    database = project.environment["DATABASE_FILE"]
    files = [opened.path for opened in psutil.Process(worker.pid).open_files()]
    assert database not in files
    worker.kill()
