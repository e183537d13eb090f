"""What happens to a task class when it is bound to its app: checks, and the gate's place.

The gate is put around whatever ``__call__`` the finished class has, the user's or his app's own, so
that it is reached in every order of bases; what it runs is then that ``__call__``, inside the lock.
"""

from __future__ import annotations

import functools
import inspect
import types
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple

from celery import Task
from celery.local import Proxy
from celery.utils.imports import symbol_by_name

from celery_redlock.core.naming import Naming
from celery_redlock.core.options import OPTIONS, RESERVED, check_attributes
from celery_redlock.exceptions import ConfigurationError

#: (task, the ``__call__`` that it is around or None for Celery's own, args, kwargs) -> result.
Gate = Callable[[Any, Optional[Callable[..., Any]], Tuple[Any, ...], Dict[str, Any]], Any]


def tasks_of(cls: Any, app: Any) -> Dict[str, Any]:
    """The tasks of this class by name: instances, or the class where none is registered yet.

    Empty for a base class. Only the instances of a class-based task know the names they were given.
    """
    if vars(cls).get("_decorated"):
        return {cls.name: app._tasks.get(cls.name, cls)}
    tasks = {name: task for name, task in app._tasks.items() if type(task) is cls}
    return tasks or ({cls.name: cls} if cls.name else {})


def instances(tasks: Mapping[str, Any]) -> List[Any]:
    """Those of ``tasks_of`` that are tasks already; a class is one that is not registered yet."""
    return [task for task in tasks.values() if not inspect.isclass(task)]


def forget(tasks: Iterable[str], app: Any) -> None:
    """Take tasks that cannot be bound out of the registry again.

    Celery registers a task before it binds it: the next use would find it there, without a lock.
    """
    for name in tasks:
        app._tasks.pop(name, None)


def join_app_base(cls: Any, app: Any) -> None:
    """Give the class the methods of the app's own Task class (Django's, a Flask recipe's)."""
    base = app.Task
    if issubclass(cls, base) or _adds_nothing(base):
        return
    # A base that the app's class extends is replaced by it, otherwise the app's class comes last.
    bases = [base if issubclass(base, parent) else parent for parent in cls.__bases__]
    bases = list(dict.fromkeys(bases))
    if base not in bases:
        bases.append(base)
    try:
        cls.__bases__ = tuple(bases)
    except TypeError as error:
        raise ConfigurationError(
            f"task class {cls.__name__}: expected a base that can be combined with the app's own "
            f"Task class {base.__name__}, got {', '.join(b.__name__ for b in cls.__bases__)} "
            f"({error}); make one base class of both"
        ) from error


def _adds_nothing(base: Any) -> bool:
    """Whether it is Celery's own Task, or what an app makes of that when it is given no other."""
    return base is Task or (base.__bases__ == (Task,) and base.__module__ == Task.__module__)


def check(task: Any, cls: Any, root: Any, name: str) -> None:
    """Every option given to the task, whoever gave it; one clear error for the first bad one."""
    bases = [base for base in cls.__mro__[1:] if base not in root.__mro__]
    given: Dict[str, Any] = {}
    for owner in reversed(bases):
        given.update(_ours(vars(owner)))
    own = {**vars(cls), **vars(task)}  # a class-based task's __init__ may set some, too
    given.update(_ours(own))
    given.update({key: own[key] for key in own if _is_a_slip(key, bases)})
    check_attributes({key: _plain(value) for key, value in given.items()}, name)


def _ours(attributes: Mapping[str, Any]) -> Dict[str, Any]:
    names = (*OPTIONS, *RESERVED)
    return {name: attributes[name] for name in names if name in attributes}


def _is_a_slip(name: str, bases: List[Any]) -> bool:
    """A name like an option's that no base class of the user's has made his own."""
    looks_like = name.startswith(("lock_", "unique")) and name not in OPTIONS
    return looks_like and not any(name in vars(base) for base in bases)


def refuse_options(task: str, given: Iterable[str]) -> None:
    """Refuse what was given to one call although it belongs to the task."""
    for name in given:
        if name.startswith(("lock_", "unique")):
            raise ConfigurationError(
                f"task {task}: expected no lock options with one call, got {name}; "
                f"give it to the task's decorator"
            )


def naming_of(task: Any, cls: Any, app: Any, name: str) -> Naming:
    """How a call of this task is named; ConfigurationError for a ``lock_key`` that cannot be."""
    # Not yet an instance if it is bound before it is registered: looked up when it is called.
    receiver = Proxy(lambda: app.tasks[name])
    return Naming.of(name, signature_of(cls), _as_written(task, cls, "lock_key", receiver))


def signature_of(cls: Any) -> inspect.Signature:
    """The signature of a call: that of ``run`` without a bound ``self``."""
    run = inspect.getattr_static(cls, "run")
    if isinstance(run, (staticmethod, classmethod)):
        return inspect.signature(run.__get__(None, cls))
    return inspect.signature(types.MethodType(run, cls))


def options_of(task: Any, names: Iterable[str]) -> Dict[str, Any]:
    """The options as the task has them, the annotations' included."""
    return {name: _as_written(task, type(task), name, task) for name in names}


def _as_written(task: Any, cls: Any, name: str, receiver: Any) -> Any:
    """A callable option as it was written: a function is no method for being stored in a class.

    Only a method, defined with ``def`` in a class body, gets the ``receiver`` as its ``self``.
    """
    owners = [owner for owner in (task, *cls.__mro__) if name in vars(owner)]
    if not owners:
        return None
    value = vars(owners[0])[name]
    if isinstance(value, (staticmethod, classmethod)):
        return value.__get__(receiver, cls)
    return functools.partial(value, receiver) if _is_method(value, owners[0]) else value


def _is_method(value: Any, owner: Any) -> bool:
    if not inspect.isfunction(value) or value.__name__ == "<lambda>" or not inspect.isclass(owner):
        return False
    return value.__qualname__.rpartition(".")[0] == owner.__qualname__


def install_gate(cls: Any, gate: Gate) -> None:
    """Put the gate around the ``__call__`` that the class has, unless it has inherited one."""
    found = cls.__call__
    if getattr(found, "redlock_gate", False):
        return
    # Celery replaces its own __call__ when a worker starts: it is looked up when it is called.
    inner = None if _is_celerys(cls) else found

    @functools.wraps(found)
    def __call__(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if type(self).__call__ is not __call__:
            # Reached by super(): the gate of the subclass is around this already.
            return (inner or Task.__call__)(self, *args, **kwargs)
        return gate(self, inner, args, kwargs)

    __call__.redlock_gate = True  # type: ignore[attr-defined]
    cls.__call__ = __call__


def _is_celerys(cls: Any) -> bool:
    return next(base for base in cls.__mro__ if "__call__" in vars(base)) is Task


def join_request(cls: Any, root: Any) -> None:
    """A Request class of the user's, or of his app's Task, keeps its methods and gets ours."""
    given = next(vars(c)["Request"] for c in cls.__mro__ if "Request" in vars(c) and c is not root)
    if given in (Task.Request, root.Request):
        return
    from celery_redlock.integration.request import LockedRequest

    theirs = symbol_by_name(given)
    if not issubclass(theirs, LockedRequest):
        theirs = type(theirs.__name__, (LockedRequest, theirs), {"__doc__": theirs.__doc__})
    cls.Request = theirs


def _plain(value: Any) -> Any:
    return value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
