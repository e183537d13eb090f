"""Two apps in one process: each locks by its own settings, on its own server."""

from __future__ import annotations

from typing import Optional

import pytest

from tests.layouts.conftest import MakeProject
from tests.layouts.project import NOBODY, Project

SOON = 30.0


@pytest.fixture
def project(make_project: MakeProject) -> Project:
    return make_project("two apps")


def test_each_app_locks_by_its_own_settings_and_the_flags_are_the_workers_apps(
    project: Project, account: str
) -> None:
    flags = ("--redlock-ttl=44", f"--redlock-url={project.lock_url}")
    # Only the flag leads the worker's app to a server, only its own setting the other app.
    settings = {"LOCK_URL": NOBODY, "MUSIC_LOCK_URL": project.lock_url}
    worker = project.worker(*flags, environment=settings)
    books, music = project.send("shared_jobs.report_in_both", account).get(timeout=SOON)
    assert (books["held"], books["ttl"], books["on_conflict"]) == (True, 44, "wait")
    assert (music["held"], music["ttl"], music["on_conflict"]) == (True, 50, "wait")
    assert music["resource"] == books["resource"]
    worker.kill()


@pytest.mark.parametrize("prefix", [None, "both:"])
def test_apps_exclude_each_other_if_they_share_a_prefix_and_only_then(
    project: Project, account: str, prefix: Optional[str]
) -> None:
    shared = {"LOCK_PREFIX": prefix} if prefix else {}
    apps = ("shops:books", "shops:music")
    workers = [project.worker(app=app, environment=shared, ready=False) for app in apps]
    for worker in workers:
        worker.wait_until_ready()
    gate = project.gate()
    results = [project.send("shared_jobs.report", account, gate=str(gate), queue="books")]
    project.bodies.wait_for(count_started=1, timeout=SOON)
    results.append(project.send("shared_jobs.report", account, gate=str(gate), queue="music"))
    if prefix:
        with project.locks(f"{prefix}1:") as locks:
            locks.wait_for_line(f"account:{account}", 1)
    else:
        project.bodies.wait_for(count_started=2, timeout=SOON)
    gate.touch()
    assert [result.get(timeout=SOON)["ttl"] for result in results] == [60, 50]
    assert len(project.bodies.overlaps()) == (0 if prefix else 1)
