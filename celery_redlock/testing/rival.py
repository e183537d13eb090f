"""Who else holds, and what: a task's call or a name becomes resources that a test's rival takes."""

from __future__ import annotations

import secrets
from typing import Any, Dict, List, Sequence, Tuple, Union

from celery_redlock.core.direct import checked_name, terms_of
from celery_redlock.core.ports import Acquire, Granted, HolderView, Leave, Terms
from celery_redlock.core.record import Record
from celery_redlock.exceptions import ConfigurationError, LockConflict
from celery_redlock.integration.runtime import app_in_use
from celery_redlock.locking.manager import Manager
from celery_redlock.locking.outcomes import longest


class Rival:
    """Somebody else who holds ``resources``. A context manager: released at its end."""

    def __init__(self, manager: Manager, names: Sequence[str]) -> None:
        self._manager = manager
        self.resources = tuple(names)
        self.tokens: Dict[str, str] = {}
        #: The numbers that it was granted, by resource.
        self.fences: Dict[str, int] = {}

    def take(self, terms: Terms, record: Record) -> None:
        for name in self.resources:
            token = secrets.token_hex(16)
            answer = self._manager.store.acquire(Acquire(name, token, terms, record.encode()))
            if not isinstance(answer, Granted):
                holder = longest(getattr(answer, "holders", ()))
                self.release()
                raise LockConflict(name, holder and holder.holder, holder and holder.since)
            self.tokens[name] = token
            self.fences[name] = answer.fence

    def release(self) -> None:
        """Give it back, also if it is held no more."""
        for name, token in self.tokens.items():
            self._manager.store.leave(Leave(name, (token,)))

    def seen(self) -> List[HolderView]:
        """What the lock server has of it."""
        tokens = set(self.tokens.values())
        views = (self._manager.inspect(name) for name in self.resources)
        return [held for view in views for held in view.holders if held.token in tokens]

    def __enter__(self) -> Rival:
        return self

    def __exit__(self, *_error: Any) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Rival {', '.join(self.resources)}>"


def named(
    what: Any, args: Sequence[Any], kwargs: Dict[str, Any]
) -> Tuple[Any, Tuple[str, ...], Terms, str]:
    """The app, the resources, and on what terms and as whom a rival holds them."""
    if not isinstance(what, str):
        return what.app, _resources(what.lock_resource(*args, **kwargs), what), Terms(), "rival"
    options = {"app": None, "mode": "exclusive", "limit": 1, "task_id": "rival"}
    unknown = sorted(set(kwargs) - set(options))
    if args or unknown:
        raise ConfigurationError(
            f"expected arguments only with a task, or {', '.join(options)} with a name, got "
            f"{', '.join(unknown) or 'arguments'}; give the task instead of the name"
        )
    chosen: Dict[str, Any] = {**options, **kwargs}
    terms = terms_of(30, chosen["limit"], chosen["mode"])
    return chosen["app"] or app_in_use(), (checked_name(what),), terms, chosen["task_id"]


def holder_of(view: HolderView) -> str:
    """The task's id, or host and pid for a Lock."""
    record = Record.decode(view.record)
    return record.holder if record else "?"


def _resources(names: Union[str, Tuple[str, ...], None], task: Any) -> Tuple[str, ...]:
    if names is None:
        raise ConfigurationError(
            f"expected a call of {task.name} that locks something, got one for which lock_key "
            f"gives None; give arguments for which it names a resource"
        )
    return (names,) if isinstance(names, str) else names
