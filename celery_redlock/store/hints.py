"""The inbox of a process at several servers: hints that it may be its turn.

A release reaches the servers one after the other, and each hints to whoever has waited longest
there. A hint is passed on when a majority gave it, or a moment later: asking at once would find the
rest of the servers not yet released. One that is lost costs time: every waiter also asks by itself.
"""

from __future__ import annotations

import select
import time
from typing import Dict, Optional, Sequence

from celery_redlock.core.ports import NoAnswer
from celery_redlock.core.quorum import majority_of
from celery_redlock.store.round import poller
from celery_redlock.store.single import Inbox
from celery_redlock.store.voter import Voter

#: Seconds for which a hint is kept back for those of the other servers.
_GATHER = 0.02

#: Seconds between two tries to hear a server again.
_RETRY = 1.0


class Hints:
    """A ``Subscription``. Raises NoAnswer when no server can be heard."""

    def __init__(self, voters: Sequence[Voter], channel: str, is_native: bool) -> None:
        self._voters = voters
        self._channel = channel
        self._is_native = is_native
        self._inboxes: Dict[Voter, Inbox] = {}
        self._retry_at = 0.0
        self._first: Dict[str, float] = {}
        self._times: Dict[str, int] = {}
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
            self._await(min(left, _GATHER if self._first else _RETRY))

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
                    self._first.setdefault(message, time.monotonic())
                    self._times[message] = self._times.get(message, 0) + 1
                    message = inbox.get(0)
            except NoAnswer:
                del self._inboxes[voter]
                inbox.close()

    def _gathered(self) -> Optional[str]:
        now, needed = time.monotonic(), majority_of(len(self._voters))
        for message, first in self._first.items():
            if self._times[message] >= needed or now - first >= _GATHER:
                del self._first[message], self._times[message]
                return message
        return None

    def _await(self, timeout: float) -> None:
        poll = poller(self._is_native)
        for inbox in self._inboxes.values():
            poll.register(inbox.fileno(), select.POLLIN)
        poll.poll(timeout * 1000)
