"""Faults that are chosen to provoke one failure each, where a random plan rarely does.

A sabotaged run must show that failure: ``NOTICED`` says in which of them.
"""

from __future__ import annotations

from typing import Dict, List

from tests.stress.faults.plan import LEASE, Fault, Plan, Variant

PREFORK = Variant("prefork", "redis", False)
THREADS = Variant("threads", "redis", False)

SECONDS = 10.0


def _every(seconds: float, fault: Fault) -> List[Fault]:
    times = int(SECONDS / seconds)
    return [fault._replace(at=round(1 + seconds * each, 2), pick=each) for each in range(times)]


def _plan(variant: Variant, *faults: List[Fault], **load: float) -> Plan:
    in_order = sorted(fault for some in faults for fault in some)
    return Plan(0, variant, SECONDS, tuple(in_order), **load)


def _cut(script: str, point: str, late_by: float, times: int = 3) -> Fault:
    return Fault(0, "cut script calls", late_by, 0, script, point, times)


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
        long_share=0.7,
        longest=4.5 * LEASE,
    ),
    # Outages in which nobody is overtaken.
    "doubts": _plan(
        PREFORK,
        _every(5.0, Fault(0, "stop the server beyond the lease", 1.2 * LEASE)),
        long_share=0.6,
    ),
}

#: Which of them shows what a sabotage breaks.
NOTICED = {
    "context-shared": "calm-threads",
    "death-not-proved": "calm",
    "doubt-taken-for-loss": "doubts",
    "fence-reset": "calm",
    "interruption-off": "losses",
    "release-before-death": "calm",
    "renewal-after-release": "calm",
    "renewal-off": "calm",
    "token-not-compared": "late releases",
    "trust-from-after-the-request": "slow answers",
}
