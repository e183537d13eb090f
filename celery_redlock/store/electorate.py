"""The servers that decide together, and what every request to them needs."""

from __future__ import annotations

from typing import Any, Iterator, Optional, Sequence, Tuple

from celery_redlock.core.ports import Leave
from celery_redlock.core.quorum import Tally, difference, quarantine
from celery_redlock.core.timing import LATE_MS
from celery_redlock.core.unpatched import is_patched
from celery_redlock.store.ballots import WITHDRAW, Ballots
from celery_redlock.store.mending import Mender, Undo
from celery_redlock.store.round import Pace, Round
from celery_redlock.store.voter import Voter
from celery_redlock.store.wire import Wire


class Electorate:
    """``longest_lease``: seconds; grows with what is asked for here. Thread-safe."""

    def __init__(
        self,
        voters: Sequence[Voter],
        mender: Mender,
        frames: Ballots,
        *,
        is_native: bool,
        longest_lease: float,
    ) -> None:
        self.voters = voters
        self.mender = mender
        self.frames = frames
        self.is_native = is_native
        self.longest_lease = longest_lease
        self._pace = Pace(may_stay_awake=is_native or not is_patched("select"))
        mender.attend(voters)

    def round(self) -> Round:
        return Round(self._pace, is_native=self.is_native)

    def tally(self) -> Tally[Any]:
        return Tally(len(self.voters))

    def take_voters(
        self, round_: Round, *, even_behind: bool = True
    ) -> Iterator[Tuple[Voter, Optional[Wire], str]]:
        """Of each server a connection if it votes, or why there is none."""
        wires = [(voter, round_.take(voter, even_behind=even_behind)) for voter in self.voters]
        quarantine = self._quarantine
        for voter, wire in wires:
            why = voter.why_not if wire is None else voter.abstains(quarantine)
            yield voter, None if why else wire, why

    def take_back(self, voter: Voter, request: Leave) -> None:
        """Withdraw tokens at a server in the background, until it has acknowledged that."""
        frame = self.frames.withdraw(request, request.tomb_ms or LATE_MS)
        key = (request.resource, *request.tokens)
        self.mender.take_back(voter, key, Undo(frame, WITHDRAW))

    def said(self, tally: Tally[Any]) -> str:
        """Which servers are missing, and how."""
        missing = sorted(tally.missing.items())
        which = ", ".join(f"{self.voters[number].name} ({why})" for number, why in missing)
        return f"{which or 'too late'}; {tally.majority} of {tally.servers} must answer"

    def after_fork(self) -> None:
        for voter in self.voters:
            voter.forget()
        self.mender.after_fork()

    @property
    def _quarantine(self) -> float:
        offsets = [voter.life.offset for voter in self.voters if voter.life is not None]
        return quarantine(self.longest_lease, difference(offsets))
