"""B: a lock that others want as well: the first wake-up, a line that drains, and a crowd in a loop.

Whoever waits is a process of its own, or many threads of it, in a blocking ``Lock.acquire``. Times
are of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any, Callable, Dict, List, NamedTuple

import redis
from celery import Celery

from benchmarks.measure import Middle, Turn, figure, ratio, take_turns
from benchmarks.report import Goal, table
from celery_redlock import Lock
from celery_redlock.integration.runtime import runtime_of
from tests.harness.servers import LockServer

OURS, FLOOR = "celery_redlock", "BLPOP, redis-py"

#: Seconds that a body takes.
BODY = 0.005

WAITERS = 31
CROWD = 32
MANY_THREADS = 32

#: Seconds after which who has asked is surely in line.
IN_LINE = 0.02

WITHIN = 60.0


class Size(NamedTuple):
    rounds: int
    wakes: int
    drains: int
    seconds: float


FULL = Size(rounds=20, wakes=20, drains=10, seconds=5.0)
QUICK = Size(rounds=2, wakes=5, drains=1, seconds=1.0)


class Span(NamedTuple):
    """One hold, as its owner saw it."""

    owner: int
    asked: float
    granted: float
    released: float

    @property
    def wait(self) -> float:
        return self.granted - self.asked


def run(quick: bool) -> None:
    """Measure and print."""
    size = QUICK if quick else FULL
    with ExitStack() as stack:
        server = stack.enter_context(LockServer.start())
        # Forked before this process has a connection or a thread.
        crowd = [stack.enter_context(_Player(number, server.url)) for number in range(CROWD)]
        site = _Site(server, crowd)
        print(_first_wakes(site, size))
        print(_drains(site, size))
        print(_loops(site, size))


class _Player:
    """A process that takes part: it is told what to do, and says when it had the lock."""

    def __init__(self, number: int, url: str) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_play, args=(number, url, theirs), daemon=True)
        self._process.start()

    def __enter__(self) -> _Player:
        return self

    def __exit__(self, *_error: Any) -> None:
        self._pipe.send(None)
        self._process.join(WITHIN)

    def ask(self, what: str, resource: str, **how: Any) -> None:
        self._pipe.send((what, resource, how))

    def spans(self) -> List[Span]:
        assert self._pipe.poll(WITHIN), "it never had the lock"
        spans: List[Span] = self._pipe.recv()
        return spans


def _play(number: int, url: str, pipe: Connection) -> None:
    """In the player's process."""
    app, client = _app(url), redis.Redis.from_url(url)
    ways: Dict[str, Callable[..., List[Span]]] = {
        "hold": lambda resource, **how: _hold(app, number, resource, **how),
        "pop": lambda resource, **how: _pop(client, number, resource, **how),
    }
    for what, resource, how in iter(pipe.recv, None):
        pipe.send(ways[what](resource, **how))


def _app(url: str) -> Celery:
    app = Celery("benchmarks", set_as_current=False)
    app.conf.update(redlock_url=url, redlock_restart_grace=0)
    return app


def _hold(
    app: Any, number: int, resource: str, threads: int = 1, body: float = 0.0, until: float = 0.0
) -> List[Span]:
    """Wait for the lock and have it for as long as a body takes, once or until a moment."""
    spans: List[Span] = []

    def hold() -> None:
        while True:
            lock, asked = Lock(resource, app=app), time.monotonic()
            lock.acquire()
            granted = time.monotonic()
            time.sleep(body)
            released = time.monotonic()
            lock.release()
            spans.append(Span(number, asked, granted, released))
            if time.monotonic() >= until:
                return

    holders = [threading.Thread(target=hold) for _ in range(threads)]
    for thread in holders:
        thread.start()
    for thread in holders:
        thread.join()
    return spans


def _pop(client: Any, number: int, token: str, body: float = 0.0) -> List[Span]:
    """The same with a token, which whoever has it pushes back."""
    asked = time.monotonic()
    while not client.blpop([token], timeout=4):
        pass
    granted = time.monotonic()
    time.sleep(body)
    released = time.monotonic()
    client.rpush(token, "token")
    return [Span(number, asked, granted, released)]


