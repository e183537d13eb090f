"""Locked tasks in canvases of all kinds, and bodies that send on: none meets what it follows.

What a canvas becomes when one of its tasks meets a conflict is tested in ``test_canvas``.
"""

from __future__ import annotations

import secrets
from typing import Any, Iterator

import pytest
from celery import chain, chord, group

from celery_redlock import LockConflict, LockTimeout, is_skipped
from tests.harness.locked_shop import LockedShop, MakeLockedShop, eventually
from tests.harness.shop import Gate
from tests.harness.worker import WorkerProcess
from tests.worker import paths_app as paths_app
from tests.worker.locked_app import resource_of
from tests.worker.paths import SOON, assert_ran_locked, get


@pytest.fixture(scope="module")
def shop(make_locked_shop: MakeLockedShop) -> LockedShop:
    return make_locked_shop()


@pytest.fixture(scope="module")
def worker(shop: LockedShop) -> WorkerProcess:
    return shop.worker(app="tests.worker.paths_app", concurrency=3)


pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture
def gate(shop: LockedShop) -> Iterator[Gate]:
    """Open at the end, whatever the test found: a body that waits for it takes a slot."""
    gate = shop.gate()
    yield gate
    gate.open()


# --- signatures and canvases


def test_what_goes_before_is_given_first_and_named_as_the_body_is_given_it(
    shop: LockedShop, account: str
) -> None:
    note, tally = shop.task("note"), shop.task("tally")
    assert get(chord([note.s("a"), note.s("b")], tally.s(account)).delay()) == ["a", "b"]
    assert get(chain(note.s("c"), tally.s(account)).delay()) == "c"
    assert get(chain(note.s("d"), tally.s(account=account)).delay()) == "d"
    assert get(chain(note.s("e"), tally.si("f", account)).delay()) == "f"
    assert_ran_locked(shop, account, bodies=4)


def test_a_chords_body_meets_none_of_its_members(shop: LockedShop, account: str) -> None:
    work, tally = shop.task("work"), shop.task("tally_or_skip")
    header = [work.s(account), work.s(account)]
    assert get(chord(header, tally.s(account)).delay()) == ["done", "done"]
    assert_ran_locked(shop, account, bodies=3)


def test_a_chord_nested_in_a_chain_goes_on_to_its_end(shop: LockedShop, account: str) -> None:
    work, tally, skip = (shop.task(name) for name in ("work", "tally", "work_or_skip"))
    inner = chord(group(work.si(account), work.si(account)), tally.s(account))
    assert get(chain(skip.si(account), inner, skip.si(account)).delay()) == "done"
    assert_ran_locked(shop, account, bodies=5)


def test_a_group_of_one_account_runs_one_after_the_other(shop: LockedShop, account: str) -> None:
    work = shop.task("work")
    assert get(group(work.s(account) for _ in range(4)).delay()) == ["done"] * 4
    assert_ran_locked(shop, account, bodies=4)


def test_a_callback_never_meets_its_task(shop: LockedShop, account: str) -> None:
    skip = shop.task("work_or_skip")
    callback = skip.si(account)
    callback.freeze()
    get(skip.apply_async((account,), link=callback))
    assert get(shop.app.AsyncResult(callback.id)) == "done"
    assert_ran_locked(shop, account, bodies=2)


def test_an_errback_is_called_for_a_task_that_fails_for_its_lock(
    shop: LockedShop, account: str
) -> None:
    with shop.locks.held(account):
        result = shop.task("work_or_fail").apply_async(
            (account,), link_error=shop.task("errback").s()
        )
        with pytest.raises(LockConflict):
            get(result)
    assert eventually(lambda: shop.said(failed=result.id), SOON)


def test_an_errback_never_meets_its_task(shop: LockedShop, account: str) -> None:
    """Neither one that Celery sends nor one that it calls."""
    sent = shop.task("work_or_skip").si(account)
    sent.freeze()
    called = shop.task("errback_called").s()
    result = shop.task("end").apply_async((account, "raise"), link_error=[sent, called])
    with pytest.raises(ValueError):  # noqa: PT011 - it has no text
        get(result)
    assert get(shop.app.AsyncResult(sent.id)) == "done"
    assert eventually(lambda: len(shop.bodies_of(account)) == 3, SOON)
    assert eventually(lambda: shop.locks.is_free(account), SOON)
    assert shop.overlaps_of(account) == []


def test_a_stamped_canvas_is_locked_as_any_other(shop: LockedShop, account: str) -> None:
    work = shop.task("work_or_skip")
    canvas = chain(work.si(account), work.si(account))
    canvas.stamp(customer=secrets.token_hex(4), unique_visit=1, lock_state="known")
    assert get(canvas.delay()) == "done"
    assert_ran_locked(shop, account, bodies=2)


