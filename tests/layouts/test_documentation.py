"""What the page on frameworks prints is what the projects here run."""

from __future__ import annotations

import re
from typing import List, Tuple

import pytest

from tests.harness.worker import ROOT
from tests.layouts.project import HERE, LAYOUTS

PAGE = (ROOT / "docs" / "frameworks.md").read_text()


def printed() -> List[Tuple[str, str]]:
    """Each block of Python: the file that its first line names, and the rest of it."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    return [(first[len("# ") :], rest) for first, _, rest in (b.partition("\n") for b in blocks)]


def test_every_framework_has_its_code_on_the_page() -> None:
    shown = {name for name, _ in printed()}
    for layout in ("django", "flask", "fastapi", "two apps"):
        directory = HERE / LAYOUTS[layout].directory
        assert any((directory / name).is_file() for name in shown), layout


@pytest.mark.parametrize(("name", "code"), printed(), ids=[name for name, _ in printed()])
def test_the_printed_code_is_the_tested_code(name: str, code: str) -> None:
    files = [path for path in HERE.glob(f"*/{name}") if path.is_file()]
    assert len(files) == 1, f"{name} is in {files}"
    assert code in files[0].read_text()
