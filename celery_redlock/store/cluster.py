"""A store on a cluster: every resource lives in one slot, and follows it from node to node.

What a node refuses because it does not serve the slot (MOVED, ASK, TRYAGAIN, CLUSTERDOWN) has not
run, so it is asked again elsewhere without a doubt about copies. A batch goes to all nodes at once
before the first answer is read. Renewals and heartbeats of one slot are one script call; of a slot
that is just moving that may be refused, and each is then asked for by itself.

A wake-up is published on the node that granted, and reaches a subscriber of any.
"""

from __future__ import annotations

import random
import time
from contextlib import suppress
from functools import partial
from operator import attrgetter
from typing import Any, Callable, Dict, Iterator, List, Sequence, Set, Tuple, TypeVar

from redis.crc import key_slot

from celery_redlock.core.ports import (
    Acquire,
    AcquireAnswer,
    AskAnswer,
    Beat,
    BeatAnswer,
    Leave,
    LeaveAnswer,
    NoAnswer,
    Renew,
    RenewAnswer,
    ResourceView,
    Subscription,
)
from celery_redlock.exceptions import ConfigurationError
from celery_redlock.store import answers
from celery_redlock.store.batches import acquire_each
from celery_redlock.store.frames import ACQUIRE, HEARTBEAT, LEAVE, RENEW
from celery_redlock.store.inbox import Inbox
from celery_redlock.store.link import Frame
from celery_redlock.store.looking import survey
from celery_redlock.store.scripts import Script
from celery_redlock.store.single import BATCH, ScriptedStore, Server, or_silence
from celery_redlock.store.slots import Slots, is_moving, redirect

#: So often a request follows its slot before that counts as an outage.
_HOPS = 8

#: Seconds for which the keys of one resource may be in two places, and between two looks.
_MOVES_FOR, _LOOK_EVERY = 1.0, 0.02

#: How it is called where it does not matter which of its nodes.
_NAME = "the cluster"

#: A script call for a resource: its name, and the request.
Call = Tuple[str, Frame]

#: A part of a batch that can share its call with others.
Part = TypeVar("Part", Renew, Beat)


class Route:
    """The way to wherever the slot of a resource is."""

    def __init__(self, slots: Slots, key: str, sleep: Callable[[float], None]) -> None:
        self._slots = slots
        self._key = key
        self._sleep = sleep

    @property
    def name(self) -> str:
        return _NAME

    def tell(self, script: Script, frame: Frame) -> None:
        """As ``Connections.tell``; where the slot has moved it comes to nothing."""
        with suppress(NoAnswer):
            self._slots.server_of(self._key).tell(script, frame)

    def run(self, script: Script, frame: Frame) -> Any:
        """As ``Connections.run``."""
        until = time.monotonic() + _MOVES_FOR
        hops = 0
        server, asking = self._slots.server_of(self._key), False
        while True:
            try:
                return server.run(script, frame, asking)
            except NoAnswer as silence:
                away, cause = server, silence.__cause__
                elsewhere = redirect(cause)
                hops = hops + 1 if elsewhere else 0
                if hops == _HOPS:
                    raise
                if elsewhere:
                    asking = elsewhere.asking
                    server = self._slots.follow(elsewhere, server)
                elif is_moving(cause) and time.monotonic() < until:
                    self._sleep(_LOOK_EVERY)
                    server, asking = self._slots.server_of(self._key), False
                else:
                    self._slots.look_again(away)
                    server, asking = self._slots.server_of(self._key), False
                    if silence.may_run or server is away or time.monotonic() > until:
                        raise