def test_a_task_that_was_sent_again_to_wait_is_what_it_was(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    def send() -> Any:
        signature = shop.task("tell_request").s(account, secret="open sesame")
        signature.stamp(customer="ann")
        return signature.apply_async(
            argsrepr="('<hidden>',)",
            kwargsrepr="{}",
            shadow="shop.mine",
            priority=3,
            time_limit=50,
            soft_time_limit=40,
            expires=600,
            headers={"mine": "yes"},
            reply_to="somewhere",
        )

    plain = get(send())
    with shop.locks.held(account):
        result = send()
        worker.wait_for_output(f"retry, {resource_of(account)} is held by", SOON)
    told = get(result)
    ids = dict.fromkeys(("id", "root_id", "correlation_id"), result.id)
    assert told == {**plain, **ids, "expires": told["expires"]}
    assert told["argsrepr"] == "('<hidden>',)"
    assert (told["expires"] is None) == (plain["expires"] is None)


def test_a_task_that_was_sent_again_to_wait_is_written_as_its_caller_chose(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    with shop.locks.held(account):
        result = shop.task("take_a_set").apply_async(
            (account, {1, 2}), serializer="literal", compression="zlib"
        )
        worker.wait_for_output(f"retry, {resource_of(account)} is held by", SOON)
    assert get(result) == ["set", [1, 2]]
    assert f"could not send {result.id}" not in worker.output()
    assert_ran_locked(shop, account)


def test_a_task_that_cannot_be_sent_again_runs_where_it_is_when_its_lock_is_free(
    shop: LockedShop, worker: WorkerProcess, account: str
) -> None:
    with shop.locks.held(account):
        result = shop.send("work_not_sent_again", account)
        worker.wait_for_output(f"could not send {result.id} to its queue again", SOON)
    assert get(result) == "done"
    assert_ran_locked(shop, account)


def test_a_task_that_cannot_be_sent_again_times_out_where_it_is(
    shop: LockedShop, account: str
) -> None:
    with shop.locks.held(account), pytest.raises(LockTimeout):
        get(shop.send("work_not_sent_again_but_soon", account))


# --- tasks that call on


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("replace_by_one", "done"),
        ("replace_by_chain", "last"),
        ("replace_by_group", ["done", "beside"]),
    ],
)
def test_a_replacement_waits_for_the_body_that_it_replaces(
    shop: LockedShop, account: str, gate: Gate, task: str, expected: Any
) -> None:
    result = shop.task(task).apply_async((account,), headers={"gate": gate.path})
    shop.locks.wait_for_line(account, 1)
    gate.open()
    assert get(result) == expected
    assert_ran_locked(shop, account, bodies=2)


def test_a_replaced_task_keeps_its_place_in_a_canvas(shop: LockedShop, account: str) -> None:
    note, collect = shop.task("note"), shop.task("collect")
    one, several = (shop.task(name).si(account) for name in ("replace_by_one", "replace_by_group"))
    assert get(chain(one, shop.task("tally").s(account), note.si("end")).delay()) == "end"
    assert get(chain(several, shop.task("tally").s(account)).delay()) == ["done", "beside"]
    members = [shop.task("replace_by_chain").si(account), note.si("aside")]
    assert get(chord(members, collect.s()).delay()) == ["last", "aside"]
    assert_ran_locked(shop, account, bodies=8)


def test_a_retry_waits_for_the_body_that_asked_for_it(
    shop: LockedShop, account: str, gate: Gate
) -> None:
    result = shop.task("retry_at_once").apply_async((account,), headers={"gate": gate.path})
    shop.locks.wait_for_line(account, 1)
    gate.open()
    retries, fence = get(result)
    assert retries == 2
    bodies = assert_ran_locked(shop, account, bodies=3)
    assert [body.task_id for body in bodies] == [result.id] * 3
    assert bodies[-1].fence == fence


def test_a_retry_from_before_the_body_is_sent_without_what_its_worker_was_told(
    shop: LockedShop, account: str
) -> None:
    """Neither its token nor the verdict, which no serializer can write."""
    with shop.locks.held(account):
        skipped = shop.send("retry_before", account)
        assert is_skipped(get(skipped))
    sent = shop.send("retry_before", account)
    assert get(sent) is None
    for result in (skipped, sent):
        said = shop.said(task_id=result.id)
        headers = [told["headers"] for told in said if "headers" in told]
        assert headers == ["None", "None"]
    assert_ran_locked(shop, account)


def test_a_task_added_to_a_chord_waits_for_the_body_that_added_it(
    shop: LockedShop, account: str
) -> None:
    members = [shop.task("add_one_to_the_chord").s(account), shop.task("note").s("beside")]
    results = get(chord(members, shop.task("collect").s()).delay())
    assert sorted(results) == ["beside", "done", "first"]
    assert_ran_locked(shop, account, bodies=2)
