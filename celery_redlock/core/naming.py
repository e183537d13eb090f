"""From a task's ``lock_key`` and one call to the names of the resources that the call locks.

Everything that can be checked without a call is checked by ``Naming.of``. At a call the arguments
are bound to the signature with defaults applied, so that ``f(1)``, ``f(a=1)`` and
``f(1, b=<default>)`` name one resource.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Callable, List, Mapping, Sequence, Tuple

from celery_redlock.core.encoding import Unstable, canonical
from celery_redlock.core.keycall import by_callable
from celery_redlock.core.parameters import Parameters
from celery_redlock.core.template import Template, escape_name, fit
from celery_redlock.exceptions import ConfigurationError

Names = Tuple[str, ...]
Rule = Callable[[Sequence[Any], Mapping[str, Any]], Names]

_KINDS = (
    "None, a tuple of argument names, a template, a list of templates or a callable that returns "
    "names"
)


@dataclass(frozen=True)
class Naming:
    """How one task names what it locks."""

    task: str
    rule: Rule
    #: Whether the names come from a callable of the user's.
    is_users: bool = False

    @classmethod
    def of(cls, task: str, signature: inspect.Signature, lock_key: Any) -> Naming:
        """Checks ``lock_key`` against the signature, which is given without a bound ``self``."""
        rule = _rule(Parameters.of(task, signature), lock_key)
        return cls(task, rule, is_users=not isinstance(lock_key, (type(None), tuple, str, list)))

    def names(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Names:
        """The names, sorted and distinct; none at all means no lock for this call.

        Raises TypeError for a call that does not fit the signature (where the arguments matter),
        ConfigurationError for an argument that cannot be part of a name, and whatever the user's
        callable raises.
        """
        return self.rule(args, kwargs)


def _rule(parameters: Parameters, lock_key: Any) -> Rule:
    if isinstance(lock_key, staticmethod):  # not callable itself before Python 3.10
        lock_key = lock_key.__func__
    if lock_key is None:
        return _by_arguments(parameters, tuple(parameters.signature.parameters))
    if isinstance(lock_key, tuple):
        return _by_some_arguments(parameters, lock_key)
    if isinstance(lock_key, str):
        return _by_templates(parameters, [lock_key])
    if isinstance(lock_key, list):
        return _by_templates(parameters, lock_key)
    if callable(lock_key):
        return by_callable(parameters, lock_key)
    raise parameters.error(
        f"expected lock_key to be {_KINDS}, got {type(lock_key).__name__}; "
        f'write for instance lock_key="account:{{account_id}}"'
    )


def _by_some_arguments(parameters: Parameters, chosen: Tuple[Any, ...]) -> Rule:
    for name in chosen:
        if not isinstance(name, str):
            raise parameters.error(
                f"expected the tuple lock_key to hold names of arguments, got a "
                f"{type(name).__name__}; write for instance {_example(parameters)}"
            )
        if "{" in name:
            raise parameters.error(
                f"expected the tuple lock_key to hold names of arguments, got the template "
                f"{name!r}; write a list for several templates"
            )
        if name not in parameters.signature.parameters and not (parameters.extra and name):
            raise _unknown(parameters, "lock_key", name)
    _check_distinct(parameters, chosen)
    return _by_arguments(parameters, chosen) if chosen else _always(_task_alone(parameters.task))


def _by_arguments(parameters: Parameters, chosen: Tuple[str, ...]) -> Rule:
    """The names are framed in: another choice of arguments can never give the same hash."""
    framed = [(name, canonical(name)) for name in sorted(chosen)]
    task = escape_name(parameters.task)

    def rule(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Names:
        given = parameters.given(args, kwargs)
        parts: List[bytes] = []
        for name, frame in framed:
            parts += (frame, _encoded(parameters, name, given))
        return (fit(f"{task}({sha256(b''.join(parts)).hexdigest()})"),)

    return rule


def _encoded(parameters: Parameters, name: str, given: Mapping[str, Any]) -> bytes:
    if name not in given:
        raise parameters.error(
            f"lock_key needs the argument {name!r}, which this call does not give; "
            f"give it, or take it out of lock_key"
        )
    try:
        return canonical(given[name])
    except Unstable as why:
        raise parameters.error(
            f"expected argument {name!r} to have a stable encoding for the lock's name, but {why}; "
            f"leave it out with a tuple of the other arguments' names, or use a callable lock_key"
        ) from why


def _task_alone(task: str) -> str:
    return fit(f"{escape_name(task)}()")


def _always(*names: str) -> Rule:
    constant = tuple(sorted(set(names)))
    return lambda args, kwargs: constant


def _by_templates(parameters: Parameters, texts: List[Any]) -> Rule:
    if not texts:
        raise parameters.error(
            "expected the list lock_key to hold templates, got an empty list; "
            "write lock_key=() to lock the task alone"
        )
    templates = [_template(parameters, text) for text in texts]
    _check_distinct(parameters, texts)
    if not any(template.fields for template in templates):
        return _always(*[template.render({}) for template in templates])

    def rule(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Names:
        given = parameters.given(args, kwargs)
        try:
            names = [template.render(given) for template in templates]
        except ConfigurationError as error:
            raise parameters.error(f"lock_key: {error.message}") from error
        return (names[0],) if len(names) == 1 else tuple(sorted(set(names)))

    return rule


def _template(parameters: Parameters, text: Any) -> Template:
    if isinstance(text, str) and text in parameters.signature.parameters:
        raise parameters.error(
            f"lock_key={text!r} would be one lock for everybody: "
            f'write ("{text}",) or "{text.split("_id")[0] or text}:{{{text}}}"'
        )
    try:
        template = Template.parse(text)
    except ConfigurationError as error:
        raise parameters.error(f"lock_key: {error.message}") from None
    for field in template.fields:
        if field in (parameters.rest, parameters.extra):
            raise parameters.error(
                f"lock_key {text!r}: expected placeholders to name single arguments, got "
                f"{field!r}, which holds any number of them; name it in a tuple: ({field!r},)"
            )
        if field not in parameters.named and parameters.extra is None:
            raise _unknown(parameters, f"lock_key {text!r}", field)
    return template


def _check_distinct(parameters: Parameters, given: Sequence[str]) -> None:
    repeated = sorted({name for name in given if list(given).count(name) > 1})
    if repeated:
        raise parameters.error(
            f"expected lock_key to hold each name once, got {repeated[0]!r} twice; take one out"
        )


def _unknown(parameters: Parameters, what: str, name: str) -> ConfigurationError:
    return parameters.error(
        f"{what}: expected names of the task's arguments ({parameters}), got {name!r}; "
        f"name one of them"
    )


def _example(parameters: Parameters) -> str:
    first = next(iter(parameters.signature.parameters), "account_id")
    return f"lock_key=({first!r},)"
