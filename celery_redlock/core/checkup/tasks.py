"""The checks of an app: its settings, and the options of its tasks against Celery's own."""

from __future__ import annotations

from typing import Callable, Iterable, Iterator, List, Tuple

from celery_redlock.core.checkup.facts import AppFacts, TaskFacts
from celery_redlock.core.checkup.finding import Finding, ok, problem, warning

Check = Callable[[AppFacts], Iterator[Finding]]

#: Seconds of a lease from which a lost host is felt.
_LONG_LEASE = 300.0

#: Names that are written out; of more the number is.
_NAMES = 3


def check_app(app: AppFacts) -> List[Finding]:
    """Every finding about the app itself."""
    return [finding for check in CHECKS for finding in check(app)]


def configuration(app: AppFacts) -> Iterator[Finding]:
    for error in app.errors:
        yield problem("configuration", error, "correct it: a worker does not start with it")
    if app.import_error is not None:
        yield problem(
            "tasks",
            f"its task modules cannot be imported: {app.import_error}",
            "correct that: what is said of tasks here is incomplete",
        )
    if not app.errors:
        yield ok("configuration", f"settings and options are sound; locked tasks: {len(app.tasks)}")


def enabled(app: AppFacts) -> Iterator[Finding]:
    if not app.is_enabled:
        yield warning(
            "enabled",
            "redlock_enabled is False: nothing is locked",
            "set it to True, or leave it out",
        )


def prefix(app: AppFacts) -> Iterator[Finding]:
    if not app.has_own_prefix:
        yield warning(
            "prefix",
            f"the app has no name of its own, so its keys begin with {app.prefix}, as other "
            f"projects' on this server may",
            'set redlock_prefix, for instance to "redlock:shop:", the same in every process',
        )


def lease(app: AppFacts) -> Iterator[Finding]:
    long = [task for task in app.tasks if task.lease > _LONG_LEASE]
    if long:
        yield warning(
            "lease",
            f"when a host is lost, its locks stay until their leases end: {app.longest_lease:g} s "
            f"for {_names(long)}",
            "a lease is renewed while the body runs: 30 s will do for any length of body",
        )


def time_limits(app: AppFacts) -> Iterator[Finding]:
    bounded = [task for task in app.tasks if task.max_hold is not None]
    early = [task for task in bounded if _limit(task) and _limit(task) > (task.max_hold or 0)]
    if early:
        yield warning(
            "time-limits",
            f"lock_max_hold is shorter than the time limit: {_names(early)} may run on without "
            f"the lock",
            "make lock_max_hold longer than time_limit, or leave it out",
        )
    endless = [task for task in app.tasks if not _limit(task) and task.max_hold is None]
    if endless:
        yield warning(
            "endless-body",
            f"a body that hangs keeps its lock for ever: {_names(endless)}",
            "give a time_limit (or lock_max_hold), and lock_wait_timeout to those that wait",
        )


def visibility_timeout(app: AppFacts) -> Iterator[Finding]:
    visible = app.visibility_timeout
    if visible is None:
        return
    late = [task for task in app.tasks if task.acks_late]
    long = [task for task in late if not _limit(task) or _limit(task) > visible]
    if long:
        yield warning(
            "visibility-timeout",
            f"with acks_late the broker delivers again what is not done after {visible:g} s: "
            f"{_names(long)} may run for longer, and is delivered a second time meanwhile",
            "give a time_limit below the visibility_timeout of broker_transport_options",
        )
    # Of a message that is kept while its task waits: until it is dated anew, or sent anew.
    spent = visible / 4 if app.renews_messages else visible / 2
    waiting = [task for task in late if task not in long and _waits(task, spent, visible)]
    if waiting:
        yield warning(
            "visibility-timeout",
            f"of the {visible:g} s after which the broker delivers again, {spent:g} s may pass "
            f"while the task waits for its lock: {_names(waiting)}",
            f"give a time_limit of at most {visible - spent:g} s, or a longer visibility_timeout",
        )


def parking(app: AppFacts) -> Iterator[Finding]:
    visible, most = app.visibility_timeout, app.max_park
    if app.renews_messages:
        return
    if visible is not None and most is not None and most >= visible:
        yield problem(
            "parking",
            f"redlock_max_park ({most:g} s) is not shorter than the visibility timeout "
            f"({visible:g} s): waiting tasks are delivered again while they wait",
            "leave redlock_max_park out (half the visibility timeout), or make it shorter",
        )


def results(app: AppFacts) -> Iterator[Finding]:
    unknown = [task for task in app.tasks if task.acks_late and not task.keeps_results]
    if unknown:
        yield warning(
            "results",
            f"no result is kept of {_names(unknown)}: a copy that is delivered after the first one "
            f"has ended runs once more",
            "configure a result_backend, and do not ignore these results",
        )


def workers(app: AppFacts) -> Iterator[Finding]:
    elsewhere = {name: at for name, at in sorted(app.workers.items()) if at != app.servers}
    for name, servers in elsewhere.items():
        yield warning(
            "workers",
            f"{name} locks {'on ' + ', '.join(servers) if servers else 'nothing'}: it excludes "
            f"nobody who goes by {', '.join(app.servers)}",
            "start it without --redlock-url and --redlock-disable, or set redlock_url to the same; "
            "its server is examined with --redlock-url here",
        )
    if app.workers and not elsewhere:
        yield ok("workers", f"all that answer go by the same lock server: {len(app.workers)}")


CHECKS: Tuple[Check, ...] = (
    configuration,
    enabled,
    workers,
    prefix,
    lease,
    time_limits,
    visibility_timeout,
    parking,
    results,
)


def _limit(task: TaskFacts) -> float:
    """After how long a body is ended; 0 for never."""
    return task.time_limit or task.soft_time_limit or 0.0


def _waits(task: TaskFacts, spent: float, visible: float) -> bool:
    """Whether its body may run out of time because it has waited for so long."""
    if task.on_conflict != "wait":
        return False
    waited = spent if task.wait_timeout is None else min(spent, task.wait_timeout)
    return waited + _limit(task) > visible


def _names(tasks: Iterable[TaskFacts]) -> str:
    names = sorted(task.name for task in tasks)
    shown = ", ".join(names[:_NAMES])
    return f"{shown} and {len(names) - _NAMES} more" if len(names) > _NAMES else shown
