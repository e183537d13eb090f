"""The inbox of a process at several servers: hints that it may be its turn.

A release reaches the servers one after the other, and each hints to whoever has waited longest
there. A hint is passed on when a majority gave it, or a moment later: asking at once would find the
rest of the servers not yet released. What the others say of it then is the same hint, and no reason
to ask once more. One that is lost costs time: every waiter also asks by itself.
"""

from __future__ import annotations

import select
import time
from typing import Dict, NamedTuple, Optional, Sequence, Set

from celery_redlock.core.ports import NoAnswer
from celery_redlock.core.quorum import majority_of
from celery_redlock.store.inbox import Inbox
from celery_redlock.store.round import poller
from celery_redlock.store.voter import Voter

#: Seconds for which a hint is kept back for those of the other servers.
_GATHER = 0.02

#: Seconds in which the other servers' hints come, after those of a majority.
_LATE = 1.0

#: Seconds between two tries to hear a server again.
_RETRY = 1.0


class Hint(NamedTuple):
    """``since`` when, and which servers gave it."""

    since: float
    given_by: Set[Voter]


class Hints:
    """A ``Subscription``. Raises NoAnswer when no server can be heard."""

    def __init__(self, voters: Sequence[Voter], channel: str, is_native: bool) -> None:
        self._voters = voters
        self._channel = channel
        self._is_native = is_native
        self._inboxes: Dict[Voter, Inbox] = {}
        self._retry_at = 0.0
        self._hints: Dict[str, Hint] = {}
        #: Those that were passed on because a majority gave them.
        self._passed_on: Dict[str, Hint] = {}
        self._open()
        self._check()

    def get(self, timeout: float) -> Optional[str]:
        until = time.monotonic() + timeout
        while True:
            self._open()
            self._drain()
            self._check()
            message = self._gathered()
            left = until - time.monotonic()
            if message is not None or left <= 0:
                return message
            self._await(min(left, _GATHER if self._hints else _RETRY))

    def close(self) -> None:
        for inbox in self._inboxes.values():
            inbox.close()
        self._inboxes.clear()

    def _open(self) -> None:
        if len(self._inboxes) == len(self._voters) or time.monotonic() < self._retry_at:
            return
        self._retry_at = time.monotonic() + _RETRY
        for voter in self._voters:
            if voter not in self._inboxes and not voter.out:
                try:
                    self._inboxes[voter] = voter.inbox(self._channel)
                except NoAnswer:
                    continue

    def _check(self) -> None:
        if not self._inboxes:
            raise NoAnswer(", ".join(f"{voter.name} ({voter.why_not})" for voter in self._voters))

    def _drain(self) -> None:
        for voter, inbox in list(self._inboxes.items()):
            try:
                message = inbox.get(0)
                while message is not None:
                    self._note(message, voter)
                    message = inbox.get(0)
            except NoAnswer:
                del self._inboxes[voter]
                inbox.close()

    def _note(self, message: str, voter: Voter) -> None:
        now = time.monotonic()
        known = self._passed_on.get(message)
        if known and voter not in known.given_by and now - known.since < _LATE:
            known.given_by.add(voter)
            return
        self._passed_on.pop(message, None)  # it is its turn once more
        self._hints.setdefault(message, Hint(now, set())).given_by.add(voter)

    def _gathered(self) -> Optional[str]:
        now, needed = time.monotonic(), majority_of(len(self._voters))
        for message, hint in self._hints.items():
            has_majority = len(hint.given_by) >= needed
            if has_majority or now - hint.since >= _GATHER:
                del self._hints[message]
                self._forget_late(now)
                if has_majority:
                    self._passed_on[message] = hint
                return message
        return None

    def _forget_late(self, now: float) -> None:
        late = [message for message, hint in self._passed_on.items() if now - hint.since > _LATE]
        for message in late:
            del self._passed_on[message]

    def _await(self, timeout: float) -> None:
        poll = poller(self._is_native)
        for inbox in self._inboxes.values():
            poll.register(inbox.fileno(), select.POLLIN)
        poll.poll(timeout * 1000)