class _Site:
    def __init__(self, server: LockServer, players: List[_Player]) -> None:
        self.server = server
        self.players = players
        self.app = _app(server.url)
        self.client = redis.Redis.from_url(server.url)
        self._names = (f"r{number}" for number in range(10**9))

    def wake_ours(self) -> float:
        """Seconds from the call that releases until the waiter has it."""
        resource = next(self._names)
        with Lock(resource, app=self.app):
            self.players[0].ask("hold", resource)
            self._await_line(resource, 1)
            released = time.monotonic()
        (span,) = self.players[0].spans()
        return span.granted - released

    def wake_floor(self) -> float:
        """The same for a token that is pushed to who waits for it with BLPOP."""
        token = next(self._names)
        self.players[0].ask("pop", token)
        self._await_blocked(1)
        pushed = time.monotonic()
        self.client.rpush(token, "token")
        (span,) = self.players[0].spans()
        return span.granted - pushed

    def drain(self, players: int, threads: int = 1, body: float = BODY) -> Turn:
        """A line of so many, who joined one after the other, from its release to its end."""
        resource, crowd = next(self._names), self.players[:players]
        with Lock(resource, app=self.app):
            for place, player in enumerate(crowd, 1):
                player.ask("hold", resource, threads=threads, body=body)
                self._await_line(resource, place * threads)
            before, began = self._commands(), time.monotonic()
        spans = [span for player in crowd for span in player.spans()]
        ended = max(span.released for span in spans)
        order = [span.owner for span in sorted(spans, key=lambda span: span.granted)]
        return {
            "drain": (ended - began) / (body * players) if body else 0.0,
            "inversions": float(sum(a > b for a, b in zip(order, order[1:]))),
            "commands": (self._commands() - before) / len(spans),
        }

    def drain_floor(self) -> float:
        """The drain of a line that passes a token on."""
        token = next(self._names)
        for place, player in enumerate(self.players[:WAITERS], 1):
            player.ask("pop", token, body=BODY)
            self._await_blocked(place)
        began = time.monotonic()
        self.client.rpush(token, "token")
        spans = [span for player in self.players[:WAITERS] for span in player.spans()]
        return (max(span.released for span in spans) - began) / (BODY * WAITERS)

    def loop(self, seconds: float) -> List[Span]:
        resource = next(self._names)
        for player in self.players:
            player.ask("hold", resource, body=BODY, until=time.monotonic() + seconds)
        return [span for player in self.players for span in player.spans()]

    def _await_line(self, resource: str, count: int) -> None:
        manager = runtime_of(self.app).manager
        _until(lambda: len(manager.inspect(resource).waiters) >= count)
        time.sleep(0.002)  # it has its answer, and sleeps

    def _await_blocked(self, count: int) -> None:
        _until(lambda: self.client.info("clients")["blocked_clients"] >= count)
        time.sleep(0.002)  # as long as beside it: a machine that has slept is slower

    def _commands(self) -> int:
        """Calls and messages: what scripts call is no command of a client's."""
        stats = self.client.info("commandstats")
        return sum(
            stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "publish")
        )


def _until(is_true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WITHIN
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def _first_wakes(site: _Site, size: Size) -> str:
    def turns(wake: Callable[[], float]) -> Callable[[], Turn]:
        return lambda: {"ms": Middle.of(wake() * 1000 for _ in range(size.wakes)).median}

    contestants = {OURS: turns(site.wake_ours), FLOOR: turns(site.wake_floor)}
    take_turns(contestants, 1)
    rounds = take_turns(contestants, size.rounds)
    rows = [[name, figure(rounds, name, "ms")] for name in contestants]
    goal = Goal("wake-up, ratio", ratio(rounds, OURS, FLOOR, "ms"), 1.25)
    return f"{table('B1 first wake-up of one waiter', ('ms',), rows)}\n  {goal}\n"


def _drains(site: _Site, size: Size) -> str:
    def drains(players: int, threads: int = 1, body: float = BODY) -> List[Turn]:
        return [site.drain(players, threads, body) for _ in range(size.drains)]

    lines = {
        f"{WAITERS} processes": drains(WAITERS),
        "2 processes": drains(2),
        f"{CROWD * MANY_THREADS} threads": drains(CROWD, MANY_THREADS, body=0.0)[:1],
    }
    columns = ("drain", "inversions", "commands")
    rows: List[List[Any]] = [
        [name, *(Middle.of(turn[column] for turn in turns) for column in columns)]
        for name, turns in lines.items()
    ]
    floor = Middle.of(site.drain_floor() for _ in range(size.drains))
    rows.append([FLOOR, floor, "", ""])
    whole = lines[f"{WAITERS} processes"]
    goals = [
        Goal("drain, ratio to ideal", Middle.of(turn["drain"] for turn in whole), 1.30),
        Goal("inversions", Middle.of([sum(turn["inversions"] for turn in whole)]), 0.0),
        *(
            Goal(f"commands per lock, {name}", Middle.of(turn["commands"] for turn in turns), 5.0)
            for name, turns in lines.items()
        ),
    ]
    title = f"B2 a line that drains, {BODY * 1000:.0f} ms each"
    return "\n".join([table(title, columns, rows), *(f"  {goal}" for goal in goals)]) + "\n"


def _loops(site: _Site, size: Size) -> str:
    site.loop(0.0)  # each is connected, and has its threads
    spans = site.loop(size.seconds)
    body = Middle.of(span.released - span.granted for span in spans).median
    longest = max(span.wait for span in spans) / (CROWD * body)
    rows = [[OURS, len(spans), longest, _overtaken(spans)]]
    title = f"B3 {CROWD} processes in a loop, for {size.seconds:.0f} s"
    goals = (
        Goal("longest wait, of one body each", Middle.of([longest]), 1.5),
        Goal("overtaken", Middle.of([float(_overtaken(spans))]), 0.0),
    )
    columns = ("holds", "longest wait", "overtaken")
    return "\n".join([table(title, columns, rows), *(f"  {goal}" for goal in goals)]) + "\n"


def _overtaken(spans: List[Span]) -> int:
    """How many were granted it before somebody who was certainly in line when they asked."""
    return sum(
        any(other.asked + IN_LINE < span.asked and span.granted < other.granted for other in spans)
        for span in spans
    )
