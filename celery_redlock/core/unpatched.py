"""The standard library as gevent or eventlet found it.

Both replace blocking functions by ones that switch to another greenlet of the same thread. What
must go on while a greenlet computes without yielding runs in a thread of its own, and needs the
originals.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any


def is_patched(module: str) -> bool:
    """Whether gevent or eventlet has replaced what blocks in this module."""
    return _has_patched("gevent.monkey", "is_module_patched", module) or _has_patched(
        "eventlet.patcher", "is_monkey_patched", module
    )


def has_greenlets() -> bool:
    """Whether what looks like a thread here is a greenlet."""
    return is_patched("threading") or is_patched("thread")


def original(module: str, name: str) -> Any:
    """What the standard library's module has under this name."""
    if _has_patched("gevent.monkey", "is_module_patched", module):
        return sys.modules["gevent.monkey"].get_original(module, name)
    # Asked whenever it is loaded: it knows _thread, which it patches as "thread", by both names.
    if "eventlet.patcher" in sys.modules:
        return getattr(sys.modules["eventlet.patcher"].original(module), name)
    return getattr(import_module(module), name)


def _has_patched(patcher: str, question: str, module: str) -> bool:
    # Never imported here: whoever has patched something has imported it.
    loaded = sys.modules.get(patcher)
    return loaded is not None and bool(getattr(loaded, question)(module))
