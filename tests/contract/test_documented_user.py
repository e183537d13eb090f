"""The user that docs/servers.md makes: enough for everything, and not for more.

That it is enough, every test of the contract shows: their clients log in as this user.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable, Iterator

import pytest
import redis

import celery_redlock.store
from tests.contract.conftest import PREFIX
from tests.harness import acl
from tests.harness.servers import LockServer

SCRIPTS = Path(celery_redlock.store.__file__).parent / "scripts"

#: What is asked beside the scripts' own calls.
ASKED = {"evalsha", "script|load", "subscribe", "ping", "scan", "hlen", "info", "time", "select"}


@pytest.fixture(params=["redis", "valkey"])
def client(
    request: pytest.FixtureRequest, servers: Callable[[str], LockServer]
) -> Iterator[redis.Redis]:
    with redis.Redis(port=servers(request.param).port, **acl.LOGIN) as client:
        yield client


def test_the_documented_user_may_do_what_is_asked_and_nothing_else() -> None:
    called = {
        name.lower()
        for path in SCRIPTS.glob("*.lua")
        for name in re.findall(r"call\('([A-Z]+)'", path.read_text(encoding="utf-8"))
    }
    allowed = {rule[1:] for rule in acl.documented_rules() if rule.startswith("+")}
    assert allowed == called | ASKED


@pytest.mark.parametrize(
    "command",
    [
        ("HGET", "celery-task-meta-1", "f"),
        ("GET", f"{PREFIX}{{r}}:h"),
        ("DEL", f"{PREFIX}{{r}}:h"),
        ("KEYS", "*"),
        ("FLUSHALL",),
        ("EVAL", "return 1", "0"),
        ("SCRIPT", "FLUSH"),
        ("CONFIG", "GET", "requirepass"),
        ("PUBLISH", "celery.pidbox", "x"),
        ("ACL", "LIST"),
    ],
)
def test_it_may_neither_see_nor_break_what_is_not_the_locks(
    client: redis.Redis, command: tuple
) -> None:
    with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)no permissions|can't access"):
        client.execute_command(*command)
