"""What becomes of a canvas in which one task meets a conflict: docs/outcomes.md, row by row."""

from __future__ import annotations

import functools
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import celery
import pytest
from celery.result import AsyncResult

from tests.harness.locked_shop import LockedShop, eventually
from tests.harness.worker import WorkerProcess
from tests.worker import outcomes
from tests.worker.outcomes import Case
from tests.worker.shapes import Steps

SOON = 20.0
PAGE = Path(__file__).parents[2] / "docs" / "outcomes.md"


class Play:
    """One case, sent while a rival holds what its task needs."""

    def __init__(self, shop: LockedShop, case: Case) -> None:
        self.case = case
        self.account = f"{case.name}-{uuid.uuid4().hex[:8]}"
        self.steps = Steps(shop.app)
        self.task_id = str(uuid.uuid4())
        self._shop = shop
        self._rival = ExitStack()
        self._results: Dict[str, AsyncResult] = {}

    def send(self) -> None:
        self._rival.enter_context(self._shop.locks.held(self.account))
        locked = self._shop.task(self.case.policy.task).si(self.account).set(task_id=self.task_id)
        self.result = self.case.shape.build(locked, self.steps).apply_async()

    def release(self) -> None:
        self._rival.close()

    def given(self) -> str:
        """What ``.get()`` gives, in the words of the table."""
        try:
            return outcomes.told(self.result.get(timeout=SOON, interval=0.02))
        except Exception as error:  # noqa: BLE001 - whatever it raises is what it gives
            return outcomes.told(error)

    def others(self) -> str:
        return outcomes.told_others({name: self._of(i) for name, i in self.steps.ids.items()})

    def became(self) -> str:
        return outcomes.became(self._of(self.task_id))

    def _of(self, task_id: str) -> AsyncResult:
        # The rpc backend gives each answer once: the object that was given it keeps it.
        if not self._results:
            self._results = _by_id(self.result)
        result = self._results.setdefault(task_id, AsyncResult(task_id, app=self._shop.app))
        if self.case.backend == "rpc":
            # Before 5.7 a state alone does not tell what came while another result was waited for.
            result.backend.add_pending_result(result)
        return result


def _by_id(result: Any) -> Dict[str, AsyncResult]:
    """Every single task that a result knows of: its members', its parents'."""
    if result is None:
        return {}
    members = getattr(result, "results", None)
    found = {result.id: result} if members is None else {}
    for relative in (*(members or ()), result.parent):
        # A group's members have the same parents: each is looked at once.
        if relative is not None and relative.id not in found:
            found.update(_by_id(relative))
    return found


class Plays:
    """All cases of one backend, under way at the same time.

    Only those that wait in place are left to their tests: each takes a slot of the worker.
    """

    def __init__(self, shop: LockedShop, cases: List[Case]) -> None:
        self._plays = {case.name: Play(shop, case) for case in cases}
        worker = shop.worker(concurrency=4)
        for play in self._plays.values():
            if play.case.policy.name != "wait":
                play.send()
        for play in self._plays.values():
            if play.case.policy.name == "retry":
                release_after_a_try(worker, play)

    def __getitem__(self, name: str) -> Play:
        return self._plays[name]

    def end(self) -> None:
        for play in self._plays.values():
            play.release()


@pytest.fixture(scope="module")
def plays_on(make_locked_shop: Callable[..., LockedShop]) -> Iterator[Callable[[str], Plays]]:
    with ExitStack() as started:

        @functools.lru_cache(maxsize=None)
        def on(backend: str) -> Plays:
            plays = Plays(make_locked_shop(backend=backend), outcomes.cases(backend))
            started.callback(plays.end)
            return plays

        yield on


def release_after_a_try(worker: WorkerProcess, play: Play) -> None:
    worker.wait_for_output(f"retry, account:{play.account} is held", SOON)
    play.release()


def all_names() -> List[Any]:
    return [
        pytest.param(case.backend, case.name, id=f"{case.backend}-{case.name}", marks=marks(case))
        for backend in outcomes.BACKENDS
        for case in outcomes.cases(backend)
    ]


def marks(case: Case) -> List[pytest.MarkDecorator]:
    found = [pytest.mark.needs("several chords at a time")] if case.shape.has_chord else []
    # Celery before 5.5 loses most of such chords under load, also without a lock.
    is_lost = case.shape.name == "chord-member-group-tail" and case.row.ending == "ran"
    if is_lost and case.backend == "redis" and celery.VERSION[:2] < (5, 5):
        found.append(pytest.mark.xfail(reason="this Celery loses chords whose member ends so"))
    return found


@pytest.mark.parametrize(("backend", "name"), all_names())
def test_a_canvas_ends_as_the_docs_say(
    plays_on: Callable[[str], Plays], backend: str, name: str
) -> None:
    play = plays_on(backend)[name]
    if play.case.policy.name == "wait":
        play.send()
        play._shop.locks.wait_for_line(play.account, 1)
        play.release()
    assert play.given() == play.case.row.gives
    eventually(lambda: play.others() == play.case.row.others, SOON)
    assert play.others() == play.case.row.others
    ending = next(e for e in outcomes.ENDINGS if e.name == play.case.row.ending)
    # A step that follows in the chain may end before this one's result is stored.
    eventually(lambda: play.became() == ending.became, SOON)
    assert play.became() == ending.became


def test_the_docs_have_the_tables_that_are_tested() -> None:
    assert outcomes.tables() in PAGE.read_text()


def test_every_shape_is_tested_with_every_policy_on_every_backend_that_has_it() -> None:
    for backend in outcomes.BACKENDS:
        names = [case.name for case in outcomes.cases(backend)]
        shapes = [shape for shape in outcomes.SHAPES if backend != "rpc" or not shape.has_chord]
        expected = [f"{p.name}-{s.name}" for p in outcomes.POLICIES for s in shapes]
        assert sorted(names) == sorted(expected)
