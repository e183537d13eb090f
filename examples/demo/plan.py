"""What the demo publishes: the same tasks in every run, with locks and without."""

from __future__ import annotations

import random
from typing import List, NamedTuple, Tuple

#: How many tasks want the same account; with this many all at once, most have to wait.
ACCOUNTS = {1: 17, 2: 15, 3: 13, 4: 11}
INVOICES = (101, 102, 103, 104)

#: Seconds that a body takes.
SHORTEST, LONGEST = 0.030, 0.150

#: Tasks are published in bursts: so many, then a pause in seconds.
BURST, PAUSE = 20, 0.5


class Job(NamedTuple):
    """One call to publish, ``at`` seconds after the first; ``number`` is its place among them."""

    number: int
    task: str
    key: int
    seconds: float
    at: float

    @property
    def resource(self) -> str:
        return f"{_THING[self.task]}:{self.key}"


_THING = {"sync_account": "account", "print_invoice": "invoice"}


def jobs() -> List[Job]:
    """All calls, in the order of publishing."""
    wanted: List[Tuple[str, int]] = [("print_invoice", invoice) for invoice in INVOICES]
    for account, count in ACCOUNTS.items():
        wanted += [("sync_account", account)] * count
    chance = random.Random(4)
    chance.shuffle(wanted)
    return [
        Job(number, task, key, chance.uniform(SHORTEST, LONGEST), at=(number - 1) // BURST * PAUSE)
        for number, (task, key) in enumerate(wanted, 1)
    ]
