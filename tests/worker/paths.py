"""What the tests of the ways in to a body ask of each."""

from __future__ import annotations

from typing import Any, List

from tests.harness.locked_shop import LockedShop

SOON = 20.0


def get(result: Any) -> Any:
    return result.get(timeout=SOON, interval=0.02)


def assert_ran_locked(shop: LockedShop, account: str, bodies: int = 1) -> List[Any]:
    """So many bodies ran, each with its fence, one after the other, and the account is free."""
    ran = shop.bodies_of(account)
    assert len(ran) == bodies
    fences = [body.fence for body in ran]
    assert fences == sorted(set(fences))
    assert shop.overlaps_of(account) == []
    assert shop.locks.is_free(account)
    return ran
