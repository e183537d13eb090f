"""Independent lock servers without a network: the test decides which messages arrive, and when.

The clients' votes and renewals are the library's own. The servers do what the scripts do, for one
resource and in Python. While a client waits for answers, others go on.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any, Callable, Deque, Dict, List, Sequence, Set, Tuple

import pytest

from celery_redlock.core import timing
from celery_redlock.core.ports import Acquire, Extended, Granted, Leave, NoAnswer, Renew, Terms
from celery_redlock.store import claim, keeping, voting
from celery_redlock.store.electorate import Electorate
from celery_redlock.store.mending import Undo
from celery_redlock.store.round import Pace, Round
from celery_redlock.store.wire import Call, Silence

LEASE = 10.0

_TERMS = Terms(lease_ms=timing.to_ms(LEASE))


class Server:
    """One that keeps what it has while it is down. ``ahead``: seconds by which its clock is."""

    def __init__(self, ahead: float) -> None:
        self.is_up = True
        self._ahead = ahead
        self._last = 0
        self._owner, self._deadline, self._fence = "", 0.0, 0
        self._buried: Set[str] = set()

    def run(self, frame: Tuple[Any, ...], now: float) -> Any:
        script, *arguments = frame
        return script(self, now, *arguments)

    def vote(self, now: float, token: str) -> List[Any]:
        if token in self._buried:
            return [-1, b"left"]
        if self._owner not in ("", token) and self._deadline > now:
            return [2, 0, 0, self._owner.encode(), self._fence, b"c", b""]
        if self._owner != token:
            self._last = max(self._last + 1, int((now + self._ahead) * 1_000_000))
            self._owner, self._fence, self._deadline = token, self._last, now
        self._deadline = max(self._deadline, now + LEASE)
        return [1, self._fence]

    def write_back(self, now: float, token: str, fence: int, given: str, lease: float) -> List[Any]:
        has = self._fence
        is_same = has == fence or str(has) == given or (not given and has < fence)
        if self._owner != token or not is_same or self._deadline <= now:
            return [b"left" if token in self._buried else 0]
        self._deadline = max(self._deadline, now + lease)
        self._fence, self._last = fence, max(self._last, fence)
        return [1]

    def give_back(self, _now: float, token: str, fence: int) -> int:
        return self._drop() if (self._owner, self._fence) == (token, fence) else 0

    def withdraw(self, _now: float, token: str, buries: bool) -> int:
        if buries:
            self._buried.add(token)
        return self._drop() if self._owner == token else 0

    def _drop(self) -> int:
        self._owner = ""
        return 1


class _Frames:
    """Requests as the servers here take them."""

    def vote(self, request: Acquire) -> Any:
        return Server.vote, request.token

    def write_back(self, requests: Sequence[Renew], given: Sequence[str]) -> Any:
        ((request,), (offer,)) = requests, given
        lease = request.lease_ms / 1000
        return Server.write_back, request.token, request.fence, offer, lease

    def give_back(self, _resource: str, token: str, fence: int) -> Any:
        return Server.give_back, token, fence

    def withdraw(self, request: Leave, tomb_ms: int) -> Any:
        (token,) = request.tokens
        return Server.withdraw, token, tomb_ms > 0


class Line:
    """A client's connection to a server: a Wire, with what is under way in both directions."""

    def __init__(self, number: int) -> None:
        self.server = number
        self.fd = number
        self.is_open = True
        self.owed: Deque[Call] = deque()
        self.requests: Deque[Any] = deque()
        self.answers: Deque[Any] = deque()

    def ask(self, call: Call) -> None:
        self.owed.append(call)
        self.requests.append(call.frame)

    def read(self) -> None:
        while self.answers and self.is_open:
            self.owed.popleft().tell(self, self.answers.popleft())

    def close(self, why: str) -> None:
        self.is_open = False
        while self.owed:
            self.owed.popleft().tell(self, Silence(why))


class Road:
    """All that a client says to a server: a Voter. What is under way on a line that was closed may
    still arrive. ``is_held``: no request arrives; ``is_mute``: no answer does."""

    patience = 1.0
    why_not = out = "down"
    life = None

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self.number = number
        self.name = f"server {number}"
        self.is_held = self.is_mute = False
        self._lines: List[Line] = []

    def take(self, even_behind: bool = True) -> Any:
        if not self._server.is_up:
            return None
        if not self._lines or not self._lines[-1].is_open:
            self._lines.append(Line(self.number))
        self.flow()
        return self._lines[-1]

    def abstains(self, _quarantine: float) -> str:
        return ""

    def ask(self, line: Line, call: Call) -> None:
        line.ask(call)

    def read(self, _line: Line) -> None:
        self.flow()

    def hangs(self, line: Line) -> None:
        line.close("no answer")

    def give_back(self, _line: Line) -> None:
        """There is one at a time."""

    def flow(self) -> None:
        """Whatever may arrive does."""
        for line in self._lines:
            while line.requests and self._server.is_up and not self.is_held:
                line.answers.append(self._server.run(line.requests.popleft(), self._world.now))
            if not self.is_mute:
                line.read()

    def break_off(self) -> None:
        """As when the server dies: nothing that is under way arrives any more."""
        for line in self._lines:
            line.close("connection lost")
        self._lines = []

    @property
    def _server(self) -> Server:
        return self._world.servers[self.number]


