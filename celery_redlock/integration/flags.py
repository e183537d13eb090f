"""The worker's flags: ``celery worker --redlock-url … --redlock-disable``.

They exist from the moment that the package is installed: Celery's command line loads our command,
which adds them to the worker's. What they say goes into the environment before the worker is made,
and so reaches the children of a pool whether they are forked or spawned, and the programs that
bodies start. A worker goes by its own flags only, whatever it was started from; another app in its
processes goes by its settings alone.

``celery redlock --redlock-url …`` looks at what such workers lock.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Mapping, Union

import click
from celery.bin.base import CeleryOption
from celery.bin.worker import worker

from celery_redlock.core.options import SETTINGS
from celery_redlock.exceptions import ConfigurationError
from celery_redlock.integration import settings as conf
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.store.urls import check_url

_GROUP = "Lock options"
_POLICIES = ("wait", "retry", "skip", "fail")

_FLAGS: Mapping[str, Mapping[str, Any]] = {
    "--redlock-url": {
        "multiple": True,
        "help": "URL of the lock server; given several times: of each server of a Redlock.",
    },
    "--redlock-ttl": {"type": float, "help": "Lease of a lock in seconds."},
    "--redlock-on-conflict": {
        "type": click.Choice(_POLICIES),
        "help": "What a task does on a conflict.",
    },
    "--redlock-max-parked": {"type": int, "help": "How many waiting tasks this worker keeps."},
    "--redlock-disable": {"is_flag": True, "default": None, "help": "Run without locks."},
}


def add_to_worker() -> None:
    """Add the flags to the worker command; once, however often it is called."""
    known = {option for parameter in worker.params for option in parameter.opts}
    if known.issuperset(_FLAGS):
        return
    for flag, details in _FLAGS.items():
        option = CeleryOption((flag,), callback=_checked, help_group=_GROUP, **details)
        worker.params.append(option)
    worker.callback = _with_flags(worker.callback)


def takes_url(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command of our own the worker's flag for the lock server, as ``redlock_url``."""
    flag = "--redlock-url"
    option = click.option(flag, callback=_checked, **_FLAGS[flag])
    return option(command)


@contextmanager
def on_server(app: Any, redlock_url: Union[str, List[str], None]) -> Iterator[None]:
    """Go by the lock server that a flag names, for a while; by the settings where none is named."""
    if redlock_url is None:
        yield
        return
    try:
        with conf.with_flags(app, {"redlock_url": redlock_url}):
            runtime_of(app).refresh()
            yield
    finally:
        runtime_of(app).refresh()


def _checked(_context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """The flag's value; one that is unfit is refused before anything starts."""
    name = str(parameter.name)
    urls = value if parameter.multiple else ()
    if parameter.multiple:
        value = list(urls) if len(urls) > 1 else next(iter(urls), None)
    try:
        if value is not None and name in SETTINGS:
            SETTINGS[name].kind.check(parameter.opts[0], value)
        for url in urls:
            check_url(url)
    except ConfigurationError as error:
        raise click.BadParameter(error.message) from None
    return value


def _with_flags(start: Callable[..., Any]) -> Callable[..., Any]:
    """The worker command, told its flags; a wrong configuration ends it with one clear line."""

    @functools.wraps(start)
    def worker_with_locks(*args: Any, **kwargs: Any) -> Any:
        names = [flag[2:].replace("-", "_") for flag in _FLAGS]
        given = {name: kwargs.pop(name, None) for name in names}
        app = click.get_current_context().obj.app
        conf.tell_flags(app, {name: value for name, value in given.items() if value is not None})
        runtime_of(app).refresh()
        try:
            return start(*args, **kwargs)
        except ConfigurationError as error:
            click.ClickException(error.message).show()
            # Not click's own exit: app.worker_main() would take it for a success.
            raise SystemExit(1) from None

    return worker_with_locks
