"""Renewals by a majority. Each also writes the fence back: see ``core.quorum``.

A server that has no entry of a hold is asked for its vote anew: the more servers have it, the more
may be lost before the hold is. Also while a majority is silent, but not once the trust is over.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from celery_redlock.core import timing
from celery_redlock.core.ports import Closed, Extended, NoAnswer, Renew, RenewAnswer
from celery_redlock.core.quorum import Tally
from celery_redlock.store.ballots import RAISE
from celery_redlock.store.claim import Claim, Trust
from celery_redlock.store.electorate import Electorate
from celery_redlock.store.round import Round
from celery_redlock.store.single import BATCH
from celery_redlock.store.voter import Voter
from celery_redlock.store.voting import Voting
from celery_redlock.store.wire import Call, Silence, Wire

#: So many holds of others may be known before those that have lapsed are looked for.
_MANY = 1024


class Part(NamedTuple):
    """One hold of a batch: what is asked for, what is known of it here, what the servers say.

    ``claim`` is None where another process or store asked for it.
    """

    request: Renew
    claim: Optional[Claim]
    trust: Trust
    tally: Tally[str]

    def given(self, server: int) -> str:
        """What a server may have given the hold, as text; see ``raise.lua``."""
        if self.trust.doubts(server):
            return "too late"  # is not renewed, so that it stands in nobody's way for long
        return self.claim.given(server, self.request.fence) if self.claim else ""


class Keeping:
    """Thread-safe."""

    def __init__(self, electorate: Electorate, voting: Voting) -> None:
        self._servers = electorate
        self._voting = voting
        self._others: Dict[str, Trust] = {}

    def renew(self, requests: Sequence[Renew]) -> Sequence[RenewAnswer]:
        answers: List[RenewAnswer] = []
        for start in range(0, len(requests), BATCH):
            answers += self._renew(requests[start : start + BATCH])
        return answers

    def _renew(self, requests: Sequence[Renew]) -> List[RenewAnswer]:
        parts = [self._part(request) for request in requests]
        asked_at = time.monotonic()
        with self._servers.round() as round_:
            # What a restarted server has of a hold may be from before somebody else's.
            for voter, wire, why in self._servers.take_voters(round_):
                if wire is not None:
                    self._ask(round_, voter, wire, parts)
                    continue
                for part in parts:
                    part.tally.missing[voter.number] = why
            round_.wait(lambda: all(part.tally.is_won or part.tally.is_refused for part in parts))
            for part in parts:
                if part.tally.is_won:
                    self._renewed(part, asked_at)
                if not part.tally.is_refused:
                    self._ask_anew(round_, part)
        return [self._answer(part.tally) for part in parts]

    def _part(self, request: Renew) -> Part:
        claim = self._voting.claims.get(request.token)
        trust = self._others_trust(request) if claim is None else claim.trust
        return Part(request, claim, trust, self._servers.tally())

    def _others_trust(self, request: Renew) -> Trust:
        trust = self._others.get(request.token)
        if trust is None:
            if len(self._others) >= _MANY:
                for token, each in list(self._others.items()):
                    if each.has_lapsed():
                        self._others.pop(token, None)
            trust = self._others[request.token] = Trust(request.trusted_until)
        trust.lasts(request.trusted_until)
        return trust

    def _ask(self, round_: Round, voter: Voter, wire: Wire, parts: Sequence[Part]) -> None:
        if wire.owed:
            voter.read(wire)  # what it gave may have come, and must be said to it
        given = [part.given(voter.number) for part in parts]
        under_way = [part.claim is not None and voter.number in part.claim.asked for part in parts]
        frame = self._servers.frames.write_back([part.request for part in parts], given)
        round_.ask(voter, Call(frame, partial(_answered, parts, under_way), RAISE))

    def _renewed(self, part: Part, asked_at: float) -> None:
        request, claim, trust, _tally = part
        trust.lasts(timing.trusted_until(asked_at, request.lease_ms / 1000))
        if request.kept:
            self._voting.claims.pop(request.token, None)
        elif request.record and claim is not None:
            claim.request = claim.request._replace(record=request.record)

    def _ask_anew(self, round_: Round, part: Part) -> None:
        """Ask those for their vote that have nothing of the hold, while it would still count."""
        request, claim, trust, tally = part
        if claim is None or request.kept or trust.has_lapsed():
            return
        # Also those whose answer to an earlier renewal came after that of the majority. Not who has
        # restarted, and does not vote yet.
        for number in {*tally.no, *claim.without}.difference(tally.missing):
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


def _answered(parts: Sequence[Part], under_way: Sequence[bool], wire: Wire, answer: Any) -> None:
    """``under_way``: of which holds the server has been asked for its vote, and has not answered.

    A renewal of such a one cannot name the fence that it was given. That it finds another then is
    no sign that anything was lost.
    """
    number = wire.server
    if isinstance(answer, Silence):
        for part in parts:
            part.tally.missing[number] = answer.why
        return
    for (_request, claim, trust, tally), each, is_under_way in zip(parts, answer, under_way):
        if each == 1:
            if trust.says_yes(number):
                tally.yes[number] = 1
            else:
                tally.no[number] = ""
            continue
        trust.says_no(number)
        if each == 0 and is_under_way:
            tally.missing[number] = "its vote is under way"
            continue
        tally.no[number] = "" if each == 0 else each.decode()
        if claim is not None:
            claim.without.add(number)