class _Waiting(Round):
    """A round whose waiting is the others' time."""

    def __init__(self, world: World) -> None:
        super().__init__(Pace(may_stay_awake=False), is_native=False)
        self._world = world

    def wait(self, is_decided: Callable[[], bool]) -> None:
        taken: Dict[Any, Any] = self._taken
        patience = self._world.patience
        while True:
            for road in taken:
                road.flow()
            if is_decided() or not any(line.owed for line in taken.values()):
                return
            patience -= 1
            if patience < 0 or not self._world.go_on():
                for road, line in taken.items():
                    if line.owed:
                        road.hangs(line)


class _Mender:
    """What is to be taken back, until ``mend``."""

    def __init__(self) -> None:
        self.undo: List[Tuple[Road, Undo]] = []

    def attend(self, _roads: Any) -> None:
        pass

    def take_back(self, road: Road, _key: Any, undo: Undo) -> None:
        self.undo.append((road, undo))


class _Electorate(Electorate):
    def __init__(self, world: World, roads: Any, mender: Any, frames: Any) -> None:
        super().__init__(roads, mender, frames, is_native=False, longest_lease=LEASE)
        self._world = world

    def round(self) -> Round:
        return _Waiting(self._world)


class Client:
    """A process that asks, renews and leaves, and knows until when it may trust its hold."""

    def __init__(self, world: World, name: str) -> None:
        self.fence = 0
        self.roads = [Road(world, number) for number in range(len(world.servers))]
        self._world = world
        self._name = name
        self._asked = 0
        self._token = ""
        self._trusted_until = 0.0
        self._is_busy = False
        self._mender = _Mender()
        electorate = _Electorate(world, self.roads, self._mender, _Frames())
        self._voting = voting.Voting(electorate)
        self._keeping = keeping.Keeping(electorate, self._voting)

    @property
    def trusts(self) -> bool:
        return self.fence > 0 and self._world.now < self._trusted_until

    def go_on(self) -> None:
        """Renew what is held, or ask for it; nothing while it waits for an answer."""
        self._alone(self._renew if self.fence else self._acquire)

    def leave(self) -> None:
        if self.fence:
            self._alone(self._leave)

    def hand_over(self) -> None:
        """As in another process, which got the token and the fence."""
        self._voting.claims.clear()

    def mend(self) -> None:
        waiting, self._mender.undo = self._mender.undo, []
        for road, undo in waiting:
            server = self._world.servers[road.number]
            if server.is_up:
                frame: Any = undo.frame
                server.run(frame, self._world.now)
                undo.done()
            else:
                self._mender.undo.append((road, undo))

    def _alone(self, call: Callable[[], None]) -> None:
        if not self._is_busy:
            self._is_busy = True
            call()
            self._is_busy = False

    def _acquire(self) -> None:
        self._asked += 1
        self._token = f"{self._name}{self._asked}"
        sent_at = self._world.now
        answer = None
        with suppress(NoAnswer):
            answer = self._voting.acquire(Acquire("r", self._token, _TERMS, ""))
        if isinstance(answer, Granted):
            self.fence, self._trusted_until = answer.fence, 0.0
            self._trust_from(sent_at)
            self._world.granted(self)
        else:
            self._leave(tomb_ms=1)

    def _renew(self) -> None:
        sent_at, until = self._world.now, self._trusted_until
        request = Renew("r", self._token, self.fence, _TERMS.lease_ms, trusted_until=until)
        (answer,) = self._keeping.renew([request])
        if isinstance(answer, Extended):
            self._trust_from(sent_at)
            self._world.renewed(self)
        elif not isinstance(answer, NoAnswer):
            self._leave(tomb_ms=1)

    def _leave(self, tomb_ms: int = 0) -> None:
        self.fence = 0
        with suppress(NoAnswer):
            self._voting.leave(Leave("r", (self._token,), tomb_ms))

    def _trust_from(self, sent_at: float) -> None:
        self._trusted_until = max(self._trusted_until, timing.trusted_until(sent_at, LEASE))


class World:
    """Servers whose clocks are so much ahead, and two clients that want the same resource.

    ``go_on``: makes something happen while one of them waits, False when that takes too long; it
    waits for so many of these (``patience``).
    """

    def __init__(
        self, ahead: Sequence[float], patience: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.now = 1000.0
        self.patience = patience
        self.servers = [Server(seconds) for seconds in ahead]
        self.holder, self.rival = self.clients = (Client(self, "a"), Client(self, "b"))
        self.go_on: Callable[[], bool] = lambda: False
        self._since: Dict[Client, Set[Client]] = {}
        for module in (claim, keeping, voting):
            monkeypatch.setattr(module, "time", self)

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def stop(self, number: int) -> None:
        if self.servers[number].is_up:
            self.servers[number].is_up = False
            for client in self.clients:
                client.roads[number].break_off()

    def granted(self, client: Client) -> None:
        for others in self._since.values():
            others.add(client)
        self._since[client] = set()
        self._check()

    def renewed(self, client: Client) -> None:
        self._check()
        assert not (client.trusts and self._since[client] - {client}), (
            "trusts its hold again, although another had one since"
        )

    def _check(self) -> None:
        assert sum(client.trusts for client in self.clients) < 2, "two trust their hold"
