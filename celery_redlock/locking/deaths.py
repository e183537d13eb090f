"""Deaths of other processes, seen by one thread as they happen.

A pidfd names one process for ever, whoever is given its pid later, and becomes readable when the
last thread of that process has ended: before that nothing of it is over, whatever it was sent.
Where there is none (before Python 3.9, on other systems, in some sandboxes) the thread looks again
and again, as a proof of death does, for as long as somebody says that it matters.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from typing import Any, Callable, Optional, Set

from celery_redlock.core import unpatched
from celery_redlock.locking import identity, native, process, proof

_open_pidfd: Optional[Callable[[int], int]] = getattr(os, "pidfd_open", None)

#: Seconds between two looks at processes that do not tell of their end.
_LOOK_AGAIN = 0.02


class Watched:
    """The process that has this pid now, until it has ended and after."""

    __slots__ = ("__weakref__", "_fd", "_has_ended", "_mutex", "_started", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._mutex = native.mutex()
        self._has_ended = False
        self._fd: Optional[int] = None
        self._started: Optional[int] = None
        if _open_pidfd is not None:
            try:
                self._fd = _open_pidfd(pid)
                return
            except ProcessLookupError:
                self._has_ended = True
                return
            except OSError:
                pass  # none to be had here, or too many open files
        self._started = identity.started(pid)

    @property
    def fd(self) -> Optional[int]:
        """What becomes readable when it ends; None where it has to be looked at."""
        return self._fd

    def has_ended(self) -> bool:
        """Whether it has certainly ended. Quick; asked from any thread."""
        with self._mutex:  # or another file might be given the number of the pidfd meanwhile
            if not self._has_ended:
                self._has_ended = self._look()
            return self._has_ended

    @property
    def is_known_to_have_ended(self) -> bool:
        """As far as was seen so far: asks nobody."""
        return self._has_ended

    def is_ending(self) -> bool:
        """Whether it has ended or is about to, as far as can be seen."""
        if self.has_ended():
            return True
        sight = identity.look_at(self.pid)
        return sight is not None and sight.is_ending

    def _look(self) -> bool:
        if self._fd is None:
            return proof.has_ended(self.pid, self._started)
        poll = _poller()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        with self._mutex:
            self.drop()

    def drop(self) -> None:
        """As ``close``, in a forked child: a thread of the parent may have held the mutex."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):
                os.close(fd)


class Deaths:
    """Tells ``on_death`` once of each watched process that has ended, from its own thread.

    ``on_death`` must be quick and raise nothing. ``matters`` says of which process the end is
    looked for where that costs something. A forked child starts with nobody watched.
    """

    def __init__(
        self, on_death: Callable[[Watched], None], matters: Callable[[Watched], bool]
    ) -> None:
        self._on_death = on_death
        self._matters = matters
        self._living: Set[Watched] = set()
        self._ear: Optional[int] = None
        self._bell = -1
        self.after_fork()
        process.join(self)

    def after_fork(self) -> None:
        for watched in self._living:
            watched.drop()
        if self._ear is not None:
            os.close(self._ear)
            os.close(self._bell)
        self._living = set()
        self._ear = None
        self._mutex = native.mutex()

    def watch(self, pid: int) -> Watched:
        """Watch the process that has this pid now. Never blocks."""
        watched = Watched(pid)
        self._living.add(watched)
        self.look()
        return watched

    def look(self) -> None:
        """Look at everybody at once, and at those that matter from now on."""
        with self._mutex:
            if self._ear is not None or self._has_started():
                os.write(self._bell, b"!")

    def _has_started(self) -> bool:
        """Start the thread. As many threads as may be: the next look tries again."""
        self._ear, self._bell = os.pipe()
        try:
            native.start_thread(self._run)
            return True
        except RuntimeError:
            os.close(self._ear)
            os.close(self._bell)
            self._ear = None
            return False

    def _run(self) -> None:
        while True:
            self._wait()
            for watched in list(self._living):
                if watched.has_ended():
                    self._living.discard(watched)
                    watched.close()
                    self._on_death(watched)

    def _wait(self) -> None:
        """Until somebody rings, a pidfd tells or it is time to look again."""
        assert self._ear is not None
        poll, timeout = _poller(), None
        poll.register(self._ear, select.POLLIN)
        for watched in list(self._living):
            fd = watched.fd
            if fd is not None:
                poll.register(fd, select.POLLIN)
            elif self._matters(watched):
                timeout = _LOOK_AGAIN * 1000
        rung = any(fd == self._ear for fd, _event in poll.poll(timeout))
        if rung:
            os.read(self._ear, 4096)


def _poller() -> Any:
    # Looked up when it is used: eventlet takes it out of its module.
    return unpatched.original("select", "poll")()
