"""The examples of docs/testing.md are a project whose tests pass, with pytest and without."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from celery_redlock.testing import MemoryLocks
from tests.harness.worker import ROOT

PAGE = (ROOT / "docs" / "testing.md").read_text()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("project")
    for name, text in re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL):
        (directory / name).write_text(text)
    return directory


def run(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=str(project),
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )


def test_every_example_passes(project: Path) -> None:
    done = run(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", ".")
    assert done.returncode == 0, done.stdout
    written = PAGE.count("def test_")
    assert f"{written} passed" in done.stdout


def test_without_pytest_the_unittest_passes_and_the_fixture_says_what_is_missing(
    project: Path,
) -> None:
    without = "import sys; sys.modules['pytest'] = None; "
    done = run(project, "-c", without + "import test_unit, unittest; unittest.main('test_unit')")
    assert done.returncode == 0, done.stdout
    assert "OK" in done.stdout
    done = run(project, "-c", without + "from celery_redlock.testing import locks; locks()")
    assert "the fixture locks needs pytest" in done.stdout


@pytest.mark.parametrize("name", [name for name in vars(MemoryLocks) if name[0] != "_"])
def test_the_page_has_whatever_a_test_may_call(name: str) -> None:
    of_the_stand_in = ("covers", "settings", "manager", "hear")
    assert name in of_the_stand_in or f"`{name}" in PAGE
