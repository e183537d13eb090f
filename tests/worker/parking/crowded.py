"""Crowds of tasks that wait for few resources: who starts before whom, and what is left of them."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple

from tests.harness.locked_shop import LockedShop, eventually

#: More than any test has waiting: none goes round by the queue.
PARKED = {"redlock_max_parked": 2000}

SOON = 60.0


class Line:
    """The order in which the server has put tasks in line, learnt by looking at it."""

    def __init__(self, shop: LockedShop, account: str) -> None:
        self._shop = shop
        self._account = account
        self._seqs: Dict[str, int] = {}

    def look(self) -> List[str]:
        """Who stands there now, the head first."""
        places = self._shop.locks.places(self._account)
        self._seqs.update(places)
        return sorted(places, key=lambda task_id: places[task_id])

    def wait_for(self, count: int) -> List[str]:
        assert eventually(lambda: len(self.look()) == count, SOON), len(self.look())
        return self.look()

    @property
    def seen(self) -> List[str]:
        """All that were seen in line, in its order."""
        return sorted(self._seqs, key=lambda task_id: self._seqs[task_id])


def ran(shop: LockedShop, account: str) -> List[Any]:
    """Whose bodies ran, in the order of their starts."""
    return [body.task_id for body in shop.bodies_of(account)]


def out_of_order(ran: Sequence[Any], line: Sequence[str]) -> List[Tuple[int, int]]:
    """Of those that stood in line, who started before one ahead of him: their places there."""
    places = {task_id: place for place, task_id in enumerate(line)}
    started = [places[task_id] for task_id in ran if task_id in places]
    return [(a, b) for a, b in zip(started, started[1:]) if a > b]


def send_all(shop: LockedShop, accounts: Sequence[str], count: int) -> List[Any]:
    """Publish so many, taking turns among the accounts."""
    return [shop.send("work", accounts[number % len(accounts)]) for number in range(count)]


def are_done(results: Sequence[Any]) -> bool:
    return all(result.ready() for result in results)
