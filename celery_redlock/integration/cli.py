"""``celery -A app redlock …``: looking at locks, and freeing them, from the command line."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any, Dict, Iterable, List, Optional, Union

import click

from celery_redlock.core.checkup.finding import Severity
from celery_redlock.core.ports import ResourceView
from celery_redlock.exceptions import RedlockError
from celery_redlock.integration import checkup, choices, diagnosis, flags, inquiring
from celery_redlock.integration import control as control  # its commands: the client needs them
from celery_redlock.integration.describing import describe, holder_of
from celery_redlock.integration.listing import counts, lines, plain, selected, table, who
from celery_redlock.integration.reasons import reasons
from celery_redlock.integration.releasing import check_allowed, operator
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.locking.manager import Manager

flags.add_to_worker()
choices.complete()

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class _Command(click.Command):
    """A command whose errors are one line each, and plain."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except RedlockError as error:
            raise click.ClickException(plain(error)) from error


@click.group()
@flags.takes_url
@click.pass_context
def redlock(context: click.Context, redlock_url: Union[str, List[str], None]) -> None:
    """Look at the locks of this app's tasks, and free them.

    Of workers that were started with --redlock-url give the same URLs here, before the command.
    """
    context.with_resource(flags.on_server(context.obj.app, redlock_url))


@redlock.command(cls=_Command)
@click.argument("pattern", default="*")
@_as_json
@click.option(
    "--stale",
    is_flag=True,
    help="Instead: what is left of holders whose lease is over, and of waiters not heard of.",
)
@click.pass_context
def ls(context: click.Context, pattern: str, as_json: bool, stale: bool) -> None:
    """List what is held or waited for, the oldest wait first.

    PATTERN is a glob over the resources' names: 'account:*'. HOLDER is a task's id, or host/pid for
    a lock outside tasks; AGE is since the grant; LEASE is what is left of it; WAITING is how many
    wait, and for how long the first of them has.
    """
    now = time.time()
    found = _manager(context).survey(pattern).resources
    states = [describe(name, view, now) for name, view in found.items()]
    shown, left_behind = selected(states, stale), len(selected(states, stale=True))
    if as_json:
        _say_json({"resources": shown, "stale": left_behind})
    elif stale:
        _say(table(shown, stale, _width()) if shown else ["nothing is stale"])
    else:
        _say(table(shown, stale, _width()) if shown else [])
        _say([counts(shown, left_behind)])


@redlock.command(cls=_Command)
@click.argument("resource")
@_as_json
@click.pass_context
def show(context: click.Context, resource: str, as_json: bool) -> None:
    """Say who holds RESOURCE and who waits for it."""
    state = _described(resource, _manager(context).inspect(resource))
    if as_json:
        _say_json(state)
    else:
        _say(lines(state))


@redlock.command(cls=_Command)
@click.argument("asked", metavar="TASK_ID|RESOURCE")
@_as_json
@click.pass_context
def explain(context: click.Context, asked: str, as_json: bool) -> None:
    """Say why a task waits, or a resource is not free, and what will come of it.

    Asks the lock server, and the workers for what they keep; if both know nothing of a task, the
    result backend. Takes a second at least. Ends with 1 if one of them did not answer.
    """
    facts = inquiring.explain(context.obj.app, asked)
    if as_json:
        _say_json(facts)
    else:
        _say(reasons(facts))
    context.exit(1 if facts["unanswered"] else 0)


@redlock.command(cls=_Command)
@click.argument("resource")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_as_json
@click.pass_context
def release(context: click.Context, resource: str, yes: bool, as_json: bool) -> None:
    """Take RESOURCE from whoever holds it, by force.

    The body that held it is interrupted by LockLost at its next renewal, or told of it only, as its
    task's lock_on_lost says; a Lock is told only. The next in line is granted the lock at once, and
    what the old one writes until then can be refused by its fence only. Needs the setting
    redlock_allow_release. Ends with 0 also if nobody held it.
    """
    check_allowed(context.obj.app)
    manager = _manager(context)
    view = manager.inspect(resource)
    if view.holders and not yes:
        _say(lines(_described(resource, view)), aside=as_json)
        if not click.confirm("Release it? Its body goes on for a while.", err=as_json):
            raise click.ClickException("not released")
    released = manager.force(resource, view.holders, operator())
    fence = manager.inspect(resource).fence
    people = [holder_of(holder, time.time()) for holder in released]
    if as_json:
        _say_json({"resource": resource, "released": people, "fence": fence or None})
    elif not released:
        _say([f"{plain(resource)} is not held"])
    else:
        _say(f"released from {who(each)}" for each in people)
        stale = max(holder.fence for holder in released)
        _say([f"the last fence is {fence} now: refuse what is written with {stale} or less"])


@redlock.command(cls=_Command)
@_as_json
@click.option("--strict", is_flag=True, help="End with 1 for warnings as well.")
@click.pass_context
def doctor(context: click.Context, as_json: bool, strict: bool) -> None:
    """Examine the lock servers, the settings and the tasks, and say what to do.

    Tries a lock on a resource of its own, as the app's user. Ends with 1 if there is a problem,
    else with 0.
    """
    app = context.obj.app
    findings = checkup.visit(app)
    if as_json:
        _say_json(diagnosis.as_json(findings))
    else:
        for severity, line in diagnosis.as_lines(findings, app.main or "without a name"):
            click.secho(line, fg=_COLOURS.get(severity))
    count = diagnosis.counted(findings)
    if count[Severity.PROBLEM] or (strict and count[Severity.WARNING]):
        context.exit(1)


_COLOURS: Dict[Optional[Severity], str] = {Severity.PROBLEM: "red", Severity.WARNING: "yellow"}


def _manager(context: click.Context) -> Manager:
    return runtime_of(context.obj.app).manager


def _described(resource: str, view: ResourceView) -> Dict[str, Any]:
    return describe(resource, view, time.time())


def _say(told: Iterable[str], aside: bool = False) -> None:
    for line in told:
        click.echo(line, err=aside)


def _say_json(document: Dict[str, Any]) -> None:
    click.echo(json.dumps(document))


def _width() -> Optional[int]:
    """How wide a line may be; None where no terminal shows it."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
