"""Pydantic models as arguments: a call is named by what its message carries of them.

A task with ``pydantic=True`` (since Celery 5.5) rebuilds its models inside ``run``. A worker is
given mappings and names the call before that; a direct call, an eager one and ``lock_resource`` may
be given the models, which are dumped as they would be published.
"""

from __future__ import annotations

import inspect
from typing import Any, Mapping, Sequence, Tuple

from celery.app import base

Arguments = Tuple[Sequence[Any], Mapping[str, Any]]


def as_published(task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
    """The arguments of a call of this task as its message has them."""
    if not any(_is_model(value) for value in (*args, *kwargs.values())):
        return args, kwargs
    if not _rebuilds_models(type(task)):
        return args, kwargs
    if hasattr(task, "_dump_pydantic_arguments"):  # since Celery 5.7, with the task's own options
        args, kwargs = task._dump_pydantic_arguments(args, kwargs)
    return [_dumped(value) for value in args], {key: _dumped(kwargs[key]) for key in kwargs}


def _rebuilds_models(cls: Any) -> bool:
    """Whether ``run`` is what Celery puts around the function of a task with ``pydantic=True``."""
    run = inspect.getattr_static(cls, "run")
    run = run.__func__ if isinstance(run, staticmethod) else run
    return getattr(run, "__globals__", None) is vars(base)


def _is_model(value: Any) -> bool:
    return hasattr(type(value), "__pydantic_serializer__") and hasattr(value, "model_dump")


def _dumped(value: Any) -> Any:
    return value.model_dump(mode="json") if _is_model(value) else value
