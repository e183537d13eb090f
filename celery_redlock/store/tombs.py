"""What a resource's tombstones tell: who was released by force, and when."""

from __future__ import annotations

from typing import Iterable, Optional, Tuple

from celery_redlock.core.ports import ForcedView
from celery_redlock.core.timing import LATE_MS
from celery_redlock.core.why import who_forced


def latest_forced(tombs: Iterable[Tuple[int, str]]) -> Optional[ForcedView]:
    """The latest release by force among tombstones, each with the ms it stands for and its why.

    They are taken to have been made for LATE_MS, as the manager makes them.
    """
    forced = [(left_ms, who_forced(why)) for left_ms, why in tombs]
    standing = [(left_ms, by) for left_ms, by in forced if by is not None and left_ms > 0]
    if not standing:
        return None
    left_ms, by = max(standing)
    return ForcedView(by, max(0, LATE_MS - left_ms))
