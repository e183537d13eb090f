"""Every error comes back to the caller as it was raised, whatever the results are written in."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Tuple

import pytest

import celery_redlock
from tests.harness.locked_shop import LockedShop

SOON = 20.0

ERRORS: Dict[str, Tuple[List[Any], Dict[str, Any]]] = {
    "ConfigurationError": (["expected this"], {"message": "expected this"}),
    "LockConflict": (["r", "task", 17.5], {"resource": "r", "holder": "task", "since": 17.5}),
    "LockTimeout": (
        ["r", 2.5, None, "s", "task"],
        {"resource": "r", "waited": 2.5, "holder": None, "held": "s", "owner": "task"},
    ),
    "LockUnavailable": (["here: refused"], {"servers": "here: refused"}),
    "LockError": (["not like this"], {}),
    "LockNotOwned": (["r"], {"resource": "r"}),
    "LockLost": (["r", 1795364762386080], {"resource": "r", "fence": 1795364762386080}),
    "LockUnsure": (["r", None], {"resource": "r", "fence": None}),
}

#: Only the results: a worker that takes pickled messages does not run as root.
SERIALIZERS = {
    "json": {},
    "pickle": {"result_serializer": "pickle", "result_accept_content": ["json", "pickle"]},
}


@pytest.fixture(scope="module", params=list(SERIALIZERS))
def shop(request: pytest.FixtureRequest, make_locked_shop: Callable[..., LockedShop]) -> LockedShop:
    shop = make_locked_shop(**SERIALIZERS[request.param])
    shop.worker(concurrency=1)
    return shop


@pytest.mark.parametrize("name", list(ERRORS))
def test_an_error_comes_back_as_the_same_class_with_the_same_fields(
    shop: LockedShop, name: str
) -> None:
    arguments, fields = ERRORS[name]
    kind = getattr(celery_redlock, name)
    with pytest.raises(kind) as caught:
        shop.send("raise_error", name, arguments).get(timeout=SOON)
    assert type(caught.value) is kind
    assert caught.value.args == tuple(arguments)
    assert {field: getattr(caught.value, field) for field in fields} == fields


def test_every_error_is_tried() -> None:
    root = celery_redlock.RedlockError
    public = (getattr(celery_redlock, name) for name in celery_redlock.__all__)
    errors = {one.__name__ for one in public if isinstance(one, type) and issubclass(one, root)}
    assert errors - {"RedlockError"} == set(ERRORS)
