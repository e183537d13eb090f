"""One Redis or Valkey server: the ports' requests as calls of its scripts, and its answers back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Protocol,
    Sequence,
    Tuple,
    TypeVar,
)

from celery_redlock.core.ports import (
    Acquire,
    AcquireAnswer,
    AskAnswer,
    Beat,
    BeatAnswer,
    Leave,
    LeaveAnswer,
    Left,
    NoAnswer,
    Reestablish,
    ReestablishAnswer,
    Renew,
    RenewAnswer,
    ResourceView,
    Subscription,
)
from celery_redlock.store import answers
from celery_redlock.store.answers import STRANGE, UNREADABLE
from celery_redlock.store.connections import Connections
from celery_redlock.store.frames import (
    ACQUIRE,
    ACQUIRE_ALL,
    HEARTBEAT,
    INSPECT,
    LEAVE,
    REESTABLISH,
    RENEW,
    Frames,
)
from celery_redlock.store.inbox import Inbox
from celery_redlock.store.link import Call, Frame
from celery_redlock.store.looking import survey, view
from celery_redlock.store.scripts import Script

#: Resources in one call of a batch: more would stall the server's other clients.
BATCH = 100


class Server(NamedTuple):
    """One server of a store: how it is reached, how its keys are called, and which it has."""

    connections: Connections
    frames: Frames
    serves: Callable[[str], bool] = lambda key: True


Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Runner(Protocol):
    """What calls a script once on the server of a resource: see ``Connections``."""

    @property
    def name(self) -> str: ...

    def run(self, script: Script, frame: Frame) -> Any: ...

    def tell(self, script: Script, frame: Frame) -> None: ...


class ScriptedStore(ABC):
    """What every store on servers has in common: one script call on the server of the resource."""

    def __init__(self, prefix: str, fence_ttl: float) -> None:
        self._frames = Frames(prefix, fence_ttl)

    @abstractmethod
    def _serving(self, resource: str) -> Runner: ...

    def acquire(self, request: Acquire) -> AcquireAnswer:
        server = self._serving(request.resource)
        raw = server.run(ACQUIRE, lambda grace: self._frames.acquire(request, grace))
        return read(server.name, answers.acquired, raw)

    def acquire_all(self, requests: Sequence[Acquire]) -> List[AcquireAnswer]:
        server = self._serving(requests[0].resource)
        raw = server.run(ACQUIRE_ALL, lambda grace: self._frames.acquire_all(requests, grace))
        return read(server.name, answers.all_acquired, raw, len(requests))

    def leave(self, request: Leave) -> Left:
        server = self._serving(request.resource)
        raw = server.run(LEAVE, lambda grace: self._frames.leave(request, grace))
        return read(server.name, answers.left, raw)

    def secure(self, request: Renew) -> None:
        frame = self._frames.renew([request])
        self._serving(request.resource).tell(RENEW, lambda _grace: frame)

    def reestablish(self, request: Reestablish) -> ReestablishAnswer:
        server = self._serving(request.resource)
        raw = server.run(REESTABLISH, lambda grace: self._frames.reestablish(request, grace))
        return read(server.name, answers.reestablished, raw)

    def inspect(self, resource: str) -> ResourceView:
        server = self._serving(resource)
        frame = self._frames.inspect(resource)
        raw = server.run(INSPECT, lambda _grace: frame)
        return read(server.name, lambda told: view(*told), raw)


class SingleServer(ScriptedStore):
    """A store on one server. See ``core.ports.Store`` for what each method means."""

    def __init__(self, connections: Connections, prefix: str, fence_ttl: float = 86400.0) -> None:
        super().__init__(prefix, fence_ttl)
        self._connections = connections

    def acquire_batch(self, asks: Sequence[Sequence[Acquire]]) -> List[AskAnswer]:
        calls = [self._ask(requests) for requests in asks]
        raw = self._connections.run_all(calls)
        counts = (len(requests) for requests in asks)
        return [self._or_silence(answers.asked, *each) for each in zip(raw, counts)]

    def leave_batch(self, requests: Sequence[Leave]) -> List[LeaveAnswer]:
        calls = [Call(LEAVE, partial(self._frames.leave, request)) for request in requests]
        return [self._or_silence(answers.left, raw) for raw in self._connections.run_all(calls)]

    def renew(self, requests: Sequence[Renew]) -> List[RenewAnswer]:
        return _in_batches(requests, self._renew)

    def heartbeat(self, requests: Sequence[Beat]) -> List[BeatAnswer]:
        return _in_batches(requests, self._heartbeat)

    def survey(self, pattern: str = "*") -> Iterator[Sequence[Tuple[str, ResourceView]]]:
        return survey(self._connections, self._frames, pattern)

    def subscribe(self, inbox: str) -> Subscription:
        channel = self._frames.channel(inbox)
        return Inbox(self._connections.dedicated(), channel, self._connections.name)

    def has_broken(self) -> bool:
        return self._connections.has_broken()

    def close(self) -> None:
        self._connections.close()

    def servers(self) -> List[Server]:
        """The servers behind it, for whoever examines them."""
        return [Server(self._connections, self._frames)]

    def _serving(self, resource: str) -> Connections:
        return self._connections

    def _ask(self, requests: Sequence[Acquire]) -> Call:
        if len(requests) == 1:
            return Call(ACQUIRE, partial(self._frames.acquire, requests[0]))
        return Call(ACQUIRE_ALL, partial(self._frames.acquire_all, requests))

    def _or_silence(self, reader: Callable[..., Answer], raw: Any, *more: Any) -> Any:
        return or_silence(self._connections.name, reader, raw, *more)

    def _renew(self, requests: Sequence[Renew]) -> List[RenewAnswer]:
        frame = self._frames.renew(requests)
        raw = self._connections.run(RENEW, lambda _grace: frame)
        return self._each(answers.renewed, raw, requests)

    def _heartbeat(self, requests: Sequence[Beat]) -> List[BeatAnswer]:
        by_resource: Dict[str, List[Beat]] = {}
        for beat in requests:
            by_resource.setdefault(beat.resource, []).append(beat)
        raw = self._connections.run(
            HEARTBEAT, lambda grace: self._frames.heartbeat(by_resource, grace)
        )
        asked = [beat for beats in by_resource.values() for beat in beats]
        answer_of = dict(zip(asked, self._each(answers.beaten, raw, asked)))
        return [answer_of[beat] for beat in requests]

    def _each(
        self, reader: Callable[[Any], Answer], raw: Any, requests: Sequence[Any]
    ) -> List[Answer]:
        """Each answer of a batch as a value."""
        told = read(self._connections.name, answers.one_each, raw, requests)
        return read(self._connections.name, lambda told: [reader(each) for each in told], told)


def read(server: str, reader: Callable[..., Answer], raw: Any, *more: Any) -> Answer:
    """A server's answer as a value; one that no script of ours gives is no answer."""
    try:
        return reader(raw, *more)
    except UNREADABLE as error:
        raise NoAnswer(f"{server} ({STRANGE})") from error


def or_silence(server: str, reader: Callable[..., Answer], raw: Any, *more: Any) -> Any:
    """As ``read``, for a part of a batch: NoAnswer stays what it is, or is in its place."""
    if isinstance(raw, NoAnswer):
        return raw
    try:
        return read(server, reader, raw, *more)
    except NoAnswer as silence:
        return silence


def _in_batches(
    requests: Sequence[Request], call: Callable[[Sequence[Request]], List[Answer]]
) -> List[Any]:
    told: List[Any] = []
    for start in range(0, len(requests), BATCH):
        part = requests[start : start + BATCH]
        try:
            told += call(part)
        except NoAnswer as silence:
            told += [silence] * len(part)
    return told
