"""Faults that are chosen to provoke one failure each, where a random plan rarely does.

A sabotaged run must show that failure: ``NOTICED`` says in which of them.
"""

from __future__ import annotations

from typing import Any, Dict, List

from tests.stress.faults.app import LONGEST_STAY
from tests.stress.faults.plan import LEASE, RESOURCES, Fault, Plan, Variant
from tests.stress.faults.turns import DEATHS, ENDS, LOCKS, MEAN, ORDER

PREFORK = Variant("prefork", "redis", False)
THREADS = Variant("threads", "redis", False)

SECONDS = 10.0


def _every(seconds: float, fault: Fault) -> List[Fault]:
    times = int(SECONDS / seconds)
    return [fault._replace(at=round(1 + seconds * each, 2), pick=each) for each in range(times)]


def _plan(variant: Variant, *faults: List[Fault], **load: Any) -> Plan:
    in_order = sorted(fault for some in faults for fault in some)
    return Plan(0, variant, SECONDS, tuple(in_order), **load)


def _cut(script: str, point: str, late_by: float, times: int = 3) -> Fault:
    return Fault(0, "cut script calls", late_by, 0, script, point, times)


#: A few places that many wait for: whoever waits has a slot when it is his turn.
IN_LINE: Dict[str, Any] = {"resources": 2, "pairs": 0.0, "usual": (0.2, 0.4), "long_share": 0.0}

PROVOCATIONS: Dict[str, Plan] = {
    # No fault at all.
    "calm": _plan(PREFORK),
    "calm-threads": _plan(THREADS),
    # A copy of a release comes when the place is another's.
    "late releases": _plan(PREFORK, _every(0.3, _cut("leave", "twice", 0.15))),
    # Answers to an ask are late and nobody can renew: the lease counts from before they were asked.
    "slow answers": _plan(
        PREFORK,
        _every(0.4, _cut("acquire", "slow", 0.8)),
        _every(0.4, _cut("renew", "before", 0.0, times=9)),
        _every(0.4, _cut("reestablish", "before", 0.0, times=9)),
        long_share=0.6,
    ),
    # Bodies that have lost their lock when they go on, with time left.
    "losses": _plan(
        PREFORK,
        _every(0.9, Fault(0, "stop a body's process beyond the lease", 1.4 * LEASE)),
        long_share=0.9,
        longest=7 * LEASE,
    ),
    # Bodies that are stopped as they begin, for a small part of their lease.
    "short stops": _plan(PREFORK, task="halt", lease=15.0, **{**IN_LINE, "usual": (0.01, 0.03)}),
    # Outages in which nobody is overtaken.
    "doubts": _plan(
        PREFORK,
        _every(5.0, Fault(0, "stop the server beyond the lease", 1.2 * LEASE)),
        long_share=0.6,
    ),
    # Lines, and no fault. What a waiter does by itself it does every five seconds.
    "lines": _plan(PREFORK, judged=(ENDS, ORDER), lease=15.0, **IN_LINE),
    # A place that becomes free when nobody is there to free it, and one who takes what he finds.
    # Whatever is stopped, there are slots for who comes next: else he is passed over.
    "pushing in": _plan(
        PREFORK,
        [Fault(0.5, "push in", SECONDS)],
        _every(2.5, Fault(0, "stop a running body", 1.15 * LEASE)),
        judged=(ORDER,),
        **{**IN_LINE, "resources": 1},
    ),
    # Nobody but its parent sees that a process has died.
    "deaths": _plan(
        PREFORK,
        _every(0.4, Fault(0, "kill a running body")),
        judged=(DEATHS,),
        is_apart=True,
        **IN_LINE,
    ),
    # Children that are forked from a parent that is at work.
    "forks": _plan(
        PREFORK, _every(1.0, Fault(0, "kill a running body")), long_share=0.6, longest=2.5 * LEASE
    ),
    # Bodies that forget a Lock, and whose threads want their locks.
    "strays": _plan(PREFORK, task="stray"),
    "strays-threads": _plan(THREADS, task="stray"),
    # No release is heard of; a Lock that is released is taken again.
    "lost releases": _plan(
        PREFORK,
        [_cut("leave", "before", 0.0, times=10**6)._replace(at=0.5)],
        task="repeat",
        judged=(LOCKS,),
    ),
    # Locks are lost after the bodies, while what these have forgotten is released.
    "late losses": _plan(
        PREFORK,
        [_cut("leave", "slow", 2 * LONGEST_STAY, times=10**6)._replace(at=0.0)],
        task="linger",
        **{**IN_LINE, "resources": RESOURCES},
    ),
    # Of many asks a copy comes when what they have asked for is over.
    "late asks": _plan(
        PREFORK,
        _every(0.05, _cut("acquire", "twice", 2.0, times=1)),
        judged=(MEAN,),
        **IN_LINE,
    ),
}

#: Which of them shows what a sabotage breaks.
NOTICED = {
    "context-shared": "strays-threads",
    "death-not-proved": "calm",
    "death-unnoticed": "deaths",
    "doubt-taken-for-loss": "doubts",
    "fence-reset": "calm",
    "fork-not-reset": "forks",
    "grant-not-secured": "short stops",
    "hold-shared-by-threads": "strays",
    "interrupt-unguarded": "late losses",
    "interruption-off": "losses",
    "line-skipped": "pushing in",
    "lock-left-behind": "strays",
    "orphans-forgotten": "lost releases",
    "release-before-death": "calm",
    "renewal-after-release": "calm",
    "renewal-off": "calm",
    "token-not-compared": "late releases",
    "tombstone-forgotten": "late asks",
    "trust-from-after-the-request": "slow answers",
    "wake-up-lost": "lines",
}
