"""One event of each kind, each field with a value of its own."""

from __future__ import annotations

from typing import List

from celery_redlock.core import events
from celery_redlock.core.record import Record

OWNER = Record("web1", 71, 0.0, "owners-id", "shop.work", worker="celery@web1")
HOLDER = Record("web2", 4242, 0.0, "holders-id", "shop.other", worker="celery@web2")

SAMPLES: List[events.Event] = [
    events.Acquired("account:7", 12, OWNER, 0.25),
    events.Waiting("account:7", OWNER, 3, HOLDER),
    events.Conflicted("account:7", OWNER, HOLDER, "skip"),
    events.TimedOut("account:7", OWNER, HOLDER, 2.5),
    events.Released("account:7", 12, OWNER, 1.5),
    events.Abandoned("account:7", OWNER),
    events.Cleared("account:7", OWNER),
    events.RenewalFailed("account:7", OWNER, 4.5, "redis://host:1/0"),
    events.Unsure("account:7", OWNER),
    events.Recovered("account:7", OWNER),
    events.Reestablished("account:7", 12, OWNER),
    events.Lost("account:7", 12, OWNER, "granted to another"),
    events.Unavailable("account:7", OWNER, "redis://host:1/0", "fail"),
    events.Kept("account:7", OWNER, 10.5),
    events.Reclaimed("account:7", OWNER, HOLDER),
    events.Forced("account:7", "admin on web3", HOLDER),
    events.WatchdogFailed(ValueError("secret text")),
]
