"""Which life of a process this is: a forked child begins another one.

Everything that belongs to one life (holds, threads, inboxes) carries its number; what carries
another number is its parent's and is neither used nor released.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Reborn(Protocol):
    def after_fork(self) -> None:
        """Forget the parent's. Runs in the child before anything else: no I/O, no mutex."""


_life = 0
_members: WeakSet[Reborn] = WeakSet()


def life() -> int:
    return _life


def join(member: Reborn) -> None:
    """Tell ``member`` after each fork of this process, in the child."""
    _members.add(member)


def _after_fork_in_child() -> None:
    global _life
    _life += 1
    for member in list(_members):
        member.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
