"""What one fault run does, as data drawn from a seed: a site, and faults with their moments.

The same seed draws the same plan. What the processes make of it depends on the machine, so a run
that failed is told by its plan and by what really happened, never by the seed alone.
"""

from __future__ import annotations

import random
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from tests.harness.proxy import POINTS

#: The lease of every task, in seconds; the restart grace covers it.
LEASE = 2.0

RESOURCES = 5

POOLS = ("prefork", "threads", "gevent")
BROKERS = ("redis", "rabbitmq")

SCRIPTS = ("acquire", "acquire_all", "leave", "renew", "heartbeat", "reestablish")

#: Seconds between two faults.
PAUSE = (0.2, 1.0)


class Variant(NamedTuple):
    pool: str
    broker: str
    acks_late: bool

    @property
    def gives_back(self) -> bool:
        """Whether what a killed worker had not acknowledged is delivered again.

        On Redis kombu looks for it in the event loop, which gevent does not have: none of the
        workers that live on gives it back, without locks neither.
        """
        return (self.pool, self.broker) != ("gevent", "redis")

    def __str__(self) -> str:
        return f"{self.pool}-{self.broker}-{'late' if self.acks_late else 'early'}-ack"


class Fault(NamedTuple):
    """One fault: ``at`` seconds after the start, for ``seconds`` where it lasts.

    ``pick`` chooses among what is there at that moment; ``script``, ``point`` and ``times`` are for
    the cuts of script calls.
    """

    at: float
    kind: str
    seconds: float = 0.0
    pick: int = 0
    script: str = ""
    point: str = ""
    times: int = 0


class Plan(NamedTuple):
    seed: int
    variant: Variant
    seconds: float
    faults: Sequence[Fault]
    #: How many of its tasks run for several leases, and how long: what is not renewed is lost in
    #: them.
    long_share: float = 0.1
    longest: float = 2.5 * LEASE
    #: The usual ones run for so long.
    usual: Tuple[float, float] = (0.01, 0.4)
    task: str = "strike"
    #: How many of them want two resources, of so many.
    pairs: float = 0.2
    resources: int = RESOURCES
    lease: float = LEASE
    #: Whether no process can prove the death of another, as on hosts apart; a parent sees its own.
    is_apart: bool = False
    #: What of ``turns`` is judged.
    judged: Tuple[str, ...] = ()

    def __str__(self) -> str:
        told = "\n".join(f"  {_told(fault)}" for fault in self.faults)
        return f"seed {self.seed}, {self.variant}, {self.seconds:g} s:\n{told}"


def draw(
    seed: int,
    seconds: float,
    variant: Optional[Variant] = None,
    kinds: Optional[Sequence[str]] = None,
) -> Plan:
    """The plan of this seed; of every kind of fault at least one, if there is time for it.

    Of all ``kinds`` where none are named.
    """
    choose = random.Random(seed)
    drawn = Variant(choose.choice(POOLS), choose.choice(BROKERS), choose.random() < 0.5)
    variant = variant or drawn
    faults: List[Fault] = []
    deck: List[str] = []
    at = 0.5
    while at < seconds:
        if not deck:
            drawn_from = [kind for kind in kinds or KINDS if _is_on(kind, variant)]
            deck = [kind for kind in drawn_from for _ in _cards_of(kind)]
            choose.shuffle(deck)
        kind = deck.pop()
        faults.append(KINDS[kind](choose)._replace(at=round(at, 2), kind=kind))
        at += choose.uniform(*PAUSE)
    return Plan(seed, variant, seconds, tuple(faults))


def _is_on(kind: str, variant: Variant) -> bool:
    # Elsewhere the bodies are in the worker's one process: what befalls it, befalls them.
    return variant.pool == "prefork" or kind not in OF_PREFORK


def _cards_of(kind: str) -> range:
    return range(CARDS.get(kind, 1))


def _told(fault: Fault) -> str:
    parts = [f"{fault.at:6.2f} {fault.kind}"]
    parts += [f"for {fault.seconds:.2f} s"] if fault.seconds else []
    parts += [f"{fault.script} {fault.point}, {fault.times}x"] if fault.script else []
    return " ".join(parts)


def _at_once(choose: random.Random) -> Fault:
    return Fault(0, "", pick=choose.randrange(1000))


def _lasting(shortest: float, longest: float) -> Callable[[random.Random], Fault]:
    def fault(choose: random.Random) -> Fault:
        return _at_once(choose)._replace(seconds=round(choose.uniform(shortest, longest), 2))

    return fault


def _cut(choose: random.Random) -> Fault:
    return _lasting(0.1, 2 * LEASE)(choose)._replace(
        script=choose.choice(SCRIPTS), point=choose.choice(POINTS), times=choose.randint(1, 3)
    )


_below = _lasting(0.1, 0.6 * LEASE)
_beyond = _lasting(1.2 * LEASE, 2 * LEASE)

#: Where bodies have processes of their own.
OF_PREFORK = ("kill a child", "stop a parent", "stop a worker")

#: How each kind of fault is drawn.
KINDS: Dict[str, Callable[[random.Random], Fault]] = {
    "kill a child": _at_once,
    "kill a worker": _at_once,
    "stop a body's process below the lease": _below,
    "stop a body's process beyond the lease": _beyond,
    "stop a parent": _lasting(0.5, 1.5 * LEASE),
    "stop a worker": _lasting(0.5, 1.5 * LEASE),
    "stop the server below the lease": _below,
    "stop the server beyond the lease": _lasting(1.1 * LEASE, 1.4 * LEASE),
    "end the server, start it empty": _lasting(0.0, 0.6 * LEASE),
    "kill the server, start it empty": _lasting(0.0, 0.6 * LEASE),
    "cut script calls": _cut,
    "cut lock connections": _at_once,
    "cut subscribers": _at_once,
    "cut broker connections": _at_once,
}

#: How often a kind is in the deck that is dealt from, where that is not once.
CARDS = {"cut script calls": 6, "kill a child": 2, "stop a body's process beyond the lease": 2}
