"""Errors that a server answers instead of running a request."""

from __future__ import annotations

import re

from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

#: What a server answers before a script does anything: no copy of the request runs, or will.
_REFUSALS = (
    AskError,  # and MovedError
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    TryAgainError,
)

#: The same for what this redis-py has no class for; older ones have none for a cluster's.
_REFUSED = re.compile("(ASK|BUSY|CLUSTERDOWN|MASTERDOWN|MISCONF|MOVED|NOREPLICAS|TRYAGAIN) ")


def is_refusal(error: BaseException) -> bool:
    """Whether the server has said that it did not run the request: it may be asked once more."""
    return isinstance(error, _REFUSALS) or (
        isinstance(error, ResponseError) and _REFUSED.match(str(error)) is not None
    )


def is_deposed(error: ResponseError) -> bool:
    """Whether this may be no master any more: one without its replicas may have lost to them."""
    return isinstance(error, ReadOnlyError) or str(error).startswith("NOREPLICAS ")
