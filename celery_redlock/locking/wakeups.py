"""Wake-ups: one thread a process that hears the lock server say "yours" and wakes that waiter.

It runs while somebody waits. A message lost with its connection costs time, not the lock: as soon
as the inbox is open again every waiter is asked about.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from typing import Callable, Deque, Dict

from celery_redlock.core.ports import Message, NoAnswer, Store, Subscription
from celery_redlock.locking import native
from celery_redlock.locking.hold import Hold

#: Seconds after its last waiter that the inbox stays open.
_LINGER = 10.0

#: So many messages are remembered for waiters that are only about to expect theirs.
_HEARD = 256

_POLL = 2.5
_RECONNECT = 0.2


class Wakeups:
    """The inbox of this process. Waking is a set of the waiter's own signal and never blocks.

    ``on_open`` is called each time the inbox has been opened, and told whether it had broken;
    ``on_head`` with each waiter that is first in its line from now on. Fork: see ``after_fork``.
    """

    def __init__(
        self,
        store: Store,
        on_open: Callable[[bool], None],
        on_head: Callable[[Hold], None] = lambda hold: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._on_open = on_open
        self._on_head = on_head
        self._clock = clock
        self.after_fork()

    def after_fork(self) -> None:
        self.inbox = secrets.token_hex(8)
        self._waiters: Dict[str, Hold] = {}
        self._heard: Deque[Message] = deque(maxlen=_HEARD)
        self._needed = native.Signal()
        self._starting = native.mutex()

    def stop(self) -> None:
        """Forget everything and end the thread, soon; the next waiter starts it again."""
        needed = self._needed
        self.after_fork()
        needed.set()

    def expect(self, hold: Hold) -> None:
        """Wake this waiter when the server grants it, or drops it from the line."""
        self._waiters[hold.token] = hold
        # A release may grant it before its asker has read that it stands in line.
        for message in list(self._heard):
            if message.token == hold.token:
                self._tell(hold, message)
        if self._starting.locked():
            self._needed.set()
        else:
            native.start_thread(self._run)

    def forget(self, hold: Hold) -> None:
        self._waiters.pop(hold.token, None)

    @property
    def is_idle(self) -> bool:
        return not self._waiters

    def _run(self) -> None:
        # Taken by the thread, for as long as it lives: see the watchdog's.
        if not self._starting.acquire(False):
            return
        needed, broke = self._needed, False
        while needed is self._needed:
            if not self._waiters:
                needed.wait(3600.0)
                continue
            try:
                subscription = self._store.subscribe(self.inbox)
                was_broken, broke = broke, False
                self._listen(subscription, needed, was_broken)
            except NoAnswer:
                # The watchdog's heartbeats carry the waiters until the server is back.
                broke = True
                native.sleep(_RECONNECT)

    def _listen(self, subscription: Subscription, needed: native.Signal, was_broken: bool) -> None:
        try:
            self._on_open(was_broken)
            idle_since = time.monotonic()
            while needed is self._needed:
                if not self._waiters and time.monotonic() - idle_since >= _LINGER:
                    return
                message = subscription.get(_POLL)
                if message is not None:
                    self.hear(message)
                if self._waiters:
                    idle_since = time.monotonic()
        finally:
            subscription.close()

    def hear(self, text: str) -> None:
        """Tell whom a message of the inbox is about."""
        message = Message.read(text)
        # Before looking for the waiter: expect() does both the other way round.
        self._heard.append(message)
        hold = self._waiters.get(message.token)
        if hold is not None:
            self._tell(hold, message)

    def _tell(self, hold: Hold, message: Message) -> None:
        if message.kind == "H":
            self._on_head(hold)
            return
        hold.hear(message, self._clock())
