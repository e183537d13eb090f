"""Whatever a resource, a record or a reason is called: it touches its own keys and no others."""

from __future__ import annotations

import secrets
import string
from contextlib import contextmanager
from typing import Any, Iterator, List, Set

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from celery_redlock import ConfigurationError, Lock, resource
from celery_redlock.core.ports import (
    Acquire,
    Beat,
    Confirm,
    Granted,
    Leave,
    Line,
    Queued,
    Renew,
    Store,
    Terms,
)
from celery_redlock.core.record import Record
from celery_redlock.core.template import LONGEST, escape_name
from celery_redlock.core.why import forced_by
from celery_redlock.observe.words import plain
from tests.contract.conftest import PREFIX, Backend

#: What could end a key, a tag, a field, an argument or a line of somebody's.
EVIL = [
    *("{", "}", "}:h", "{}", "}{", ":h", ":q", ":w", "*", "?", "[a", "\\", "|", "'", '"', "]]"),
    *("\0", "\r\n", "\n", "\x1b[2J", "\u202e", "%", "\u00e9", "\U0001f512", "\ud7ff"),
    *("$-1\r\n", "*1\r\n", "\r\n*1\r\n$8\r\nFLUSHALL\r\n"),
    *("' .. redis.call('FLUSHALL') .. '", "]] redis.call('FLUSHALL')"),
    *(PREFIX, f"{PREFIX}{{a}}:h", "inbox:", "a" * 10_000),
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NAMES = st.lists(st.one_of(st.sampled_from(EVIL), TEXT), min_size=1, max_size=4).map("".join)

LEASE = 60_000
examples = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def store(real: Backend) -> Store:
    return real.open()


@pytest.fixture
def guarded(real: Backend) -> Iterator[None]:
    """Somebody else's keys on the same server stay as they are."""
    assert real.server is not None
    beside = PREFIX[:-1]
    theirs = {"a": "1", beside: "2", f"{beside}0:{{a}}:h": "3", "{a}:h": "4", "inbox:a": "5"}
    with real.server.client() as client:
        client.mset(theirs)
        yield
        assert {name: client.get(name) for name in theirs} == theirs
        assert set(client.scan_iter()) - keys_of(client) == set(theirs)


@contextmanager
def emptied(backend: Backend) -> Iterator[Any]:
    """A client of the server, on which there is nothing under the prefix."""
    assert backend.server is not None
    with backend.server.client() as client:
        for key in keys_of(client):
            client.delete(key)
        yield client


def keys_of(client: Any) -> Set[str]:
    return {key for key in client.scan_iter() if key.startswith(PREFIX)}


def live_through(store: Store, name: str, evil: str) -> None:
    """One holds, another waits; a renewal, a heartbeat, a look, a release by force.

    Task ids and names come from whoever can publish; who forces a release is printable text.
    """
    text = Record("here", 1, 0.0, task_id=evil, task=evil, worker=evil).encode()
    by = plain(evil)
    first, second = secrets.token_hex(8), secrets.token_hex(8)
    line = Line("inbox", LEASE, LEASE)
    granted = store.acquire(Acquire(name, first, Terms(lease_ms=LEASE), text))
    assert isinstance(granted, Granted)
    waits = Acquire(name, second, Terms(lease_ms=LEASE), text, line)
    queued = store.acquire(waits)
    assert isinstance(queued, Queued)
    assert [seen.record for seen in queued.holders] == [text]
    (answer,) = store.renew([Renew(name, first, granted.fence, LEASE)])
    assert type(answer).__name__ == "Extended"
    view = store.inspect(name)
    assert ([each.record for each in view.holders], view.waiters[0].record) == ([text], text)
    store.leave(Leave(name, (first,), LEASE, forced_by(by)))
    (answer,) = store.heartbeat([Beat(name, second, LEASE)])
    assert isinstance(answer, Confirm)
    view = store.inspect(name)
    assert view.forced is not None
    assert view.forced.by == by
    (all_answers,) = store.acquire_all([waits])
    assert isinstance(all_answers, Granted)
    assert all_answers.fence > granted.fence


@examples
@given(name=NAMES, evil=NAMES)
def test_a_resource_has_its_own_keys_whatever_it_is_called(
    real: Backend, store: Store, guarded: None, name: str, evil: str
) -> None:
    with emptied(real) as client:
        live_through(store, name, evil)
        assert keys_of(client) <= {f"{PREFIX}{{{name}}}:{kind}" for kind in "hqw"}
        assert {found for part in store.survey() for found, _ in part} == {name}


@examples
@given(names=st.lists(NAMES, min_size=2, max_size=2, unique=True))
def test_two_names_never_meet(real: Backend, store: Store, guarded: None, names: List[str]) -> None:
    with emptied(real):
        for name in names:
            answer = store.acquire(Acquire(name, secrets.token_hex(8), Terms(lease_ms=LEASE), ""))
            assert isinstance(answer, Granted)


# --- names that users make


@given(value=NAMES)
def test_no_value_reaches_beyond_its_place_in_a_name(value: str) -> None:
    name = resource("account:{value}:end", value=value)
    assert set(name) <= set(string.ascii_letters + string.digits + "._@-%:()~")
    assert len(name.encode()) <= LONGEST
    assert set(escape_name(value)) <= set(string.ascii_letters + string.digits + "._@-%:/")


@given(value=NAMES)
def test_all_keys_of_a_name_are_in_one_slot_of_a_cluster(value: str) -> None:
    try:
        name = Lock(value).name
    except ConfigurationError:
        return
    slots = {key_slot(f"{PREFIX}{{{name}}}:{kind}".encode()) for kind in "hqw"}
    assert len(slots) == 1


@pytest.mark.parametrize("template", ["}}a", "{value}}}a"])
def test_a_template_that_gives_a_name_without_a_tag_is_refused(template: str) -> None:
    with pytest.raises(ConfigurationError, match="brace"):
        resource(template, **({"value": ""} if "value" in template else {}))


def test_a_lock_on_a_name_without_a_tag_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="brace"):
        Lock("}a")
