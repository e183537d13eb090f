"""Scripts of the tests' own, as processes beside the test's app."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, List

from tests.harness.locked_shop import eventually
from tests.harness.process import Program
from tests.harness.worker import ROOT

PROGRAM = "tests.worker.lock_program"
SOON = 20.0


class Script:
    """One run of ``tests.worker.lock_program``."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def facts(self) -> List[Dict[str, Any]]:
        """What it has told so far."""
        lines = self.program.text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def tells(self, *, within: float = SOON, **fields: Any) -> Dict[str, Any]:
        """Wait for a fact that has these fields with these values (… for any)."""
        found: List[Dict[str, Any]] = []

        def is_told() -> bool:
            found[:] = [fact for fact in self.facts() if _fits(fact, fields)]
            return bool(found)

        assert eventually(is_told, within), f"{fields} was not told:\n{self.program.text()}"
        return found[0]

    def ends(self) -> List[Dict[str, Any]]:
        assert self.program.wait(SOON), f"it did not end:\n{self.program.text()}"
        assert "Traceback" not in self.program.text(), self.program.text()
        return self.facts()


class Scripts:
    """Starts scripts on one lock server and one prefix, and ends them."""

    def __init__(self, url: str, prefix: str, directory: Path, stack: ExitStack) -> None:
        self._url = url
        self._prefix = prefix
        self._directory = directory
        self._stack = stack
        self._count = 0

    def start(self, scenario: str, name: str) -> Script:
        self._count += 1
        program = Program(
            [sys.executable, "-m", PROGRAM, scenario, self._url, self._prefix, name],
            output=self._directory / f"{scenario}-{self._count}.out",
            directory=ROOT,
        )
        self._stack.callback(program.kill)
        program.start()
        return Script(program)


def _fits(fact: Dict[str, Any], fields: Dict[str, Any]) -> bool:
    return all(
        name in fact and (value is ... or fact[name] == value) for name, value in fields.items()
    )
