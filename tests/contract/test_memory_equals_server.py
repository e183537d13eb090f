"""Whatever is asked in whatever order, the memory store answers as a real server does.

Both get the same random requests. Durations are either over before the next request or longer than
the test, so that answers may differ in times and fences only: those are compared by their order.
"""

from __future__ import annotations

import itertools
import time
from typing import Any, Dict, List, Optional, Tuple

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from celery_redlock.core import ports
from celery_redlock.core.ports import Line, Store, Terms
from celery_redlock.store.memory import MemoryStore
from tests.contract.conftest import Backend
from tests.contract.desk import said

OVER_SOON, LONG = 1, 60_000
BEYOND = 0.003  # a pause after which what is over soon is over

TOKENS = st.sampled_from("abcd")
DURATIONS = st.sampled_from([OVER_SOON, LONG])
TERMS = st.builds(
    Terms, st.sampled_from(["exclusive", "exclusive", "shared"]), st.integers(1, 3), DURATIONS
)
LINES = st.one_of(
    st.none(),
    st.builds(
        Line,
        st.just("in"),
        waiter_ttl_ms=DURATIONS,
        grant_ttl_ms=DURATIONS,
        seq=st.sampled_from([0, 0, 0, 1, 2]),
        max_waiting=st.sampled_from([0, 0, 1, 2]),
        overflow=st.sampled_from(["skip", "drop_oldest"]),
    ),
)
ORPHANS = st.one_of(st.just(()), st.lists(TOKENS, max_size=2, unique=True).map(tuple))
#: A fence that the token had, counted from the latest; or one from long ago, or from far ahead.
FENCES = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2, "ancient", "ahead"])
ANCIENT, AHEAD = 5, 8_000_000_000_000_000

_names = (f"resource {number}" for number in itertools.count())


