"""What holds in every layout: tasks exclude each other, the settings count, and the flags exist."""

from __future__ import annotations

from typing import Iterator

import pytest

from tests.layouts.conftest import MakeProject
from tests.layouts.project import LAYOUTS, NOBODY, Project

SOON = 30.0


@pytest.fixture(scope="module", params=list(LAYOUTS))
def project(request: pytest.FixtureRequest, make_project: MakeProject) -> Iterator[Project]:
    project = make_project(request.param)
    yield project
    project.close()


def test_one_body_at_a_time_by_the_projects_settings(project: Project, account: str) -> None:
    project.worker(concurrency=2)
    gate = project.gate()
    with project.locks() as locks:
        results = [project.report(account, gate=str(gate)) for _ in range(2)]
        project.bodies.wait_for(count_started=1, timeout=SOON)
        locks.wait_for_line(f"account:{account}", 1)
        gate.touch()
    for result in results:
        told = result.get(timeout=SOON)
        assert told["held"] is True
        assert told["resource"] == f"account:{account}"
        assert told["ttl"] == 60
    assert len(project.bodies.bodies(account)) == 2
    assert project.bodies.overlaps() == []


def test_flags_win_over_the_projects_settings(project: Project, account: str) -> None:
    away = {project.layout.servers.locks: NOBODY}
    flags = ("--redlock-ttl=44", "--redlock-on-conflict=skip", f"--redlock-url={project.lock_url}")
    worker = project.worker(*flags, "-Q", "flagged", concurrency=1, environment=away)
    told = project.report(account, queue="flagged").get(timeout=SOON)
    assert told["held"] is True
    assert (told["ttl"], told["on_conflict"]) == (44, "skip")
    worker.kill()


def test_the_flags_are_in_the_help(project: Project) -> None:
    done = project.python("-m", "celery", "-A", project.layout.app, "worker", "--help")
    assert done.returncode == 0, done.stderr
    for flag in ("url", "ttl", "on-conflict", "max-parked", "disable"):
        assert f"--redlock-{flag}" in done.stdout
