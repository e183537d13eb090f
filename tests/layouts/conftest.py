"""Fixtures of the layouts: each project with a server of its own, its workers ended with the test.

Projects import their frameworks in processes of their own and never in the tests' process.
"""

from __future__ import annotations

import importlib.util
import secrets
from contextlib import ExitStack
from typing import Callable, Iterator

import pytest

from tests.harness.servers import LockServer, missing
from tests.layouts.project import LAYOUTS, Project
from tests.worker.local import apps_apart

# Celery calls what redis-py has deprecated, also in a client of the tests' process.
CELERYS_OWN = "ignore:Call to deprecated:DeprecationWarning:celery.backends.redis"

MakeProject = Callable[[str], Project]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", CELERYS_OWN)


@pytest.fixture(scope="module")
def make_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeProject]:
    """Make projects by the name of their layout, for all tests of a module."""
    # The clients are closed while their servers still answer.
    with ExitStack() as servers, apps_apart(), ExitStack() as projects:

        def make(name: str) -> Project:
            layout = LAYOUTS[name]
            for module in layout.needs:
                if importlib.util.find_spec(module) is None:
                    missing(module)
            server = servers.enter_context(LockServer.start())
            project = Project(layout, tmp_path_factory.mktemp("project"), server)
            projects.callback(project.close)
            return project

        yield make


@pytest.fixture
def account() -> str:
    """An account that no other test works on."""
    return secrets.token_hex(4)
