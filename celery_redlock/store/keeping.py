"""Renewals by a majority. Each also writes the fence back: see ``core.quorum``.

A server that no longer has the entry of a hold is asked for its vote anew: the more servers have
it, the more may be lost before the hold is.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, List, Optional, Sequence

from celery_redlock.core.ports import Closed, Extended, NoAnswer, Renew, RenewAnswer
from celery_redlock.core.quorum import Tally
from celery_redlock.store.ballots import RAISE
from celery_redlock.store.claim import Claim
from celery_redlock.store.electorate import Electorate
from celery_redlock.store.round import Round
from celery_redlock.store.single import BATCH
from celery_redlock.store.voter import Voter
from celery_redlock.store.voting import Voting
from celery_redlock.store.wire import Call, Silence, Wire


class Keeping:
    """Thread-safe."""

    def __init__(self, electorate: Electorate, voting: Voting) -> None:
        self._servers = electorate
        self._voting = voting

    def renew(self, requests: Sequence[Renew]) -> Sequence[RenewAnswer]:
        answers: List[RenewAnswer] = []
        for start in range(0, len(requests), BATCH):
            answers += self._renew(requests[start : start + BATCH])
        return answers

    def _renew(self, requests: Sequence[Renew]) -> List[RenewAnswer]:
        tallies: List[Tally[str]] = [self._servers.tally() for _ in requests]
        asked_at = time.monotonic()
        with self._servers.round() as round_:
            # What a restarted server has of a hold may be from before somebody else's.
            for voter, wire, why in self._servers.take_voters(round_):
                if wire is not None:
                    self._ask(round_, voter, wire, requests, tallies)
                    continue
                for tally in tallies:
                    tally.missing[voter.number] = why
            round_.wait(lambda: all(tally.is_won or tally.is_refused for tally in tallies))
            for request, tally in zip(requests, tallies):
                if tally.is_won:
                    self._renewed(round_, request, tally, asked_at)
        return [self._answer(tally) for tally in tallies]

    def _ask(
        self,
        round_: Round,
        voter: Voter,
        wire: Wire,
        requests: Sequence[Renew],
        tallies: List[Tally[str]],
    ) -> None:
        if wire.owed:
            voter.read(wire)  # what it gave may have come, and must be said to it
        claims = [self._voting.claims.get(request.token) for request in requests]
        given = [
            claim.given(voter.number, request.fence) if claim else ""
            for claim, request in zip(claims, requests)
        ]
        under_way = [claim is not None and voter.number in claim.asked for claim in claims]
        frame = self._servers.frames.write_back(requests, given)
        tell = partial(_answered, tallies, claims, under_way)
        round_.ask(voter, Call(frame, tell, RAISE))

    def _renewed(self, round_: Round, request: Renew, tally: Tally[str], asked_at: float) -> None:
        claim = self._voting.claims.get(request.token)
        if claim is None:
            return
        if request.kept:
            self._voting.claims.pop(request.token, None)
            return
        claim.expires = max(claim.expires, asked_at + request.lease_ms / 1000)
        if request.record:
            claim.request = claim.request._replace(record=request.record)
        # Also those whose answer to an earlier renewal came after that of the majority.
        for number in {*tally.no, *claim.without}:
            voter = self._servers.voters[number]
            wire = round_.take(voter)
            if wire is not None and number not in claim.asked:
                claim.request = claim.request._replace(orphans=(), kept="", line=None)
                call = self._voting.call_for(claim, self._servers.tally())
                self._voting.ask(voter, wire, claim, call)

    def _answer(self, tally: Tally[str]) -> RenewAnswer:
        if tally.is_won:
            return Extended()
        if tally.is_refused:
            why = next(filter(None, tally.no.values()), "")
            return Closed(why or "gone from a majority of the lock servers")
        return NoAnswer(self._servers.said(tally))


def _answered(
    tallies: Sequence[Tally[str]],
    claims: Sequence[Optional[Claim]],
    under_way: Sequence[bool],
    wire: Wire,
    answer: Any,
) -> None:
    """``under_way``: of which holds the server has been asked for its vote, and has not answered.

    A renewal of such a one cannot name the fence that it was given. That it finds another then is
    no sign that anything was lost.
    """
    number = wire.server
    if isinstance(answer, Silence):
        for tally in tallies:
            tally.missing[number] = answer.why
        return
    for tally, each, claim, is_under_way in zip(tallies, answer, claims, under_way):
        if each == 1:
            tally.yes[number] = 1
        elif each == 0 and is_under_way:
            tally.missing[number] = "its vote is under way"
        else:
            tally.no[number] = "" if each == 0 else each.decode()
            if claim is not None:
                claim.without.add(number)
