"""A Flask project by the recipe of Flask's documentation."""

from __future__ import annotations

import json

import pytest

from tests.layouts.conftest import MakeProject
from tests.layouts.project import Project

SOON = 30.0


@pytest.fixture(scope="module")
def project(make_project: MakeProject) -> Project:
    project = make_project("flask")
    project.worker(concurrency=1)
    return project


def test_a_body_runs_in_the_lock_and_in_the_application_context(
    project: Project, account: str
) -> None:
    told = project.report(account).get(timeout=SOON)
    assert told["held"] is True
    assert told["resource"] == f"account:{account}"
    assert told["context"] == "accounts"


CLIENT = f"""
import json, time
from make_celery import flask_app

client = flask_app.test_client()
sent = client.post("/sync", data={{"account_id": 7}}).get_json()
deadline = time.monotonic() + {SOON}
result = {{"ready": False}}
while not result["ready"] and time.monotonic() < deadline:
    result = client.get(f"/result/{{sent['result_id']}}").get_json()
print(json.dumps(result))
"""


def test_a_view_sends_a_locked_task_and_another_gives_its_result(project: Project) -> None:
    done = project.python("-c", CLIENT)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result == {"ready": True, "successful": True, "value": "account 7 of accounts"}


def test_a_wrong_setting_in_flasks_configuration_ends_a_worker_at_once_with_one_clear_line(
    project: Project,
) -> None:
    command = ["-W", "ignore", "-m", "celery", "-A", "make_celery", "worker", "--pool=solo"]
    done = project.python(*command, environment={"FLASK_CELERY__redlock_ttll": "60"})
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert "did you mean redlock_ttl?" in last
    assert "Traceback" not in done.stdout + done.stderr


TWO_APPS = """
import json
from accounts import create_app
from celery import shared_task
from celery_redlock import LockedTask
from flask import current_app


@shared_task(base=LockedTask, bind=True, ignore_result=False)
def whose(self):
    celery_app = current_app.extensions["celery"]
    return [current_app.config["NUMBER"], self.lock.is_held, self.app is celery_app]


told = []
for number, app in enumerate([create_app(), create_app()]):
    app.config["NUMBER"] = number
    task = app.extensions["celery"].tasks[whose.name]
    told += [task(), task.apply().get()]
print(json.dumps(told))
"""


def test_two_flask_apps_in_one_process_each_have_their_context_and_their_locks(
    project: Project,
) -> None:
    done = project.python("-c", TWO_APPS, environment={"FLASK_CELERY__redlock_eager": "true"})
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == [[0, True, True], [0, True, True], [1, True, True], [1, True, True]]
