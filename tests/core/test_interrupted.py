"""An ask, its wait and its release, interrupted at every line: nothing is left of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("error", ["SystemExit", "TimeLimit"])
def test_nothing_is_left_wherever_it_is_interrupted(error: str) -> None:
    # In a process of its own: where another thread has an asynchronous exception pending and hears
    # of nothing, Python 3.11 never gets past the first instruction of a function that it traces.
    command = [sys.executable, "-m", "tests.core.interrupted_everywhere", error]
    ended = subprocess.run(command, cwd=str(ROOT), stderr=subprocess.PIPE, timeout=100)
    assert ended.returncode == 0, ended.stderr.decode()[-4000:]
