"""Sabotage: break one thing, and see that its suite notices.

``pytest --sabotage=NAME`` runs with one thing broken, in this process and in the workers it starts.
``python -m tests.sabotage [NAME…]`` runs for each the tests that guard against it, and fails unless
they fail: a test that cannot fail guards nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, NamedTuple, Sequence, Set, Tuple

VARIABLE = "REDLOCK_TEST_SABOTAGE"

UNNOTICED = "NOT CAUGHT"


_applied: Set[str] = set()


class Sabotage(NamedTuple):
    """What it breaks, which guarantee that attacks and which tests must fail under it."""

    breaks: str
    guarantee: str
    suite: Tuple[str, ...]
    apply: Callable[[], None]


def apply(name: str) -> None:
    """Break this process."""
    if name not in SABOTAGES:
        raise SystemExit(f"no sabotage {name!r}; there are: {', '.join(sorted(SABOTAGES))}")
    if name not in _applied:
        _applied.add(name)
        SABOTAGES[name].apply()


def apply_from_environment() -> None:
    """Break a worker that a sabotaged test run has started."""
    name = os.environ.get(VARIABLE)
    if name:
        apply(name)


def _rewrite(script: str, *changes: Tuple[str, str]) -> None:
    from celery_redlock.store import frames, scripts

    known = getattr(frames, script.upper())
    text = known.text
    for old, new in changes:
        assert old in text, f"{script}.lua has changed: {old!r} is not in it"
        text = text.replace(old, new)
    known.text = text
    known.sha = scripts._sha1(text.encode())
    known._evalsha = scripts.bulk("EVALSHA", known.sha)


def _rewrite_all(*changes: Tuple[str, str]) -> None:
    """Change what every script includes."""
    for script in ("acquire", "acquire_all", "leave", "heartbeat", "reestablish"):
        _rewrite(script, *changes)


def _token_not_compared() -> None:
    _rewrite(
        "leave",
        (
            "left = call('HDEL', KEYS[1], 'h:' .. ARGV[5])",
            "left = 0 for _, field in ipairs(call('HKEYS', KEYS[1])) do "
            "if string.sub(field, 1, 2) == 'h:' then "
            "left = call('HDEL', KEYS[1], field) end end",
        ),
    )


def _renewal_off() -> None:
    from celery_redlock.locking.watchdog import Watchdog

    def renew(self: Watchdog, holds: Sequence[Any]) -> None:
        for hold in holds:
            hold.due = self._clock() + hold.lease

    Watchdog._renew = renew  # type: ignore[method-assign, assignment]


def _renewal_after_release() -> None:
    from celery_redlock.locking.watchdog import Watchdog

    def forget(self: Watchdog, hold: Any) -> None:
        self._waiting.pop(hold.token, None)

    def may_live(self: Watchdog, hold: Any) -> bool:
        return True

    def renewed(self: Watchdog, hold: Any, sent_at: float, move: Any) -> None:
        hold.due = sent_at + hold.lease / 3

    Watchdog.forget = forget  # type: ignore[method-assign]
    Watchdog._may_live = may_live  # type: ignore[method-assign]
    Watchdog._renewed = renewed  # type: ignore[method-assign]


def _wake_up_lost() -> None:
    _rewrite_all(
        ("call('PUBLISH', inbox, fmt('G %s %.0f %.0f', head, fence, now))", "local _ = inbox")
    )
    _rewrite(
        "leave",
        ("call('PUBLISH', inbox, fmt('G %s %s %.0f', head, fence, now))", "local _ = inbox"),
    )


def _fence_reset() -> None:
    _rewrite_all(("last = math.max(last + 1, revived + 1, now_us)", "last = 1 + now_us % 1000"))
    _rewrite("leave", ("math.max(found[2] + 1, now_us)", "1 + now_us % 1000"))


def _trust_from_after_the_request() -> None:
    from celery_redlock.core import timing
    from celery_redlock.locking.asker import Asker
    from celery_redlock.locking.manager import Manager

    def granted_trust(asked_at: float, elapsed: float, heard_at: float, ttl: float) -> float:
        return timing.trusted_until(heard_at, ttl)

    timing.granted_trust = granted_trust
    honest, honest_batch = Manager.twice, Asker._twice

    def twice(self: Manager, holds: Any, call: Callable[[], Any]) -> Tuple[Any, float]:
        answer, _sent_at = honest(self, holds, call)
        return answer, self.clock()

    def batch(self: Asker, *asked: Any) -> Any:
        return [(answer, self.manager.clock()) for answer, _sent_at in honest_batch(self, *asked)]

    Manager.twice = twice  # type: ignore[method-assign, assignment]
    Asker._twice = batch  # type: ignore[method-assign, assignment]


def _fork_not_reset() -> None:
    from celery_redlock.locking import process

    process._members.clear()
    process.join = lambda member: None
    process.life = lambda: 0


def _line_skipped() -> None:
    changes = (
        (
            "if call('EXISTS', Q) == 0 then\n    local fence = grant(",
            "if true then\n    local fence = grant(",
        ),
        ("pump()\n  own = find(token)", "own = find(token)"),
    )
    _rewrite("acquire", *changes)
    _rewrite("acquire_all", *changes)


def _tombstone_forgotten() -> None:
    _rewrite_all(("call('HSET', H, 'x:' .. token, int(expiry) .. '|' .. why)", "local _ = expiry"))


def _orphans_forgotten() -> None:
    from celery_redlock.locking.abandoned import Abandoned

    Abandoned.tokens_of = lambda self, resource: ()  # type: ignore[method-assign, assignment]


def _grant_not_secured() -> None:
    from celery_redlock.core import timing
    from celery_redlock.locking.hold import Hold
    from celery_redlock.store.memory import MemoryStore
    from celery_redlock.store.single import ScriptedStore

    def a_moment(hold: Hold) -> float:
        return timing.grant_ttl(hold.lease)

    Hold.granted_for = property(a_moment, lambda hold, seconds: None)  # type: ignore[assignment]

    for store in (MemoryStore, ScriptedStore):
        store.secure = lambda self, request: None  # type: ignore[method-assign, assignment]


def _context_shared() -> None:
    from celery_redlock.locking import execution

    class OneForAll:
        """A context variable that every thread and every copy of a context shares."""

        scope = execution.NOWHERE

        def get(self) -> Any:
            return self.scope

        def set(self, scope: Any) -> Any:
            before, self.scope = self.scope, scope
            return before

        reset = set

    execution._here = OneForAll()  # type: ignore[assignment]


def _lock_left_behind() -> None:
    from celery_redlock.locking.execution import Execution

    Execution.release_locks = lambda self: None  # type: ignore[method-assign]


def _hold_shared_by_threads() -> None:
    from celery_redlock.locking import execution

    execution.this_thread = lambda: 0


def _death_not_proved() -> None:
    from celery_redlock.locking import proof

    proof._lives = lambda pid, started: pid == os.getpid()  # type: ignore[assignment]


def _death_unnoticed() -> None:
    from celery_redlock.integration.children import Children

    Children.accepted = lambda self, pid, request: None  # type: ignore[method-assign]


def _release_before_death() -> None:
    from celery_redlock.locking.deaths import Watched

    def has_ended(self: Watched) -> bool:
        self._has_ended = True
        return True

    Watched.has_ended = has_ended  # type: ignore[method-assign]


def _interrupt_unguarded() -> None:
    from celery_redlock.integration.interruption import Interrupter

    Interrupter.end = lambda self, body: None  # type: ignore[method-assign]


def _interruption_off() -> None:
    from celery_redlock.integration.interruption import Interrupter

    Interrupter.interrupt = lambda self, hold: None  # type: ignore[method-assign]


def _doubt_taken_for_loss() -> None:
    from celery_redlock.exceptions import LockLost
    from celery_redlock.integration.interruption import Body

    def interruption(self: Body, hold: Any) -> LockLost:
        return LockLost(hold.resource, hold.fence)

    Body.interruption = interruption  # type: ignore[method-assign]


FOUNDING = "tests/stress/test_founding_bugs.py::"
RAISED = f"{FOUNDING}test_nothing_renews_a_hold_whose_release_raised"
LEFT = "tests/worker/test_lock_in_tasks.py::test_what_a_body_leaves_locked_is_released_with_it"
POOLS = "tests/worker/test_pools.py::"
DEATHS = "tests/worker/test_deaths.py::"
INTERRUPTION = "tests/worker/test_interruption.py::"
ALLOWED = (
    "tests/worker/test_loss.py::test_a_body_that_is_held_for_as_long_as_allowed_is_interrupted"
)
FORKED = f"{FOUNDING}test_a_forked_child_starts_clean_and_frees_nothing_of_its_parents"

SABOTAGES: Dict[str, Sabotage] = {
    "token-not-compared": Sabotage(
        "a release ends whatever is held", "G1", ("tests/contract",), _token_not_compared
    ),
    "renewal-off": Sabotage(
        "the watchdog renews nothing", "G1", ("tests/stress/test_renewal.py",), _renewal_off
    ),
    "renewal-after-release": Sabotage(
        "the watchdog goes on after the end", "G2", (RAISED,), _renewal_after_release
    ),
    "wake-up-lost": Sabotage(
        "a release grants but tells nobody", "G4", ("tests/contract/test_line.py",), _wake_up_lost
    ),
    "fence-reset": Sabotage(
        "fences go back", "G5", ("tests/contract/test_holding.py",), _fence_reset
    ),
    "trust-from-after-the-request": Sabotage(
        "a slow answer, or a message long under way, stretches ownership",
        "G5",
        ("tests/core/test_granted_in_line.py", "tests/core/test_trust.py"),
        _trust_from_after_the_request,
    ),
    "fork-not-reset": Sabotage(
        "a child goes on with its parent's holds", "G1", (FORKED,), _fork_not_reset
    ),
    "line-skipped": Sabotage(
        "whoever comes takes the room before the line",
        "G4",
        ("tests/contract/test_line.py",),
        _line_skipped,
    ),
    "tombstone-forgotten": Sabotage(
        "a late copy brings an ended hold back",
        "G2",
        ("tests/contract/test_late_copies.py",),
        _tombstone_forgotten,
    ),
    "hold-shared-by-threads": Sabotage(
        "a thread re-enters the hold of the body that started it",
        "G1",
        (f"{POOLS}test_a_thread_with_a_bodys_context_does_not_share_its_lock",),
        _hold_shared_by_threads,
    ),
    "death-not-proved": Sabotage(
        "every other process is taken for dead",
        "G1",
        ("tests/core/test_proof.py",),
        _death_not_proved,
    ),
    "death-unnoticed": Sabotage(
        "nobody watches the children",
        "G2",
        (f"{DEATHS}test_of_fifty_killed_children_each_is_cleaned_up_after_at_once",),
        _death_unnoticed,
    ),
    "release-before-death": Sabotage(
        "what a living child holds is freed",
        "G1",
        (f"{DEATHS}test_a_child_that_swallows_a_revoke_keeps_its_lock_until_it_is_killed",),
        _release_before_death,
    ),
    "orphans-forgotten": Sabotage(
        "a process forgets what it could not release", "G2", (RAISED,), _orphans_forgotten
    ),
    "grant-not-secured": Sabotage(
        "who was granted it in line begins with a moment's grant",
        "G1",
        ("tests/contract/test_stopped_at_its_grant.py",),
        _grant_not_secured,
    ),
    "context-shared": Sabotage(
        "what one thread holds, others re-enter",
        "G1",
        ("tests/core/test_lock_machine.py",),
        _context_shared,
    ),
    "lock-left-behind": Sabotage(
        "a Lock outlives the body that forgot it", "G2", (LEFT,), _lock_left_behind
    ),
    "interrupt-unguarded": Sabotage(
        "a loss interrupts whatever follows its body",
        "G5",
        (f"{INTERRUPTION}test_a_loss_that_is_told_after_the_body_reaches_nobody",),
        _interrupt_unguarded,
    ),
    "interruption-off": Sabotage(
        "a body that has lost its lock goes on", "G5", (ALLOWED,), _interruption_off
    ),
    "doubt-taken-for-loss": Sabotage(
        "a missed renewal interrupts a body",
        "G5",
        (f"{INTERRUPTION}test_a_doubt_interrupts_only_who_asked_for_that",),
        _doubt_taken_for_loss,
    ),
}


def _verdict(run: subprocess.CompletedProcess[str]) -> str:
    if run.returncode == 1:
        return "caught"
    # Without any lock server on a developer's machine its guards are skipped; in CI they are not.
    nothing_ran = run.returncode == 0 and " passed" not in run.stdout
    return "skipped" if nothing_ran and not os.environ.get("CI") else UNNOTICED


class Trial(NamedTuple):
    """How the guards of one sabotage did: ``word`` is "caught", "skipped" or UNNOTICED."""

    name: str
    word: str
    seconds: float
    output: str
    tries: int = 1


def try_guards(name: str, guards: Sequence[str] = ()) -> Trial:
    """Run the tests that must notice it, or these, with it in force."""
    began = time.monotonic()
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"),
            *(f"--sabotage={name}", *(guards or SABOTAGES[name].suite)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Trial(name, _verdict(run), time.monotonic() - began, run.stdout)


def _at_most_twice(name: str) -> Trial:
    """A guard that works at a worker's processes shares a machine with others, as any test does."""
    trial = try_guards(name)
    if trial.word != UNNOTICED:
        return trial
    second = try_guards(name)
    return second._replace(
        seconds=trial.seconds + second.seconds,
        output=f"{trial.output}\nThe second try:\n{second.output}",
        tries=2,
    )


def main(names: Sequence[str]) -> int:
    """Run the guards of each sabotage; the number of sabotages that nobody noticed, tried twice."""
    chosen = list(names or sorted(SABOTAGES))
    unnoticed = 0
    # They wait more than they compute: two at a time.
    with ThreadPoolExecutor(2) as pool:
        for trial in pool.map(_at_most_twice, chosen):
            of = SABOTAGES[trial.name]
            tries = "" if trial.tries == 1 else f", {trial.tries} tries"
            told = f"{of.guarantee}  {of.breaks} ({trial.seconds:.0f} s{tries})"
            print(f"{trial.word:<10} {trial.name:<30} {told}", flush=True)
            if trial.word == UNNOTICED:
                unnoticed += 1
                print(trial.output[-4000:])
    print(f"{unnoticed} of {len(chosen)} sabotages went unnoticed")
    return unnoticed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
