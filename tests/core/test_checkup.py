"""What the doctor makes of facts, and that its page has every check."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from celery_redlock.core import checkup
from celery_redlock.core.checkup.facts import AppFacts, Permissions, ServerFacts, TaskFacts
from celery_redlock.core.checkup.finding import Finding, Severity
from celery_redlock.core.checkup.server import check_server
from celery_redlock.core.checkup.servers import check_servers
from celery_redlock.core.checkup.tasks import check_app

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"

SOUND = ServerFacts(
    address="redis://a:6379/0",
    prefix="redlock:shop:1:",
    info={"redis_version": "7.2.4", "role": "master", "run_id": "a", "aof_enabled": "1"},
    round_trips=(0.001, 0.001, 0.002),
    timeout=2.0,
    is_local=False,
    host="a",
)
TASK = TaskFacts("shop.sync", time_limit=60.0)
APP = AppFacts(tasks=(TASK,))

Expected = Dict[str, str]


def bad(findings: List[Finding]) -> Expected:
    assert all(finding.advice for finding in findings if finding.severity is not Severity.OK)
    return {
        finding.name: finding.severity.value
        for finding in findings
        if finding.severity is not Severity.OK
    }


def informed(**info: str) -> ServerFacts:
    return replace(SOUND, info={**SOUND.info, **info})


def test_a_sound_server_and_a_sound_app_have_nothing_wrong() -> None:
    assert bad(check_server(SOUND, APP)) == {}
    assert bad(check_app(APP)) == {}
    assert all(finding.where == SOUND.address for finding in check_server(SOUND, APP))


SERVERS: List[Tuple[ServerFacts, Expected]] = [
    (ServerFacts("redis://a", silence="refused"), {"reachable": "problem"}),
    (informed(redis_version="6.0.16"), {"version": "problem"}),
    (informed(redis_version="6.2.0"), {}),
    (informed(redis_version="8.4.1"), {}),
    (informed(redis_version="9.0.0"), {"version": "warning"}),
    (informed(redis_version="?"), {"version": "warning"}),
    (informed(valkey_version="7.2.4"), {}),
    (informed(valkey_version="9.1.0"), {}),
    (informed(dragonfly_version="df-v1.2"), {"version": "warning"}),
    (informed(role="slave"), {"role": "problem"}),
    (informed(maxmemory_policy="allkeys-lru", maxmemory="0"), {"eviction": "warning"}),
    (informed(maxmemory_policy="volatile-ttl", maxmemory="9"), {"eviction": "problem"}),
    (informed(maxmemory="100", used_memory="95"), {"memory": "warning"}),
    (informed(maxmemory="100", used_memory="50"), {}),
    (informed(maxmemory="lots"), {}),
    (informed(aof_enabled="0"), {"persistence": "warning"}),
    (replace(SOUND, config={"appendfsync": "no"}), {"persistence": "warning"}),
    (replace(informed(aof_enabled="0"), config={"save": "60 1"}), {"persistence": "warning"}),
    (informed(connected_slaves="1", slave0="state=online,lag=1"), {"replication": "warning"}),
    (
        informed(connected_slaves="1", slave0="state=online,lag=9"),
        {"replication": "warning", "replica-lag": "warning"},
    ),
    (
        informed(connected_slaves="1", slave0="state=wait_bgsave,lag=0"),
        {"replication": "warning", "replica-lag": "warning"},
    ),
    (replace(SOUND, clock_ahead=3.0, clock_error=0.1), {"clock": "warning"}),
    (replace(SOUND, clock_ahead=-3.0, clock_error=0.1), {"clock": "warning"}),
    (replace(SOUND, clock_ahead=3.0, clock_error=2.5), {}),
    (replace(SOUND, round_trips=(0.2,)), {"latency": "warning"}),
    (replace(SOUND, round_trips=(0.001, 0.001, 3.0)), {"latency": "warning"}),
    (replace(SOUND, round_trips=(0.001, 0.001, 10.5)), {"latency": "problem"}),
    (replace(SOUND, timeout=None), {"timeout": "problem"}),
    (replace(SOUND, timeout=11.0), {"timeout": "warning"}),
    (replace(SOUND, permissions=Permissions(commands=("HSET",))), {"permissions": "problem"}),
    (replace(SOUND, permissions=Permissions(keys=True)), {"permissions": "problem"}),
    (replace(SOUND, permissions=Permissions(channels=True)), {"permissions": "problem"}),
    (replace(SOUND, permissions=Permissions(looking=("SCAN",))), {"looking": "warning"}),
    (replace(SOUND, scripts_failed="no"), {"scripts": "problem"}),
    (replace(SOUND, is_authenticated=False), {"authentication": "warning"}),
    (replace(SOUND, is_authenticated=False, is_local=True), {}),
]


@pytest.mark.parametrize(("server", "expected"), SERVERS)
def test_of_a_server_what_is_wrong_is_told(server: ServerFacts, expected: Expected) -> None:
    assert bad(check_server(server, APP)) == expected


def test_an_empty_restart_is_fine_with_a_grace_as_long_as_the_longest_lease() -> None:
    server = informed(aof_enabled="0")
    assert bad(check_server(server, replace(APP, restart_grace=30.0))) == {}


@pytest.mark.parametrize("server", [informed(aof_enabled="0"), replace(SOUND, config={})])
def test_of_several_servers_one_that_forgets_harms_nobody(server: ServerFacts) -> None:
    app = replace(APP, servers=("redis://a", "redis://b", "redis://c"))
    (found,) = (each for each in check_server(server, app) if each.name == "persistence")
    assert (found.severity, "does not vote" in found.sentence) == (Severity.OK, True)


def test_the_advice_on_permissions_is_the_missing_part_of_the_rule() -> None:
    lacks = Permissions(commands=("SCRIPT|LOAD", "HSET"), keys=True, channels=True)
    (found,) = (
        finding
        for finding in check_server(replace(SOUND, permissions=lacks), APP)
        if finding.name == "permissions"
    )
    assert found.advice.endswith("+script|load +hset ~redlock:shop:1:* &redlock:shop:1:*")


def three(**others: Any) -> List[ServerFacts]:
    """Three servers, the last of them with something else."""
    return [
        SOUND,
        replace(informed(run_id="b"), address="redis://b", host="b"),
        replace(
            informed(run_id=others.pop("run_id", "c")), **{"host": "c", "address": "c", **others}
        ),
    ]


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        ([SOUND], {}),
        (three(), {}),
        (three()[:2], {"majority": "problem"}),
        ([*three(), replace(informed(run_id="d"), host="d")], {"majority": "warning"}),
        (three(silence="refused"), {}),
        (
            [replace(server, silence="refused") for server in three()],
            {"majority": "problem"},
        ),
        (three(run_id="b"), {"same-server": "problem"}),
        (three(host="b"), {"same-host": "warning"}),
        (three(clock_ahead=2.0), {"clocks": "warning"}),
        (three(clock_ahead=2.0, clock_error=1.5), {}),
    ],
)
def test_of_several_servers_what_is_wrong_is_told(
    servers: List[ServerFacts], expected: Expected
) -> None:
    assert bad(check_servers(servers)) == expected


def of(**options: Any) -> AppFacts:
    return replace(APP, visibility_timeout=3600.0, tasks=(replace(TASK, **options),))


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (AppFacts(), {}),
        (replace(APP, errors=("redlock_ttl must be …",)), {"configuration": "problem"}),
        (replace(APP, import_error="ImportError: no"), {"tasks": "problem"}),
        (replace(APP, is_enabled=False), {"enabled": "warning"}),
        (replace(APP, has_own_prefix=False), {"prefix": "warning"}),
        (of(lease=3600.0), {"lease": "warning"}),
        (of(max_hold=30.0), {"time-limits": "warning"}),
        (of(max_hold=90.0), {}),
        (of(time_limit=None), {"endless-body": "warning"}),
        (of(time_limit=None, max_hold=30.0), {}),
        (of(time_limit=None, soft_time_limit=30.0), {}),
        (of(acks_late=True, time_limit=7200.0), {"visibility-timeout": "warning"}),
        (of(acks_late=True), {}),
        (of(acks_late=True, time_limit=1900.0), {"visibility-timeout": "warning"}),
        (of(acks_late=True, time_limit=1900.0, wait_timeout=1600.0), {}),
        (of(acks_late=True, time_limit=1900.0, on_conflict="retry"), {}),
        (replace(of(acks_late=True, time_limit=1900.0), renews_messages=True), {}),
        (
            replace(of(acks_late=True, time_limit=2800.0), renews_messages=True),
            {"visibility-timeout": "warning"},
        ),
        (of(keeps_results=False), {}),
        (of(acks_late=True, on_conflict="skip", keeps_results=False), {"results": "warning"}),
        (replace(of(), max_park=3600.0), {"parking": "problem"}),
        (replace(of(), max_park=3600.0, renews_messages=True), {}),
        (replace(of(), max_park=1800.0), {}),
        (replace(APP, servers=("redis://a",), workers={"w@x": ("redis://a",)}), {}),
        (
            replace(APP, servers=("redis://a",), workers={"w@x": (), "w@y": ("redis://a",)}),
            {"workers": "warning"},
        ),
        (
            replace(APP, servers=("redis://a",), workers={"w@x": ("redis://b",)}),
            {"workers": "warning"},
        ),
    ],
)
def test_of_an_app_what_is_wrong_is_told(app: AppFacts, expected: Expected) -> None:
    assert bad(check_app(app)) == expected


def test_of_many_tasks_a_few_are_named() -> None:
    tasks = tuple(TaskFacts(f"shop.task{number}") for number in range(9))
    (found,) = (each for each in check_app(AppFacts(tasks=tasks)) if each.name == "endless-body")
    assert "shop.task0, shop.task1, shop.task2 and 6 more" in found.sentence


def test_the_page_has_every_check_and_no_other() -> None:
    sources = "".join(path.read_text() for path in Path(checkup.__file__).parent.glob("*.py"))
    names = set(re.findall(r'\b(?:ok|warning|problem)\(\s*"([a-z-]+)"', sources))
    assert len(names) > 20
    assert set(re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text(), re.MULTILINE)) == names
