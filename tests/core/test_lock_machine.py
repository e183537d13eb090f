"""Lock against a model: instances, and contexts as threads and their copies have them.

The model knows who holds what on which terms, and what was visible where. It predicts whether an
acquire succeeds, waits or is an error, and what a release does.
"""

from __future__ import annotations

from contextvars import Context
from functools import lru_cache
from typing import Any, Dict, List, NamedTuple, Optional, Set

import pytest
from celery import Celery
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from celery_redlock import Lock, LockError, LockNotOwned
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.locking import native
from celery_redlock.locking.manager import Manager
from celery_redlock.store.memory import MemoryStore


class Kind(NamedTuple):
    resource: str
    mode: str
    limit: int


KINDS = [
    *[Kind(resource, "exclusive", 1) for resource in "aabb"],
    *[Kind("a", "exclusive", 2)] * 3,
    *[Kind("a", "shared", 1)] * 3,
]


@lru_cache(maxsize=None)
def model_app() -> Celery:
    """One for all examples: a new one has every task that the tests before have shared."""
    app = Celery("model", set_as_current=False)
    app.conf.redlock_url = "redis://127.0.0.1:1/0"
    return app


class Locks(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        app = model_app()
        self.store = MemoryStore()
        self.manager = Manager(self.store, lambda event: None)
        runtime_of(app)._manager = self.manager
        self.locks = [
            Lock(kind.resource, app=app, mode=kind.mode, limit=kind.limit, ttl=86400)
            for kind in KINDS
        ]
        self.contexts = [Context(), Context()]
        #: The holds that each context is in; a hold has the number of the grant.
        self.visible: List[Set[int]] = [set(), set()]
        self.holds: Dict[int, Kind] = {}
        #: What each instance claims: a hold, its own or another's.
        self.claims: Dict[int, int] = {}
        self.own: Set[int] = set()
        self.grants = 0
        self.fences: Dict[str, int] = {}

    instances = st.integers(0, len(KINDS) - 1)
    places = st.integers(0, 3)

    @rule(instance=instances, place=places)
    def acquire(self, instance: int, place: int) -> None:
        place %= len(self.contexts)
        expected = self._expected(instance, place)
        lock = self.locks[instance]
        try:
            got: Any = self.contexts[place].run(lock.acquire, blocking=False)
        except LockError:
            got = "error"
        assert got == expected, f"{KINDS[instance]} in {place}"
        if got is False:
            # What it claimed before had ended: to ask anew is to give that up.
            self.claims.pop(instance, None)
        if got is not True:
            return
        around = self._around(instance, place)
        if around is None:
            self._grant(instance, place)
        else:
            self.claims[instance] = around
            self.own.discard(instance)

    @precondition(lambda self: self.claims)
    @rule(place=places, data=st.data())
    def release(self, place: int, data: st.DataObject) -> None:
        """From any context, not only the one that acquired it."""
        instance = data.draw(st.sampled_from(sorted(self.claims)))
        context = self.contexts[place % len(self.contexts)]
        claim = self.claims.pop(instance)
        if claim not in self.holds:
            with pytest.raises(LockNotOwned):
                context.run(self.locks[instance].release)
            return
        context.run(self.locks[instance].release)
        if instance in self.own:
            del self.holds[claim]

    @rule(instance=instances)
    def release_what_is_not_held(self, instance: int) -> None:
        if instance not in self.claims:
            with pytest.raises(LockError):
                self.locks[instance].release()

    @rule(place=places)
    def copy_context(self, place: int) -> None:
        if len(self.contexts) < 4:
            place %= len(self.contexts)
            self.contexts.append(self.contexts[place].copy())
            self.visible.append(set(self.visible[place]))

    @invariant()
    def the_server_has_what_the_model_has(self) -> None:
        for resource in "ab":
            held = [kind for kind in self.holds.values() if kind.resource == resource]
            holders = self.store.inspect(resource).holders
            assert sorted((h.mode, h.limit) for h in holders) == sorted(k[1:] for k in held)

    @invariant()
    def every_instance_knows_whether_it_holds(self) -> None:
        for number, lock in enumerate(self.locks):
            is_held = self.claims.get(number) in self.holds
            assert lock.is_held == is_held
            assert lock.owned() == is_held

    @invariant()
    def nothing_that_ended_is_renewed(self) -> None:
        assert len(self.manager.watchdog.renewing) == len(self.holds)

    def _expected(self, instance: int, place: int) -> Any:
        if self.claims.get(instance) in self.holds:
            return "error"
        kind = KINDS[instance]
        around = self._around(instance, place)
        if around is not None:
            held = self.holds[around]
            more = (held.mode, kind.mode) == ("shared", "exclusive") or kind.limit < held.limit
            return "error" if more else True
        others = [other for other in self.holds.values() if other.resource == kind.resource]
        if any(other.mode != kind.mode for other in others):
            return False
        least = min(other.limit for other in [*others, kind])
        return kind.mode == "shared" or len(others) < least

    def _around(self, instance: int, place: int) -> Optional[int]:
        """The hold of this resource that the context is in."""
        resource = KINDS[instance].resource
        here = self.visible[place] & set(self.holds)
        return max((hold for hold in here if self.holds[hold].resource == resource), default=None)

    def _grant(self, instance: int, place: int) -> None:
        self.grants += 1
        self.holds[self.grants] = KINDS[instance]
        self.claims[instance] = self.grants
        self.own.add(instance)
        self.visible[place].add(self.grants)
        lock = self.locks[instance]
        fence = lock.fence or 0
        assert fence > self.fences.get(lock.name, 0)
        self.fences[lock.name] = fence

    def teardown(self) -> None:
        for instance, claim in sorted(self.claims.items()):
            if claim in self.holds and instance in self.own:
                self.locks[instance].release()
        assert self.manager.is_idle, "something is left in a table"


@pytest.fixture
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is due within a day."""
    monkeypatch.setattr(native, "start_thread", lambda run: None)


@pytest.mark.usefixtures("_no_threads")
class TestLocks(Locks.TestCase):
    settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
