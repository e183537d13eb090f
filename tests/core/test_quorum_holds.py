"""A hold of a majority that was another's in between never comes back.

Whoever holds is trusted at one time and at a later one only if nobody else was granted the resource
in between. Else it has to be told that it is lost; an older fence would otherwise go on, and nobody
would know.
"""

from __future__ import annotations

import os
import random
from typing import NamedTuple, Tuple

import pytest

from celery_redlock.store.claim import Trust
from tests.core.independent import LEASE, World

TURNS = 6


class When(NamedTuple):
    """In which turns something is so: from the first, before the last."""

    first: int = 0
    last: int = 0

    def __contains__(self, turn: object) -> bool:
        return isinstance(turn, int) and self.first <= turn < self.last


NEVER = When()
Times = Tuple[When, ...]


class Program(NamedTuple):
    """What happens. By server: when it is ``down``, when the holder's requests to it are ``held``
    up, and when its answers to it are (``mute``). In each turn the holder renews, or asks.

    ``pauses``: seconds before each turn. ``rival``: in these the other one asks, and holds.
    ``handed_over``: in this turn. ``patience``: for so many turns an answer is waited for.
    ``ahead``: of each server's clock, in seconds.
    """

    pauses: Tuple[float, ...]
    rival: When
    held: Times = (NEVER, NEVER, NEVER)
    mute: Times = (NEVER, NEVER, NEVER)
    down: Times = (NEVER, NEVER, NEVER)
    patience: int = TURNS
    ahead: Tuple[float, ...] = (0.0, 0.0, 0.0)
    handed_over: int = TURNS


def play(program: Program) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(program.ahead, program.patience, monkeypatch)
        turns = iter(range(TURNS))

        def go_on() -> bool:
            turn = next(turns, None)
            if turn is not None:
                _turn(world, program, turn)
            return turn is not None

        world.go_on = go_on
        while go_on():
            pass


def _turn(world: World, program: Program, turn: int) -> None:
    holder, rival = world.clients
    world.now += program.pauses[turn]
    for number, road in enumerate(holder.roads):
        road.is_held = turn in program.held[number]
        road.is_mute = turn in program.mute[number]
        if turn in program.down[number]:
            world.stop(number)
        else:
            world.servers[number].is_up = True
    if turn in program.rival:
        rival.go_on()
    else:
        rival.leave()
    for road in holder.roads:
        road.flow()
    holder.go_on()
    if turn == program.handed_over:
        holder.hand_over()
    holder.mend()


#: The third server is asked for its vote with the others, and gives it after the rival's hold. The
#: second is down when the hold is renewed, and so the first alone keeps it for longer.
LATE_VOTE = Program(
    pauses=(0, 5, 5, 1, 0, 0),
    rival=When(2, 3),
    held=(NEVER, NEVER, When(0, 3)),
    down=(NEVER, When(1, 2), NEVER),
)

#: What another process holds by now. The clock of the server that votes late is behind by more than
#: a lease: the fence that it gives is less than that of the hold, as if it had been given before.
BEHIND = LATE_VOTE._replace(handed_over=0, ahead=(0.0, 0.0, -2 * LEASE))


@pytest.mark.parametrize("program", [LATE_VOTE, BEHIND], ids=["late vote", "clock behind"])
def test_a_vote_that_is_given_after_a_rivals_hold_brings_no_older_one_back(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(program)
    monkeypatch.setattr(Trust, "doubts", lambda trust, server: False)
    with pytest.raises(AssertionError, match="another had one since"):
        play(program)


@pytest.mark.parametrize("seed", [1, int(os.environ["REDLOCK_TEST_SEED"])], ids="seed-{}".format)
def test_whatever_is_late_or_lost_nobody_trusts_again_what_another_had(seed: int) -> None:
    choose = random.Random(seed)
    for _ in range(3000):
        program = _random(choose)
        try:
            play(program)
        except AssertionError as error:
            raise AssertionError(f"{error}: {program}") from error


def _random(choose: random.Random) -> Program:
    def times(likely: float) -> Times:
        return tuple(when() if choose.random() < likely else NEVER for _ in range(3))

    def when() -> When:
        first = choose.randrange(4)
        return When(first, first + choose.randint(1, 4))

    comes = choose.randint(1, 4)
    return Program(
        pauses=tuple(choose.choice([0.0, 3.0, 5.0]) for _ in range(TURNS)),
        rival=When(comes, comes + choose.choice([1, 1, 2])),
        held=times(0.7),
        mute=times(0.2),
        down=times(0.3),
        patience=choose.choice([0, 1, 2, TURNS]),
        ahead=tuple(choose.choice([0.0, 0.0, -2 * LEASE, 2 * LEASE]) for _ in range(3)),
        handed_over=choose.choice([0, 1, TURNS, TURNS]),
    )