class Comparison(RuleBasedStateMachine):
    def __init__(self, real: Store) -> None:
        super().__init__()
        self.stores: Tuple[Store, Store] = (MemoryStore(), real)
        self.inboxes = [store.subscribe("in") for store in self.stores]
        self.resource = next(_names)
        self.fences: Dict[str, List[Tuple[int, int]]] = {}

    @initialize(crowd=st.lists(TERMS, min_size=3, max_size=3))
    def gather(self, crowd: List[Terms]) -> None:
        for token, terms in zip("abc", crowd):
            self.acquire(token, terms, Line("in", LONG, LONG), (), False, token)
            time.sleep(BEYOND)

    @rule(token=TOKENS, terms=TERMS, line=LINES, orphans=ORPHANS, kept=st.booleans(), of=TOKENS)
    def acquire(
        self,
        token: str,
        terms: Terms,
        line: Optional[Line],
        orphans: Tuple[str, ...],
        kept: bool,
        of: str,
    ) -> None:
        others = tuple(orphan for orphan in orphans if orphan != token)
        name = f"{of}'s" if kept else ""
        ask = ports.Acquire(
            self.resource, token, terms, f"{token}|{terms.mode}", line, name, others
        )
        self._compare([store.acquire(ask) for store in self.stores])

    @rule(
        tokens=st.lists(TOKENS, min_size=1, max_size=3, unique=True),
        tomb_ms=st.sampled_from([0, 0, 0, OVER_SOON, LONG]),
        why=st.sampled_from(["left", "dead", "forced by a", "forced by b"]),
    )
    def leave(self, tokens: List[str], tomb_ms: int, why: str) -> None:
        ask = ports.Leave(self.resource, tuple(tokens), tomb_ms, why)
        self._compare([store.leave(ask) for store in self.stores])

    @rule(
        token=TOKENS,
        fence=FENCES,
        lease_ms=DURATIONS,
        kept=st.booleans(),
        record=st.sampled_from(["", "child"]),
    )
    def renew(self, token: str, fence: Any, lease_ms: int, kept: bool, record: str) -> None:
        name = f"{token}'s" if kept else ""
        asks = [
            ports.Renew(self.resource, token, number, lease_ms, name, record)
            for number in self._numbers(token, fence)
        ]
        self._compare([store.renew([ask])[0] for store, ask in zip(self.stores, asks)])

    @rule(token=TOKENS, ttl_ms=DURATIONS)
    def heartbeat(self, token: str, ttl_ms: int) -> None:
        ask = ports.Beat(self.resource, token, ttl_ms)
        self._compare([store.heartbeat([ask])[0] for store in self.stores])

    @rule(token=TOKENS, fence=FENCES, terms=TERMS, trusted=st.booleans())
    def reestablish(self, token: str, fence: Any, terms: Terms, trusted: bool) -> None:
        asks = [
            ports.Reestablish(self.resource, token, number, terms, token, trusted)
            for number in self._numbers(token, fence)
        ]
        self._compare([store.reestablish(ask) for store, ask in zip(self.stores, asks)])

    @invariant()
    def look_alike(self) -> None:
        time.sleep(BEYOND)
        views = [store.inspect(self.resource) for store in self.stores]
        assert _timeless(views[0]) == _timeless(views[1])
        for one, other in zip(views[0].holders, views[1].holders):
            had = self.fences.setdefault(one.token, [])
            if (one.fence, other.fence) not in had:
                had.append((one.fence, other.fence))

    def teardown(self) -> None:
        # The last word: one more release to one more waiter.
        for store in self.stores:
            desk = f"{self.resource} in the end"
            line = Line("in", LONG, LONG)
            for token in ("holder", "end"):
                store.acquire(ports.Acquire(desk, token, Terms(lease_ms=LONG), "", line))
            store.leave(ports.Leave(desk, ("holder",)))
        heard = [_all_until(inbox, "G end") for inbox in self.inboxes]
        for inbox in self.inboxes:
            inbox.close()
        assert heard[0] == heard[1]

    def _numbers(self, token: str, fence: Any) -> Tuple[int, int]:
        had = self.fences.get(token, [])
        if fence in ("ancient", "ahead") or fence >= len(had):
            number = AHEAD if fence == "ahead" else ANCIENT
            return number, number
        return had[-1 - fence]

    def _compare(self, answers: List[Any]) -> None:
        memory, real = answers
        assert type(memory) is type(real), answers
        if isinstance(memory, (ports.Queued, ports.Busy)):
            assert (memory.next_ms > 1000) == (real.next_ms > 1000), answers
            assert [(s.token, s.record) for s in memory.holders] == [
                (s.token, s.record) for s in real.holders
            ]
            plain = {"next_ms": 0, "holders": ()}
            if isinstance(memory, ports.Queued):
                plain["seq"] = plain["at_ms"] = 0
            memory, real = memory._replace(**plain), real._replace(**plain)
        if not isinstance(memory, ports.Granted):
            assert memory == real


def _timeless(view: ports.ResourceView) -> Dict[str, Any]:
    return {
        "holders": [
            (h.token, h.mode, h.limit, h.state, h.remaining_ms > 0, h.record) for h in view.holders
        ],
        "waiters": [(w.token, w.remaining_ms > 0, w.record) for w in view.waiters],
        "known": view.fence > 0,
        "forced": view.forced is not None,
    }


def _all_until(inbox: ports.Subscription, final: str) -> List[Optional[str]]:
    heard: List[Optional[str]] = []
    while not heard or heard[-1] not in (None, final):
        heard.append(said(inbox.get(2)))
    return heard


def test_the_memory_store_answers_as_a_server_does(real: Backend) -> None:
    store = real.open()
    run_state_machine_as_test(
        lambda: Comparison(store),
        settings=settings(
            max_examples=75,
            stateful_step_count=20,
            deadline=None,
            database=None,
            # Twenty steps are few enough to read, and shrinking would take minutes.
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
