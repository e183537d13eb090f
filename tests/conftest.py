"""What every suite has: the options to break one thing on purpose and to choose the pool."""

from __future__ import annotations

import os
import random
from typing import List

import pytest

from tests import sabotage
from tests.harness import pools

#: Where the random seed of this run is told to all of its processes; give one to repeat a run.
SEED = "REDLOCK_TEST_SEED"

#: No second try for a test that has seen this: bodies at once, trust in a lock that is another's.
UNFORGIVABLE = (
    r"Overlap\(",
    r"ran beyond the limit",
    r"ran at the same time",
    r"trusted its lock",
    r"one fence for two bodies",
    r"the fence did not grow",
)

#: The fixtures whose shops' workers are of the chosen pool.
STARTS_WORKERS = {"make_shop", "make_locked_shop"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sabotage", metavar="NAME", help="break one thing: see tests/sabotage.py")
    parser.addoption(
        "--pool",
        choices=pools.POOLS,
        default=pools.PREFORK,
        help="run on this pool what starts workers, and nothing else",
    )


def pytest_configure(config: pytest.Config) -> None:
    # The processes that share the tests must find the same ones: in the names of some is a seed,
    # and others are made from sets.
    os.environ.setdefault(SEED, str(random.randrange(10**6)))
    os.environ.setdefault("PYTHONHASHSEED", "0")
    name = config.getoption("--sabotage")
    if name:
        sabotage.apply(name)
        os.environ[sabotage.VARIABLE] = name
    pools.choose(config.getoption("--pool"))
    config.option.rerun_except = list(UNFORGIVABLE)


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    pool = config.getoption("--pool")
    for item in items:
        for need in item.iter_markers("needs"):
            (name,) = need.args
            if not pools.NEEDS[name].is_on(pool):
                reason = f"no {name}: {pools.NEEDS[name].reason}"
                item.add_marker(pytest.mark.skip(reason=reason))
    if pool != pools.PREFORK:
        _keep(config, items, [item for item in items if STARTS_WORKERS & set(item.fixturenames)])


def _keep(config: pytest.Config, items: List[pytest.Item], kept: List[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