class Cluster(ScriptedStore):
    """See ``core.ports.Store`` for what each method means."""

    def __init__(
        self,
        slots: Slots,
        prefix: str,
        fence_ttl: float = 86400.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(prefix, fence_ttl)
        self._slots = slots
        self._sleep = sleep

    def acquire_all(self, requests: Sequence[Acquire]) -> List[AcquireAnswer]:
        names = [request.resource for request in requests]
        if len({key_slot(self._key(name).encode()) for name in names}) > 1:
            raise ConfigurationError(
                f"several resources at once: expected names that share a slot of the cluster, got "
                f"{', '.join(names)}; begin their templates with the same text in double braces, "
                'for instance "{{shop}}:account:{account_id}"'
            )
        return super().acquire_all(requests)

    def acquire_batch(self, asks: Sequence[Sequence[Acquire]]) -> List[AskAnswer]:
        if any(len(requests) > 1 for requests in asks):
            return acquire_each(self, asks)
        calls = [(each.resource, partial(self._frames.acquire, each)) for (each,) in asks]
        return [_read(answers.asked, raw, 1) for raw in self._call_all(ACQUIRE, calls)]

    def leave_batch(self, requests: Sequence[Leave]) -> List[LeaveAnswer]:
        calls = [(each.resource, partial(self._frames.leave, each)) for each in requests]
        return [_read(answers.left, raw) for raw in self._call_all(LEAVE, calls)]

    def renew(self, requests: Sequence[Renew]) -> List[RenewAnswer]:
        return self._in_groups(RENEW, requests, self._renewal, answers.renewed)

    def heartbeat(self, requests: Sequence[Beat]) -> List[BeatAnswer]:
        return self._in_groups(HEARTBEAT, requests, self._heartbeat, answers.beaten)

    def survey(self, pattern: str = "*") -> Iterator[Sequence[Tuple[str, ResourceView]]]:
        for master in self._slots.masters():
            yield from survey(master, self._frames, pattern)

    def subscribe(self, inbox: str) -> Subscription:
        # Not always the same node first: one may answer and hear nothing of the others.
        masters = self._slots.masters()
        random.shuffle(masters)
        server = masters[0]
        return Inbox(server.dedicated(), self._frames.channel(inbox), server.name)

    def has_broken(self) -> bool:
        return any(master.has_broken() for master in self._slots.masters())

    def close(self) -> None:
        self._slots.close()

    def servers(self) -> List[Server]:
        """The masters, for whoever examines them."""

        def serves(master: Any) -> Callable[[str], bool]:
            return lambda key: self._slots.server_of(key) is master

        masters = self._slots.masters()
        return [Server(master, self._frames, serves(master)) for master in masters]

    def _serving(self, resource: str) -> Route:
        if resource.startswith("}") and len(self._slots_of(resource)) > 1:
            raise ConfigurationError(
                f"lock_key: expected a name that does not begin with a brace, because that decides "
                f"about its slot in the cluster, got {resource!r}; begin it with a letter"
            )
        return Route(self._slots, self._key(resource), self._sleep)

    def _slots_of(self, resource: str) -> Set[int]:
        return {key_slot(key.encode()) for key in self._frames.keys(resource)}

    def _key(self, resource: str) -> str:
        return self._frames.keys(resource)[0]

    def _renewal(self, requests: Sequence[Renew]) -> Frame:
        frame = self._frames.renew(requests)
        return lambda _grace: frame

    def _heartbeat(self, beats: Sequence[Beat]) -> Frame:
        by_resource: Dict[str, List[Beat]] = {}
        for beat in beats:
            by_resource.setdefault(beat.resource, []).append(beat)
        return lambda grace: self._frames.heartbeat(by_resource, grace)

    def _in_groups(
        self,
        script: Script,
        requests: Sequence[Part],
        frame_of: Callable[[Sequence[Part]], Frame],
        reader: Callable[[Any], Any],
    ) -> List[Any]:
        """The answer to each request; those of a slot go in one call."""
        groups = self._by_slot(requests)
        posted = self._post_all([(group[0].resource, frame_of(group)) for group in groups])
        answer_of: Dict[Part, Any] = {}
        for group, raw in zip(groups, posted):
            if _is_refused(raw):
                # Perhaps its slot moves, and what is in it has in part: each for itself.
                for each in group:
                    alone = self._call_one(script, (each.resource, frame_of([each])))
                    answer_of[each] = _read_group(reader, alone, [each])[0]
            else:
                answer_of.update(zip(group, _read_group(reader, raw, group)))
        return [answer_of[each] for each in requests]

    def _by_slot(self, requests: Sequence[Part]) -> List[List[Part]]:
        """Groups for one call each: those of a resource side by side, as its script tells them."""
        slots: Dict[int, List[Part]] = {}
        for each in sorted(requests, key=attrgetter("resource")):
            slot = key_slot(self._key(each.resource).encode())
            slots.setdefault(slot, []).append(each)
        return [
            group[start : start + BATCH]
            for group in slots.values()
            for start in range(0, len(group), BATCH)
        ]

    def _call_all(self, script: Script, calls: Sequence[Call]) -> List[Any]:
        """The answer to each call, or NoAnswer in its place."""
        if len(calls) == 1:
            return [self._call_one(script, calls[0])]
        return [
            self._call_one(script, call) if _is_refused(raw) else raw
            for call, raw in zip(calls, self._post_all(calls))
        ]

    def _post_all(self, calls: Sequence[Call]) -> List[Any]:
        """As ``_call_all``, but what a node refuses is an answer: its error."""
        told: Dict[int, Any] = {}
        posted, away = [], None
        for server, numbers in self._by_server(calls, told).items():
            for start in range(0, len(numbers), BATCH):
                part = numbers[start : start + BATCH]
                try:
                    sent = server.post([calls[number][1] for number in part])
                except NoAnswer as silence:
                    away = server
                    told.update(dict.fromkeys(part, silence))
                else:
                    posted.append((server, part, sent))
        for server, part, sent in posted:
            try:
                told.update(zip(part, server.collect(sent)))
            except NoAnswer as silence:
                away = server
                told.update(dict.fromkeys(part, silence))
        if away is not None:
            self._slots.look_again(away)
        return [told[number] for number in range(len(calls))]

    def _by_server(self, calls: Sequence[Call], told: Dict[int, Any]) -> Dict[Any, List[int]]:
        """The numbers of the calls for each node; those for none are answered."""
        servers: Dict[Any, List[int]] = {}
        for number, (resource, _frame) in enumerate(calls):
            try:
                server = self._slots.server_of(self._key(resource))
            except NoAnswer as silence:
                told[number] = silence
            else:
                servers.setdefault(server, []).append(number)
        return servers

    def _call_one(self, script: Script, call: Call) -> Any:
        resource, frame = call
        try:
            return self._serving(resource).run(script, frame)
        except NoAnswer as silence:
            return silence


def _read(reader: Callable[..., Any], raw: Any, *more: Any) -> Any:
    return or_silence(_NAME, reader, raw, *more)


def _read_group(reader: Callable[[Any], Any], raw: Any, group: Sequence[Any]) -> Sequence[Any]:
    """The answers to a group, or NoAnswer in the place of each."""
    told = _read(lambda raw: [reader(each) for each in answers.one_each(raw, group)], raw)
    return [told] * len(group) if isinstance(told, NoAnswer) else told


def _is_refused(answer: Any) -> bool:
    """Whether a node did not run it: its slot is elsewhere, or the script is not known there."""
    return isinstance(answer, Exception) and not isinstance(answer, NoAnswer)
