"""``python -m benchmarks [name …] [--quick]``: measure, and print figures whatever they are."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from typing import Callable, Dict, List

from benchmarks import (
    contended,
    freed,
    kept_alive,
    majority,
    mixed,
    parked,
    per_task,
    report,
    uncontended,
)

BENCHMARKS: Dict[str, Callable[[bool], None]] = {
    "a1": uncontended.run,
    "a5": majority.run,
    "b": contended.run,
    "c": per_task.run,
    "d": mixed.run,
    "e": kept_alive.run,
    "f": freed.run,
    "g": parked.run,
}


def main(arguments: List[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Figures and ratios within one run, beside their goals.",
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(BENCHMARKS)}: or all")
    parser.add_argument("--quick", action="store_true", help="half a minute: to see that it runs")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"expected {' or '.join(BENCHMARKS)}, got {', '.join(sorted(unknown))}")
    if shutil.which("redis-server") is None:
        parser.exit(2, "redis-server is not installed: the benchmarks start servers of their own\n")
    print(report.machine(_server()))
    print("Only ratios within one run mean anything.\n", flush=True)
    for name in options.names or BENCHMARKS:
        BENCHMARKS[name](options.quick)


def _server() -> str:
    said = subprocess.run(["redis-server", "--version"], stdout=subprocess.PIPE, check=True)
    words = dict(word.split("=", 1) for word in said.stdout.decode().split() if "=" in word)
    return f"Redis {words.get('v', '?')}"


if __name__ == "__main__":
    main(sys.argv[1:])
