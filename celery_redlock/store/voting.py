"""Votes: a majority of them is a hold.

A try asks every server once. It wins as soon as a majority has granted it. Otherwise what it was
granted is given back, each by the fence it was given; the same token may try again. It is left by
one release at all servers, also at those that refused it; with a tombstone where an ask may still
be under way.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Dict, Set, Tuple, Union

from celery_redlock.core import timing
from celery_redlock.core.ports import (
    Acquire,
    AcquireAnswer,
    Busy,
    Closed,
    Granted,
    Leave,
    Left,
    NoAnswer,
    Queued,
)
from celery_redlock.core.quorum import Tally, pause_apart, pause_waiting
from celery_redlock.core.timing import LATE_MS
from celery_redlock.store.answers import acquired, left
from celery_redlock.store.ballots import EXPECT, GIVE_BACK, VOTE, WITHDRAW
from celery_redlock.store.claim import Claim, Trust
from celery_redlock.store.electorate import Electorate
from celery_redlock.store.majority import Contenders
from celery_redlock.store.mending import Undo
from celery_redlock.store.round import Round
from celery_redlock.store.voter import Voter
from celery_redlock.store.wire import Call, Silence, Wire, nobody

#: So many tokens may be known before those that have lapsed are looked for.
_MANY = 1024

Ballot = Tally[Union[Busy, Closed]]


class Voting:
    """The tokens of this process that have votes, or may have. Thread-safe."""

    def __init__(self, electorate: Electorate) -> None:
        self._servers = electorate
        self._frames = electorate.frames
        self._contenders = Contenders()
        self.claims: Dict[str, Claim] = {}

    # --- a try

    def acquire(self, request: Acquire) -> AcquireAnswer:
        """One try. Raises NoAnswer when too few servers answer."""
        lease = request.terms.lease_ms / 1000
        self._servers.longest_lease = max(self._servers.longest_lease, lease)
        claim, ballot = self._claim(request), self._servers.tally()
        trusted_until = timing.trusted_until(time.monotonic(), lease)
        with self._servers.round() as round_:
            self._ask_all(round_, claim, ballot)
            # Not only until it is lost: what is still granted then would be given back by nobody.
            round_.wait(lambda: ballot.is_won or ballot.is_complete)
            if ballot.is_won and time.monotonic() < trusted_until:
                claim.fence, claim.trust = ballot.highest, Trust(trusted_until, claim.votes)
                return Granted(claim.fence, is_settled=False)
            if claim.is_held:
                # A copy of an ask that was granted: what it was given is the holder's.
                return self._refused(request, ballot)
            self._give_all_back(round_, claim)
            answer = self._refused(request, ballot)
            if isinstance(answer, Queued):
                self._expect(round_, request, answer.seq)
        if isinstance(answer, Busy) and answer.holders:
            self._bury_tainted(claim)
        return answer

    def ask(self, voter: Voter, wire: Wire, claim: Claim, call: Call) -> None:
        """Ask one server for its vote; ``call`` is ``call_for`` the claim."""
        claim.ask_on(voter.number, wire)
        if claim.is_closed:
            # After it was noted: whoever leaves the token has seen that, or this sees the closing.
            return
        voter.ask(wire, call)

    def call_for(self, claim: Claim, ballot: Ballot) -> Call:
        """The request for a vote, the same for every server."""
        return Call(self._frames.vote(claim.request), partial(self._voted, claim, ballot), VOTE)

    def _claim(self, request: Acquire) -> Claim:
        claim = self.claims.get(request.token)
        if claim is None:
            if len(self.claims) >= _MANY:
                self._forget_lapsed()
            claim = self.claims[request.token] = Claim(request)
        claim.request, claim.is_over = request, False
        return claim

    def _forget_lapsed(self) -> None:
        """Forget holds that nobody renews and nobody released."""
        for token, claim in list(self.claims.items()):
            if claim.fence and claim.trust.has_lapsed():
                self.claims.pop(token, None)

    def _ask_all(self, round_: Round, claim: Claim, ballot: Ballot) -> None:
        asked: Set[Voter] = set()
        call = self.call_for(claim, ballot)
        for even_behind in (False, True):
            for voter, wire, why in self._servers.take_voters(round_, even_behind=even_behind):
                if voter in asked:
                    continue
                if wire is None:
                    ballot.missing[voter.number] = why
                else:
                    ballot.missing.pop(voter.number, None)
                    asked.add(voter)
                    self.ask(voter, wire, claim, call)
            if not ballot.is_unavailable:
                break
            # Perhaps it was this process that was held up, and all of them only seem slow.
        for number in ballot.missing:
            self._drop_orphans(self._servers.voters[number], claim.request)

    def _voted(self, claim: Claim, ballot: Ballot, wire: Wire, answer: Any) -> None:
        number = wire.server
        if claim.asked.get(number) is wire:
            del claim.asked[number]
        if isinstance(answer, Silence):
            claim.tainted.add(number)
            ballot.missing[number] = answer.why
            self._drop_orphans(self._servers.voters[number], claim.request)
            return
        verdict = acquired(answer)
        if not isinstance(verdict, Granted):
            if not isinstance(verdict, (Busy, Closed)):
                raise ValueError("no answer to a vote")
            ballot.no[number] = verdict
            claim.votes.pop(number, None)
        elif verdict.fence == claim.returning.get(number):
            ballot.no[number] = Busy(0)
        else:
            ballot.yes[number] = claim.votes[number] = verdict.fence
            claim.trust.says_yes(number)
            if claim.is_over and not claim.is_closed:
                self._give_back(self._servers.voters[number], wire, claim)
        self._forget_if_gone(claim)

    def _drop_orphans(self, voter: Voter, request: Acquire) -> None:
        """A server that was not told of them has to be told by somebody."""
        if request.orphans:
            self._servers.take_back(voter, _farewell(request, request.orphans))

    # --- a try that came to nothing

    def _refused(self, request: Acquire, ballot: Ballot) -> AcquireAnswer:
        if ballot.is_unavailable:
            asked = len(ballot.yes) + len(ballot.no) > 0
            raise NoAnswer(self._servers.said(ballot), may_run=asked)
        closed = [answer for answer in ballot.no.values() if isinstance(answer, Closed)]
        if len(closed) > ballot.servers - ballot.majority:
            return closed[0]
        busy = [answer for answer in ballot.no.values() if isinstance(answer, Busy)]
        holders, is_held = self._contenders.among(request.resource, busy, ballot)
        if request.line is None:
            # Nobody has it, and nobody got it: the next try is to tell who does.
            return Busy(timing.to_ms(pause_apart()), holders if is_held else ())
        now_us = int(time.time() * 1_000_000)
        since = request.line.seq or now_us
        pause = pause_waiting((now_us - since) / 1e6) if is_held else pause_apart()
        return Queued(since, 0, timing.to_ms(pause), holders)

    def _give_all_back(self, round_: Round, claim: Claim) -> None:
        """What it was granted; what it is still granted goes back when the answer is read."""
        claim.is_over = True
        for voter in self._servers.voters:
            if voter.number in claim.votes:
                self._give_back(voter, round_.take(voter), claim)
        self._forget_if_gone(claim)

    def _give_back(self, voter: Voter, wire: Any, claim: Claim) -> None:
        request, fence = claim.request, claim.votes.pop(voter.number)
        claim.returning[voter.number] = fence
        frame = self._frames.give_back(request.resource, request.token, fence)

        def acknowledged() -> None:
            if claim.returning.get(voter.number) == fence:
                del claim.returning[voter.number]
            self._forget_if_gone(claim)

        def tell(_wire: Any, answer: Any) -> None:
            if not isinstance(answer, Silence):
                acknowledged()
                return
            key = (request.resource, request.token, str(fence))
            self._servers.mender.take_back(voter, key, Undo(frame, GIVE_BACK, acknowledged))

        if wire is None:
            tell(wire, Silence("not asked"))
        else:
            voter.ask(wire, Call(frame, tell, GIVE_BACK))

    def _forget_if_gone(self, claim: Claim) -> None:
        if claim.is_gone and self.claims.get(claim.request.token) is claim:
            del self.claims[claim.request.token]

    def _bury_tainted(self, claim: Claim) -> None:
        """Nobody tries with it again: a late copy of an ask must not be granted."""
        request = claim.request
        for number in list(claim.tainted):
            voter = self._servers.voters[number]
            self._servers.take_back(voter, _farewell(request, (request.token,)))

    def _expect(self, round_: Round, request: Acquire, since: int) -> None:
        call = Call(self._frames.expect(request, since), nobody, EXPECT)
        for voter in self._servers.voters:
            if round_.take(voter, even_behind=False) is not None:
                round_.ask(voter, call)

    # --- leaving

    def leave(self, request: Leave) -> Left:
        """Leave tokens at all servers. Raises NoAnswer when too few acknowledge it."""
        found = [self.claims.pop(token, None) for token in request.tokens]
        claims = [claim for claim in found if claim is not None]
        for claim in claims:
            claim.is_closed = True
        tally: Tally[str] = self._servers.tally()
        calls: Dict[int, Call] = {}
        with self._servers.round() as round_:
            for voter in self._servers.voters:
                wire = round_.take(voter)
                if wire is None:
                    tally.missing[voter.number] = voter.why_not
                    may_be_there = any(claim.may_be_at(voter.number) for claim in claims)
                    if may_be_there or len(claims) < len(found):
                        self._servers.take_back(voter, request)
                    continue
                tomb_ms = request.tomb_ms
                for claim in claims:
                    if claim.needs_tomb(voter.number, wire):
                        tomb_ms = LATE_MS
                if tomb_ms not in calls:
                    frame = self._frames.withdraw(request, tomb_ms)
                    calls[tomb_ms] = Call(frame, partial(self._left, request, tally), WITHDRAW)
                voter.ask(wire, calls[tomb_ms])
            round_.wait(lambda: tally.has_heard_majority)
        if not tally.has_heard_majority:
            raise NoAnswer(self._servers.said(tally))
        whats = {left(answer).what for answer in tally.yes.values()}
        return Left(next(what for what in ("holder", "waiter", "absent") if what in whats))

    def _left(self, request: Leave, tally: Tally[str], wire: Wire, answer: Any) -> None:
        if isinstance(answer, Silence):
            tally.missing[wire.server] = answer.why
            self._servers.take_back(self._servers.voters[wire.server], request)
        else:
            left(answer)  # or it is none of ours
            tally.yes[wire.server] = answer


def _farewell(request: Acquire, tokens: Tuple[str, ...]) -> Leave:
    return Leave(request.resource, tokens, LATE_MS, lease_ms=request.terms.lease_ms)
