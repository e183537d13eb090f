"""Look into the built sdist and wheel, then use the wheel as somebody who has only that.

python .ci/check_package.py DIRECTORY
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path
from typing import Set

PACKAGE = "celery_redlock"
ROOT = Path(__file__).resolve().parents[1]

_USE = """
import celery_redlock, pathlib
from celery_redlock import *
from celery_redlock.store.scripts import Script
assert "site-packages" in celery_redlock.__file__, celery_redlock.__file__
assert Script("acquire").text
print("celery_redlock", celery_redlock.__version__, "from", celery_redlock.__file__)
"""


def main(directory: Path) -> None:
    wheel, sdist = _only(directory, "*.whl"), _only(directory, "*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        _check_complete(wheel, set(archive.namelist()))
    with tarfile.open(sdist) as archive:
        _check_complete(sdist, {name.partition("/")[2] for name in archive.getnames()})
    with tempfile.TemporaryDirectory() as place:
        _use(wheel, Path(place))


def _only(directory: Path, pattern: str) -> Path:
    (found,) = directory.glob(pattern)
    return found


def _check_complete(archive: Path, packed: Set[str]) -> None:
    source = ROOT / PACKAGE
    wanted = {
        str(path.relative_to(ROOT))
        for path in source.rglob("*")
        if path.suffix in {".py", ".lua", ".typed"}
    }
    missing = sorted(wanted - packed)
    if missing:
        sys.exit(f"{archive.name} lacks {', '.join(missing)}")
    print(f"{archive.name} has all {len(wanted)} files of {PACKAGE}")


def _use(wheel: Path, place: Path) -> None:
    """In a fresh environment and away from the sources."""
    venv.create(place / "venv", with_pip=True)
    programs = place / "venv" / "bin"
    _run(place, str(programs / "python"), "-m", "pip", "install", "--quiet", str(wheel))
    print(_run(place, str(programs / "python"), "-c", _USE), end="")
    _run(place, str(programs / "celery"), "redlock", "--help")
    options = _run(place, str(programs / "celery"), "worker", "--help")
    if "--redlock-url" not in options:
        sys.exit("celery worker --help does not show the flags of celery_redlock")


def _run(place: Path, *command: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=str(place), env=environment, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]))
