"""Redlock: one store over several independent servers. See ``core.quorum`` for why it is safe.

Every request goes to all servers at once, over held connections, and is answered as soon as the
answer of a majority is certain. What the others say is read later, and what one may have granted
without our knowing is taken back in the background. There is no line: whoever is refused asks again
after a random pause, or when a release says that it is its turn (``expect.lua``).

A grant's fence is not settled: it must be written back before it is shown. Renewing does that, with
a lease of 0 ms it does nothing else.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Iterator, Sequence, Set, Tuple
from weakref import WeakSet

from celery_redlock.core.ports import (
    Acquire,
    AcquireAnswer,
    AskAnswer,
    Beat,
    BeatAnswer,
    Confirm,
    Leave,
    LeaveAnswer,
    Left,
    NoAnswer,
    Reestablish,
    ReestablishAnswer,
    Refused,
    Renew,
    RenewAnswer,
    ResourceView,
    Subscription,
)
from celery_redlock.core.quorum import Tally
from celery_redlock.core.redlock import SEVERAL
from celery_redlock.exceptions import ConfigurationError
from celery_redlock.store.batches import acquire_each, leave_each
from celery_redlock.store.electorate import Electorate
from celery_redlock.store.frames import INSPECT
from celery_redlock.store.hints import Hints
from celery_redlock.store.keeping import Keeping
from celery_redlock.store.looking import view
from celery_redlock.store.majority import merged
from celery_redlock.store.voting import Voting
from celery_redlock.store.wire import Call, Silence, Wire


class QuorumServers:
    """A store over N servers. See ``core.ports.Store`` for what each method means."""

    def __init__(self, electorate: Electorate) -> None:
        self._servers = electorate
        self._voting = Voting(electorate)
        self._keeping = Keeping(electorate, self._voting)
        _every.add(self)

    def acquire(self, request: Acquire) -> AcquireAnswer:
        return self._voting.acquire(request)

    def acquire_all(self, requests: Sequence[Acquire]) -> Sequence[AcquireAnswer]:
        """One is all that can be had here: several at once would need a majority of each."""
        if len(requests) > 1:
            raise ConfigurationError(SEVERAL)
        return [self.acquire(request) for request in requests]

    def acquire_batch(self, asks: Sequence[Sequence[Acquire]]) -> Sequence[AskAnswer]:
        return acquire_each(self, asks)

    def leave_batch(self, requests: Sequence[Leave]) -> Sequence[LeaveAnswer]:
        return leave_each(self, requests)

    def leave(self, request: Leave) -> Left:
        return self._voting.leave(request)

    def renew(self, requests: Sequence[Renew]) -> Sequence[RenewAnswer]:
        return self._keeping.renew(requests)

    def secure(self, request: Renew) -> None:
        """Nothing: nobody is granted anything for a moment here."""

    def heartbeat(self, requests: Sequence[Beat]) -> Sequence[BeatAnswer]:
        """There is no line to stand in: every waiter is to ask again."""
        return [Confirm() for _ in requests]

    def reestablish(self, request: Reestablish) -> ReestablishAnswer:
        """What a majority has no more may have been another's since."""
        return Refused()

    def inspect(self, resource: str) -> ResourceView:
        tally: Tally[ResourceView] = self._servers.tally()
        call = Call(self._servers.frames.look(resource), partial(_seen, tally), INSPECT)
        with self._servers.round() as round_:
            for voter in self._servers.voters:
                if round_.take(voter) is None:
                    tally.missing[voter.number] = voter.why_not
                else:
                    round_.ask(voter, call)
            round_.wait(lambda: tally.is_complete)
        if tally.is_unavailable:
            raise NoAnswer(self._servers.said(tally), may_run=False)
        return merged(list(tally.no.values()), tally.servers)

    def survey(self, pattern: str = "*") -> Iterator[Sequence[Tuple[str, ResourceView]]]:
        """Walks over one server after the other, and looks at what it finds at all of them."""
        known: Set[str] = set()
        tally: Tally[str] = self._servers.tally()
        for voter in self._servers.voters:
            try:
                for part in voter.survey(self._servers.frames, pattern):
                    names = [name for name, _view in part if name not in known]
                    known.update(names)
                    yield [(name, self.inspect(name)) for name in names]
            except NoAnswer as silence:
                tally.missing[voter.number] = voter.out or silence.servers
            if tally.is_unavailable:
                raise NoAnswer(self._servers.said(tally), may_run=False)

    def subscribe(self, inbox: str) -> Subscription:
        channel = self._servers.frames.channel(inbox)
        return Hints(self._servers.voters, channel, self._servers.is_native)

    def has_broken(self) -> bool:
        """One of them may go, and a majority of them is noticed at the next renewal."""
        return False

    def close(self) -> None:
        for voter in self._servers.voters:
            voter.close()

    def after_fork(self) -> None:
        """In the child: nothing of the parent's is asked on, renewed or taken back."""
        self._voting.claims = {}
        self._servers.after_fork()


def _seen(tally: Tally[ResourceView], wire: Wire, answer: Any) -> None:
    if isinstance(answer, Silence):
        tally.missing[wire.server] = answer.why
    else:
        tally.no[wire.server] = view(*answer)


def _forget_all() -> None:
    for servers in list(_every):
        servers.after_fork()


_every: WeakSet[QuorumServers] = WeakSet()
os.register_at_fork(after_in_child=_forget_all)
