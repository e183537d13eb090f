"""Sixty tasks that want four accounts, on a real worker: see that they take turns.

    make demo                                   or: python -m examples.demo
    python -m examples.demo --without-locks     the same tasks without the lock

The picture is drawn, and the verdict given, from a log that the bodies themselves write. Exits with
0 if they kept apart, with 1 if they did not (``--without-locks``), with 2 if it could not run.
Needs ``pip install 'celery-redlock[demo]'`` and nothing else.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext
from typing import Any, ContextManager, Dict, List, Optional

try:
    from rich.console import Console
    from rich.live import Live
except ImportError:
    sys.exit("the demo needs: pip install 'celery-redlock[demo]'")

from celery.result import AsyncResult

from celery_redlock.exceptions import RedlockError
from examples.demo import plan, report
from examples.demo.app import app, print_invoice, sync_account
from examples.demo.bodylog import now_ns
from examples.demo.run import Call, Run, seen
from examples.demo.stage import CONCURRENCY, Interrupts, Stage, StageError
from examples.demo.verdict import claims

#: Seconds: a run takes two or three.
ENDS_WITHIN = 30.0
TICK = 0.06

TASKS = {"sync_account": sync_account, "print_invoice": print_invoice}


class Show:
    """One run of the plan on a stage, shown while it goes on where there is a terminal."""

    def __init__(self, stage: Stage, interrupts: Interrupts, console: Console, width: int) -> None:
        self._stage = stage
        self._interrupts = interrupts
        self._console = console
        self._width = width
        self._jobs = plan.jobs()
        self._calls: List[Call] = []

    @property
    def published(self) -> int:
        return len(self._jobs)

    def go(self) -> Run:
        """Publish all and watch until all have ended, or will not."""
        began = time.monotonic()
        live: Optional[Live] = None
        screen: ContextManager[Any] = nullcontext()
        if sys.stdout.isatty():
            live = Live(console=self._console, auto_refresh=False, transient=True)
            screen = live
        with screen:
            while True:
                self._interrupts.check()
                self._publish(time.monotonic() - began)
                run = seen(self._calls, self._stage.bodies.bodies(), now_ns())
                if live is not None:
                    shown = report.live(run, self._states(), self.published, self._width)
                    live.update(shown, refresh=True)
                late = time.monotonic() - began > ENDS_WITHIN
                if run.ended >= self.published or late or not self._stage.is_alive():
                    return _cut(run)
                time.sleep(TICK)

    def count_succeeded(self) -> int:
        """How many tasks have a success as their result, within some seconds."""
        deadline = time.monotonic() + 5
        results = [AsyncResult(call.task_id, app=app) for call in self._calls]
        while time.monotonic() < deadline and not all(result.ready() for result in results):
            self._interrupts.check()
            time.sleep(TICK)
        return sum(result.successful() for result in results)

    def _publish(self, elapsed: float) -> None:
        for job in self._jobs[len(self._calls) :]:
            if job.at > elapsed:
                return
            at = now_ns()
            result = TASKS[job.task].delay(job.key, job.seconds)
            self._calls.append(Call(job.number, job.resource, result.id, at))

    def _states(self) -> Dict[str, Any]:
        return {f"account:{key}": sync_account.lock_state(key, 0.0) for key in plan.ACCOUNTS}


def _cut(run: Run) -> Run:
    """Without the time after the last body: the picture ends where the run does."""
    if run.bars and not any(bar.is_running for bar in run.bars):
        return run._replace(now=max(bar.end for bar in run.bars))
    return run


def main() -> int:
    parser = argparse.ArgumentParser("python -m examples.demo", description=__doc__.split("\n")[0])
    parser.add_argument("--without-locks", action="store_true", help="run the tasks unlocked")
    locks = not parser.parse_args().without_locks
    console = _console()
    with Interrupts() as interrupts, Stage(interrupts, locks=locks) as stage:
        try:
            return _perform(stage, interrupts, console, locks)
        except KeyboardInterrupt:
            console.print("interrupted", style="dim")
            # Here and not outside: what the interrupted frames hold (a result, for which Celery
            # listens to the server) has to go before the server does.
            return 130


def _perform(stage: Stage, interrupts: Interrupts, console: Console, locks: bool) -> int:
    under = "each account locked" if locks else "[bold red]without locks[/]"
    console.print(
        f"\n[bold]{len(plan.jobs())} tasks, {CONCURRENCY} processes, {len(plan.ACCOUNTS)} accounts"
        f"[/]: {under}"
    )
    show = Show(stage, interrupts, console, console.width)
    try:
        with _busy(console, "starting a server and a worker"):
            stage.start()
        run = show.go()
    except (StageError, RedlockError) as error:
        console.print(f"the demo could not run: {error}", style="red")
        console.print(stage.log_tail(), markup=False, highlight=False, style="dim")
        return 2
    found = claims(run, show.published, show.count_succeeded())
    console.print(report.final(run, console.width, colours=console.color_system is not None))
    console.print(report.verdict(found))
    holds = all(claim.holds for claim in found)
    if locks and not holds:
        console.print("\nthe end of the worker's log:", style="dim")
        console.print(stage.log_tail(), markup=False, highlight=False, style="dim")
    if not locks:
        console.print("\n  This is what the lock prevents.", style="dim")
    return 0 if holds else 1


def _busy(console: Console, with_what: str) -> ContextManager[Any]:
    return console.status(with_what) if sys.stdout.isatty() else nullcontext()


def _console() -> Console:
    if not sys.stdout.isatty():
        return Console(width=100, highlight=False)
    console = Console(highlight=False)
    console.width = max(60, min(console.width, 140))
    return console


if __name__ == "__main__":
    sys.exit(main())
