"""The benchmarks run from a fresh checkout; what they measure is not judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.harness.servers import require

ROOT = Path(__file__).resolve().parents[2]


def test_a_quick_run_prints_each_ratio_beside_its_goal() -> None:
    require("redis-server")
    command = [sys.executable, "-m", "benchmarks", "--quick", "a1"]
    run = subprocess.run(command, cwd=str(ROOT), stdout=subprocess.PIPE, timeout=60, check=True)
    printed = run.stdout.decode()
    for line in ("pairs/s, ratio: ", "client CPU, ratio: ", "round trips: 2.00 "):
        said = [text for text in printed.splitlines() if text.strip().startswith(line)]
        assert said, f"expected a line with {line!r}, got:\n{printed}"
        assert all("goal at " in text and text.endswith("met") for text in said), printed
