"""A callable ``lock_key``: what of the call it is given, and what it may return."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable, FrozenSet, Mapping, Optional, Sequence, Tuple

from celery_redlock.core.parameters import Parameters
from celery_redlock.core.template import escape_name, fit
from celery_redlock.exceptions import ConfigurationError


def by_callable(
    parameters: Parameters, key: Callable[..., Any]
) -> Callable[[Sequence[Any], Mapping[str, Any]], Tuple[str, ...]]:
    """The rule that asks ``key`` for the names; an exception that it raises goes through."""
    if inspect.iscoroutinefunction(key):
        raise parameters.error(
            "expected lock_key to return names, got a coroutine function; write a plain function"
        )
    call = _calling(parameters, key)

    def rule(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tuple[str, ...]:
        return _returned(parameters, call(parameters.bind(args, kwargs)))

    return rule


def _calling(
    parameters: Parameters, key: Callable[..., Any]
) -> Callable[[inspect.BoundArguments], Any]:
    """By keyword if the callable's parameters are named after the task's; else as the task is."""
    accepts = _accepted(parameters, key)
    if accepts is None:
        return lambda bound: key(*bound.args, **bound.kwargs)
    names, everything, fixed = accepts

    def call(bound: inspect.BoundArguments) -> Any:
        given = parameters.spread(bound)
        if everything:  # the extra arguments go one by one, not also as one mapping
            chosen = {n: v for n, v in given.items() if n in names or n != parameters.extra}
        else:
            chosen = {name: given[name] for name in names if name in given}
        return key(**{name: value for name, value in chosen.items() if name not in fixed})

    return call


def _accepted(
    parameters: Parameters, key: Callable[..., Any]
) -> Optional[Tuple[FrozenSet[str], bool, FrozenSet[str]]]:
    """The names it takes by keyword, whether it takes any, and those that a partial has fixed."""
    try:
        takes = inspect.signature(key).parameters.values()
    except (ValueError, TypeError):  # some builtins tell nothing
        return None
    kinds = {given.kind for given in takes}
    if kinds & {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL}:
        return None
    everything = inspect.Parameter.VAR_KEYWORD in kinds
    named = [given for given in takes if given.kind is not inspect.Parameter.VAR_KEYWORD]
    fixed = frozenset(key.keywords if isinstance(key, functools.partial) else ())
    for given in named:
        if given.default is given.empty and given.name not in parameters.signature.parameters:
            return None
    return frozenset(given.name for given in named), everything, fixed


def _returned(parameters: Parameters, result: Any) -> Tuple[str, ...]:
    if result is None:
        return ()
    names = [result] if isinstance(result, str) else result
    if not isinstance(names, (list, tuple, set, frozenset)):
        raise _unfit(parameters, f"a {type(result).__name__}")
    if not names:
        raise _unfit(parameters, f"an empty {type(result).__name__}")
    for name in names:
        if not isinstance(name, str):
            raise _unfit(parameters, f"a {type(name).__name__} among them")
        if not name:
            raise _unfit(parameters, "an empty name")
    return tuple(sorted({fit(escape_name(name)) for name in names}))


def _unfit(parameters: Parameters, got: str) -> ConfigurationError:
    return parameters.error(
        f"expected the lock_key callable to return a name, a list, tuple or set of names, or None "
        f"for no lock, got {got}; return None where nothing is to be locked"
    )
