"""Owner tokens: nobody can guess one, and nobody is shown one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Iterator, List, Set, Tuple

import pytest
from click.testing import CliRunner

from celery_redlock import Lock, LockConflict, LockedTask, is_skipped
from celery_redlock.core.ports import Acquire, AcquireAnswer, Terms
from celery_redlock.core.record import Record
from celery_redlock.integration import control
from celery_redlock.integration.cli import redlock
from celery_redlock.integration.request import token_of
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.locking.hold import Hold
from celery_redlock.testing import MemoryLocks, memory_locks
from tests.worker.local import apps_apart, local_app

BITS = 128


@pytest.fixture
def locks() -> Iterator[MemoryLocks]:
    with apps_apart(), memory_locks() as locks:
        yield locks


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Set[str]:
    """Every token that was sent to a lock server."""
    seen: Set[str] = set()
    store = type(runtime_of(local_app()).manager.store)
    acquire, acquire_all = store.acquire, store.acquire_all

    def noting(self: Any, request: Acquire) -> AcquireAnswer:
        seen.add(request.token)
        return acquire(self, request)

    def noting_all(self: Any, requests: Any) -> Any:
        seen.update(request.token for request in requests)
        return acquire_all(self, requests)

    monkeypatch.setattr(store, "acquire", noting)
    monkeypatch.setattr(store, "acquire_all", noting_all)
    return seen


def hexadecimal(token: str) -> bool:
    return len(token) * 4 >= BITS and set(token) <= set("0123456789abcdef")


def test_a_token_has_128_bits_and_none_is_made_twice() -> None:
    record = Record("here", 1, 0.0)
    tokens = [Hold("a", Terms(), record).token for _ in range(1000)]
    assert len(set(tokens)) == 1000
    assert all(map(hexadecimal, tokens))
    # Each bit is one about half of the time.
    ones = [sum(int(token, 16) >> bit & 1 for token in tokens) for bit in range(BITS)]
    assert all(350 < count < 650 for count in ones)


def test_a_token_that_follows_from_a_receipt_tells_nothing_of_it_or_of_the_others() -> None:
    receipts = [f"{number:032x}" for number in range(50)]
    made: List[Tuple[str, str]] = [(each, f"account:{n}") for each in receipts for n in range(20)]
    tokens = {token_of(receipt, name) for receipt, name in made}
    assert len(tokens) == len(made)
    assert all(map(hexadecimal, tokens))
    assert not [token for token in tokens for receipt in receipts if receipt in token]


def test_no_token_is_shown(
    locks: MemoryLocks, tokens: Set[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    app = local_app(redlock_allow_release=True)
    told: List[Any] = []

    def look(self: Any) -> None:
        told.extend([self.lock, vars(self.request), self.request.headers, sync.lock_state(1)])
        held = runtime_of(app).manager.watchdog.renewing
        told.extend([held, [str(hold) for hold in held], [hold.record.encode() for hold in held]])
        told.extend(cli(app, *words) for words in (["ls"], ["ls", "--json"], ["show", "account:1"]))
        told.append(cli(app, "show", "account:1", "--json"))
        state = SimpleNamespace(
            app=app, hostname=None, consumer=SimpleNamespace(pool=SimpleNamespace(info={}))
        )
        told.append(control.redlock_held(state))
        with pytest.raises(LockConflict) as conflict:
            locks.hold(sync, 1)
        told.extend([conflict.value, conflict.value.args])

    @app.task(name="shop.sync", base=LockedTask, bind=True, lock_key="account:{n}")
    def sync(self: Any, n: int) -> None:
        look(self)

    @app.task(name="shop.skip", base=LockedTask, lock_key="account:{n}", lock_on_conflict="skip")
    def skip(n: int) -> None: ...

    sync.apply((1,)).get()
    with Lock("account:2", app=app) as lock:
        told.append(lock)
    with locks.hold(skip, 2) as rival:
        marker = skip.apply((2,)).get()
        assert is_skipped(marker)
        told.extend([rival, marker])
    told.extend([*locks.events, caplog.text, [vars(line) for line in caplog.records]])
    told.append(cli(app, "release", "account:1", "--yes"))
    shown = "".join(map(repr, told))
    assert len(tokens) >= 3
    assert not [token for token in tokens if token in shown]


def cli(app: Any, *words: str) -> str:
    result = CliRunner().invoke(redlock, words, obj=SimpleNamespace(app=app))
    assert result.exit_code == 0, result.output
    return result.output
