"""A process counts as dead only where that is certain."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import pytest

from celery_redlock.core.record import Record
from celery_redlock.locking import identity, proof
from celery_redlock.locking.identity import Identity

pytestmark = pytest.mark.skipif(
    identity.here().boot_id is None, reason="without /proc nothing is ever proved"
)


def record(**fields: Any) -> Record:
    """A record of this process, but for the fields."""
    me = identity.here()
    mine = {
        "host": me.host,
        "pid": me.pid,
        "since": 0.0,
        "boot_id": me.boot_id,
        "pid_namespace": me.pid_namespace,
        "started": me.started,
    }
    return Record(**{**mine, **fields})


@pytest.fixture
def gone() -> int:
    """A pid that nobody has."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.fixture
def other() -> Iterator[int]:
    """The pid of another living process."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield child.pid
    child.communicate()


def test_this_process_is_alive() -> None:
    assert not proof.is_dead(record())


def test_a_process_that_nobody_has_is_dead(gone: int) -> None:
    assert proof.is_dead(record(pid=gone))
    assert proof.is_dead(record(pid=gone, started=None))


def test_another_living_process_is_alive(other: int) -> None:
    assert not proof.is_dead(record(pid=other, started=identity.started(other)))


def test_whoever_was_given_the_pid_of_a_dead_process_is_not_taken_for_it(other: int) -> None:
    started = identity.started(other)
    assert started is not None
    assert proof.is_dead(record(pid=other, started=started - 1))


def test_without_the_start_time_a_used_pid_proves_nothing(
    other: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not proof.is_dead(record(pid=other, started=None))
    monkeypatch.setattr(identity, "look_at", lambda pid: None)  # hidden from other users
    assert not proof.is_dead(record(pid=other, started=1))


@contextmanager
def zombie(program: str) -> Iterator[Record]:
    """A record of a child whose first thread has ended, and nobody has looked at it."""
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    stat = Path(f"/proc/{child.pid}/stat")
    deadline = time.monotonic() + 10
    while ") Z " not in stat.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    yield record(pid=child.pid, started=identity.started(child.pid))
    child.kill()
    child.communicate()


def test_what_only_waits_for_its_parent_to_look_is_dead() -> None:
    with zombie("") as left:
        assert proof.is_dead(left)


FIRST_THREAD_ENDED = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_first_thread_alone_has_ended_is_alive() -> None:
    with zombie(FIRST_THREAD_ENDED) as left:
        assert not proof.is_dead(left)


def test_a_process_is_seen_to_end_before_it_is_dead() -> None:
    with zombie(FIRST_THREAD_ENDED) as left:
        sight, own = identity.look_at(left.pid), identity.look_at(os.getpid())
        assert sight is not None
        assert own is not None
        assert (sight.is_ending, own.is_ending) == (True, False)


def test_a_process_that_we_must_not_signal_is_alive(
    gone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not proof.is_dead(record(pid=gone))


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"boot_id": "another boot"},
        {"boot_id": None},
        {"pid_namespace": "pid:[1]"},
        {"pid_namespace": None},
    ],
    ids=str,
)
def test_a_pid_of_another_boot_or_namespace_proves_nothing(gone: int, elsewhere: Any) -> None:
    assert not proof.is_dead(record(pid=gone, **elsewhere))


def test_where_the_system_does_not_say_who_we_are_nothing_is_proved(
    gone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = Identity(host="here", pid=1, boot_id=None, pid_namespace=None, started=None)
    monkeypatch.setattr(identity, "here", lambda: unknown)
    assert not proof.is_dead(record(pid=gone, boot_id=None, pid_namespace=None))


def test_no_signal_is_sent_to_a_group_of_processes() -> None:
    for pid in (0, -1, -os.getpid()):
        assert not proof.is_dead(record(pid=pid))


def test_a_record_without_a_process_proves_nothing() -> None:
    assert not proof.is_dead(Record(host="?", pid=0, since=0.0))
