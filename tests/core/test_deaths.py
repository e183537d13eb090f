"""The end of another process is told once, at once and never before it is certain."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from contextlib import suppress
from typing import Callable, Iterator, List

import pytest

from celery_redlock.locking import deaths, identity, native
from celery_redlock.locking.deaths import Deaths, Watched

SOON = 10.0

STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"swallowed\\n"))
print("ready", flush=True)
while True:
    signal.pause()
"""


class Watch:
    """Deaths whose news a test can wait for."""

    def __init__(self) -> None:
        self.news: queue.Queue[Watched] = queue.Queue()
        self.looked_for: List[Watched] = []
        self.deaths = Deaths(self.news.put, self._matters)

    def _matters(self, watched: Watched) -> bool:
        self.looked_for.append(watched)
        return True

    def assert_tells_of(self, watched: Watched) -> None:
        assert self.news.get(timeout=SOON) is watched
        assert self.news.empty()


@pytest.fixture(params=["pidfd", "looking"])
def watch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Watch:
    if request.param == "looking":
        monkeypatch.setattr(deaths, "_open_pidfd", None)
        if identity.here().boot_id is None:
            pytest.skip("without /proc a child is dead when its parent has looked")
    elif deaths._open_pidfd is None:
        pytest.skip("there are no pidfds here")
    return Watch()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process that swallows TERM."""
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child
        child.kill()


def test_a_death_is_told_before_anybody_has_looked_how_it_ended(
    watch: Watch, child: subprocess.Popen[str]
) -> None:
    watched = watch.deaths.watch(child.pid)
    assert not watched.has_ended()
    child.kill()
    watch.assert_tells_of(watched)
    assert watched.has_ended()
    assert watched.fd is None


def test_a_process_that_swallows_its_signal_is_alive(
    watch: Watch, child: subprocess.Popen[str]
) -> None:
    watched = watch.deaths.watch(child.pid)
    child.terminate()
    assert child.stdout is not None
    assert child.stdout.readline() == "swallowed\n"
    other = watch.deaths.watch(_gone())
    watch.assert_tells_of(other)  # so everybody was looked at after that
    assert not watched.has_ended()


def test_a_process_that_has_ended_before_is_told_as_well(watch: Watch) -> None:
    watched = watch.deaths.watch(_gone())
    assert watched.has_ended()
    watch.assert_tells_of(watched)


def test_of_many_each_is_told_once(watch: Watch) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(5)
    ]
    watched = {watch.deaths.watch(child.pid) for child in children}
    for child in children:
        child.kill()
    told = [watch.news.get(timeout=SOON) for _ in children]
    assert set(told) == watched
    assert watch.news.empty()
    for child in children:
        child.communicate()


def test_where_looking_costs_nobody_looks_without_need(
    child: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deaths, "_open_pidfd", None)
    monkeypatch.setattr(deaths, "_LOOK_AGAIN", 0.001)
    told: queue.Queue[Watched] = queue.Queue()
    asked: queue.Queue[Watched] = queue.Queue()
    matters: List[Watched] = []

    def does_matter(watched: Watched) -> bool:
        asked.put(watched)
        return watched in matters

    watch = Deaths(told.put, does_matter)
    watched = watch.watch(child.pid)
    for _ in range(2):  # when the thread starts, and when it has looked at the newcomer
        assert asked.get(timeout=SOON) is watched
    child.kill()
    child.wait()
    with pytest.raises(queue.Empty):
        told.get(timeout=0.1)
    matters.append(watched)
    watch.look()
    assert told.get(timeout=SOON) is watched


@pytest.mark.skipif(deaths._open_pidfd is None, reason="there are no pidfds here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_watches_nobody_and_keeps_no_file_of_it_open(
    child: subprocess.Popen[str],
) -> None:
    watch = Watch()
    watched = watch.deaths.watch(child.pid)
    files = [watched.fd, watch.deaths._ear, watch.deaths._bell]
    forked = os.fork()
    if forked == 0:
        os._exit(sum(_is_open(fd) for fd in files) + 10 * len(watch.deaths._living))
    _pid, status = os.waitpid(forked, 0)
    assert status == 0
    assert all(_is_open(fd) for fd in files)
    child.kill()
    watch.assert_tells_of(watched)


def _gone() -> int:
    """A pid that nobody has."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def _is_open(fd: object) -> bool:
    assert isinstance(fd, int)
    with suppress(OSError):
        os.fstat(fd)
        return True
    return False


def test_a_thread_that_could_not_be_started_is_started_at_the_next_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(run: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    died: queue.Queue[Watched] = queue.Queue()
    watching = Deaths(died.put, lambda watched: True)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with monkeypatch.context() as patched:
        patched.setattr(native, "start_thread", fails)
        watched = watching.watch(child.pid)
    watching.look()
    child.communicate()
    assert died.get(timeout=10) is watched
