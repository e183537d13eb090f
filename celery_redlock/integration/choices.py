"""Our commands of remote control among those that ``celery inspect`` and ``celery control`` take.

Older versions of Celery fix the choice when their command line is imported, newer ones look when
they are called. Our own is imported in between.
"""

from __future__ import annotations

import click
from celery.bin.control import control, inspect
from celery.worker.control import Panel


def complete() -> None:
    """Have both know every command that is registered now; once, however often it is called."""
    for command, kind in ((inspect, "inspect"), (control, "control")):
        known = [name for name, info in Panel.meta.items() if info.type == kind and info.visible]
        for parameter in command.params:
            if isinstance(parameter, click.Argument) and isinstance(parameter.type, click.Choice):
                parameter.type = click.Choice(known)
