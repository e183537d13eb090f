"""A task's parameters: binding a call to them, and the errors that tell of them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from celery_redlock.exceptions import ConfigurationError


@dataclass(frozen=True)
class Parameters:
    """What a task's signature says, and the errors that tell of it."""

    task: str
    signature: inspect.Signature
    named: Tuple[str, ...]
    rest: Optional[str]  # the name of *args
    extra: Optional[str]  # the name of **kwargs
    plain: bool  # every parameter may be given by place and by name
    defaults: Mapping[str, Any]

    @classmethod
    def of(cls, task: str, signature: inspect.Signature) -> Parameters:
        kinds = {name: given.kind for name, given in signature.parameters.items()}
        variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        rest, extra = (next((n for n in kinds if kinds[n] is kind), None) for kind in variable)
        named = tuple(name for name in kinds if kinds[name] not in variable)
        plain = all(kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in kinds.values())
        defaults = {
            name: given.default
            for name, given in signature.parameters.items()
            if given.default is not inspect.Parameter.empty
        }
        return cls(task, signature, named, rest, extra, plain, defaults)

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        """TypeError for a call that does not fit."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as misfit:
            raise TypeError(f"task {self.task}: {misfit}") from None
        bound.apply_defaults()
        return bound

    def given(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Dict[str, Any]:
        """Every argument by its name, with defaults, and those that ``**kwargs`` took.

        TypeError for a call that does not fit.
        """
        if self.plain:
            # Most calls: several times faster than binding them.
            given = {**self.defaults, **kwargs}
            by_place = dict(zip(self.named, args))
            given.update(by_place)
            fits = len(args) <= len(self.named) and not by_place.keys() & kwargs.keys()
            if fits and given.keys() == self.signature.parameters.keys():
                return given
        return self.spread(self.bind(args, kwargs))

    def spread(self, bound: inspect.BoundArguments) -> Dict[str, Any]:
        """Every argument by its name, those that ``**kwargs`` took included."""
        extra = {} if self.extra is None else bound.arguments[self.extra]
        return {**extra, **bound.arguments}

    def error(self, text: str) -> ConfigurationError:
        return ConfigurationError(f"task {self.task}: {text}")

    def __str__(self) -> str:
        return ", ".join(self.signature.parameters) or "none"
