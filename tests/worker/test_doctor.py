"""``celery redlock doctor`` against real servers: what it finds, and that it leaves nothing."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, Iterator, List, Set

import pytest
from celery import Celery
from click.testing import CliRunner, Result

from celery_redlock import LockedTask
from celery_redlock.integration import checkup, control, inquiring
from celery_redlock.integration.checkup import app_facts
from celery_redlock.integration.cli import redlock
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.store import examining
from celery_redlock.store import scripts as scripts_module
from celery_redlock.store.scripts import source
from tests.harness.process import free_port
from tests.harness.servers import LockServer
from tests.harness.topologies import TOPOLOGIES
from tests.worker.local import apps_apart, local_app

SECRET = "S3CRET"
USER = "examined"


@pytest.fixture(autouse=True)
def _apps_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # On a busy machine a request may take anything.
    monkeypatch.setattr(examining, "_timed", measured)
    monkeypatch.setattr(inquiring, "_REPLIES", 0.05)  # there are no workers
    with apps_apart():
        yield


measure = examining._timed


def measured(connections: Any) -> Any:
    """A round trip, told to be a quick one."""
    trip = measure(connections)
    if trip.length > 0.01:
        trip.length, trip.ahead = 0.01, 0.0
    return trip


@pytest.fixture(scope="module", params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[LockServer]:
    with LockServer.start(request.param, extra=["--appendonly", "yes"]) as server:
        yield server


@pytest.fixture(scope="module")
def any_server() -> Iterator[LockServer]:
    with LockServer.start() as server:
        yield server


def app_on(url: Any, **settings: Any) -> Celery:
    return local_app(redlock_url=url, **settings)


def run(app: Celery, *words: str) -> Result:
    result = CliRunner().invoke(redlock, ["doctor", *words], obj=SimpleNamespace(app=app))
    assert not isinstance(result.exception, Exception), result.exception
    return result


def findings(app: Celery) -> List[Dict[str, str]]:
    told: List[Dict[str, str]] = json.loads(run(app, "--json").output)["findings"]
    return told


def found(app: Celery) -> Dict[str, Dict[str, str]]:
    """The findings by their names."""
    return {each["name"]: each for each in findings(app)}


def bad(app: Celery) -> Dict[str, str]:
    return {
        name: finding["severity"]
        for name, finding in found(app).items()
        if finding["severity"] != "ok"
    }


# --- the command


def test_of_a_sound_server_all_is_well_and_nothing_is_left_on_it(server: LockServer) -> None:
    app = app_on(server.url)
    result = run(app, "--strict")
    assert result.exit_code == 0, result.output
    assert re.search(r"ok +permissions +a lock was acquired, renewed, awaited", result.output)
    assert result.output.splitlines()[0] == server.url
    assert "problems: 0, warnings: 0, ok: " in result.output
    with server.client() as client:
        assert client.keys() == []


def test_a_warning_ends_with_0_and_with_1_if_that_is_asked_for(any_server: LockServer) -> None:
    app = app_on(any_server.url)  # keeps nothing over a restart
    assert bad(app) == {"persistence": "warning"}
    assert run(app).exit_code == 0
    assert run(app, "--strict").exit_code == run(app, "--strict", "--json").exit_code == 1


def test_a_problem_ends_with_1_and_says_what_to_do(any_server: LockServer) -> None:
    with any_server.client() as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            result = run(app_on(any_server.url))
        finally:
            client.config_set("maxmemory", "0")
            client.config_set("maxmemory-policy", "noeviction")
    assert result.exit_code == 1
    assert "problem  eviction" in result.output
    assert "-> set maxmemory-policy noeviction" in result.output


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_server_that_is_away_is_a_finding_and_no_password_is_shown(words: Any) -> None:
    url = f"redis://locks:{SECRET}@127.0.0.1:{free_port()}/0?password={SECRET}"
    result = run(app_on(url, redlock_options={"password": SECRET}), *words)
    assert result.exit_code == 1
    assert "it does not answer" in result.output
    assert "127.0.0.1" in result.output
    assert SECRET not in result.output


def test_a_wrong_setting_is_a_finding_and_no_password_is_shown() -> None:
    result = run(app_on(f"http://:{SECRET}@host"))
    assert result.exit_code == 1
    assert "problem  configuration" in result.output
    assert SECRET not in result.output


def test_task_modules_that_cannot_be_imported_are_a_finding(any_server: LockServer) -> None:
    app = app_on(any_server.url, imports=["no_such_module_of_anybodys"])
    assert found(app)["tasks"]["severity"] == "problem"
    assert "permissions" in found(app)


def test_it_asks_with_the_apps_options(any_server: LockServer) -> None:
    options = {"socket_timeout": 11.5}
    assert bad(app_on(any_server.url, redlock_options=options))["timeout"] == "warning"


# --- what the user may do


Rules = List[str]


@contextmanager
def user(server: LockServer, rules: Rules) -> Iterator[Celery]:
    """An app whose user of the server has these rules."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", USER, "reset", "on", f">{SECRET}", *rules)
        try:
            yield app_on(f"redis://{USER}:{SECRET}@127.0.0.1:{server.port}/0")
        finally:
            client.acl_deluser(USER)


def least_rules(without: str = "") -> Rules:
    commands = {words[0] for words in (*examining.NEEDED, *examining.LOOKING)} - {without}
    return [
        "-@all",
        *(f"+{name.lower()}" for name in sorted(commands)),
        "~redlock:shop:*",
        "&redlock:shop:*",
    ]


def test_what_it_tries_is_what_the_scripts_call() -> None:
    called: Set[str] = set()
    scripts = [path.stem for path in Path(scripts_module.__file__).with_suffix("").glob("*.lua")]
    for name in scripts:
        called.update(re.findall(r"\bcall\('([A-Z]+)'", source(f"{name}.lua")))
    assert {"acquire", "withdraw"} <= set(scripts)
    assert len(called) > 10
    assert called <= {words[0] for words in examining.NEEDED}


def test_a_user_with_the_least_rules_may_do_everything(server: LockServer) -> None:
    with user(server, least_rules()) as app:
        assert {"permissions", "looking", "scripts"}.isdisjoint(bad(app))
        with server.client() as client:
            assert client.keys() == []


def test_a_command_that_the_user_may_not_call_is_named(server: LockServer) -> None:
    for name in sorted({words[0] for words in examining.NEEDED}):
        with user(server, least_rules(without=name)) as app:
            advice = found(app)["permissions"]["advice"]
        assert advice == f"ACL SETUSER <user> +{name.lower()}"


def test_without_the_right_to_scan_only_looking_is_amiss(server: LockServer) -> None:
    with user(server, least_rules(without="SCAN")) as app:
        assert "permissions" not in bad(app)
        assert found(app)["looking"]["advice"] == "ACL SETUSER <user> +scan"


@pytest.mark.parametrize(
    ("place", "missing"), [("~", "~redlock:shop:1:*"), ("&", "&redlock:shop:1:*")]
)
def test_keys_and_channels_that_the_user_may_not_touch_are_named(
    server: LockServer, place: str, missing: str
) -> None:
    rules = [f"{place}other:*" if rule[0] == place else rule for rule in least_rules()]
    with user(server, rules) as app:
        assert found(app)["permissions"]["advice"] == f"ACL SETUSER <user> {missing}"


def test_a_wrong_password_is_a_finding_and_is_not_shown(server: LockServer) -> None:
    with user(server, least_rules()):
        app = app_on(f"redis://{USER}:x{SECRET}@127.0.0.1:{server.port}/0")
        result = run(app)
    assert "it does not answer: the server refused the user name or password" in result.output
    assert SECRET not in result.output


# --- a server that says anything


@contextmanager
def babbling(answer: bytes) -> Iterator[int]:
    """A server that answers each request so; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            while connection.recv(1 << 16):
                connection.sendall(answer)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"+OK\r\n",
        b":7\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"*2\r\n$1\r\nx\r\n$1\r\ny\r\n",
        b"$4\r\n\xff\xfe\r\n\r\n",
        b"-ERR \x1b[2Jno\r\n",
        b"-NOPERM no\r\n",
    ],
)
def test_a_server_that_answers_anything_is_a_finding(answer: bytes) -> None:
    with babbling(answer) as port:
        options = {"socket_timeout": 0.2}
        result = run(app_on(f"redis://127.0.0.1:{port}/0", redlock_options=options))
    assert result.exit_code == 1
    assert "problem" in result.output
    assert all(line.isprintable() for line in result.output.splitlines())


# --- the app


def test_the_facts_of_a_task_are_its_options_in_force(any_server: LockServer) -> None:
    app = app_on(
        any_server.url,
        redlock_ttl=20,
        redlock_max_park=7,
        task_time_limit=50,
        broker_url="redis://127.0.0.1:1/0",
        broker_transport_options={"visibility_timeout": 90},
    )

    @app.task(name="shop.work", base=LockedTask, lock_max_hold=9, acks_late=True)
    def work() -> None: ...

    @app.task(name="shop.other")
    def other() -> None: ...

    facts = app_facts(app)
    assert (facts.visibility_timeout, facts.max_park, facts.restart_grace) == (90, 7, 2)
    (task,) = facts.tasks
    assert (task.name, task.lease, task.max_hold) == ("shop.work", 20, 9)
    assert (task.time_limit, task.acks_late, task.keeps_results) == (50, True, True)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis+socket:///x", (3600, True)),
        ("rediss://x", (3600, True)),
        ("sqs://", (1800, False)),
        ("amqp://x", (None, False)),
    ],
)
def test_the_visibility_timeout_is_the_brokers(url: str, expected: Any) -> None:
    facts = app_facts(app_on("redis://a", broker_url=url))
    assert (facts.visibility_timeout, facts.renews_messages) == expected


@pytest.mark.parametrize(
    ("app", "has_its_own"),
    [
        (lambda: local_app("shop", redlock_url="redis://a"), True),
        (lambda: local_app("__main__", redlock_url="redis://a"), False),
        (lambda: local_app("__main__", redlock_url="redis://a", redlock_prefix="a:"), True),
    ],
)
def test_an_app_has_a_prefix_of_its_own_by_its_name_or_a_setting(
    app: Callable[[], Celery], has_its_own: bool
) -> None:
    assert app_facts(app()).has_own_prefix is has_its_own


def test_examining_keeps_no_connection(any_server: LockServer) -> None:
    app = app_on(any_server.url)
    run(app)
    deadline = time.monotonic() + 20
    with any_server.client() as client:
        while len(client.client_list()) > 1:  # the server takes a moment to see that one is closed
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not runtime_of(app).manager.store._connections._idle


def test_each_of_several_servers_that_decide_together_is_examined(any_server: LockServer) -> None:
    away = [f"redis://127.0.0.1:{free_port()}/0" for _ in range(2)]
    told = findings(app_on([any_server.url, *away]))
    where = {each["where"] for each in told if each["where"]}
    assert len(where) == 3
    assert sum(each["severity"] == "problem" for each in told) >= 2


def test_workers_that_lock_elsewhere_or_nothing_are_named_without_a_password(
    any_server: LockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_on(any_server.url)
    elsewhere = f"redis://:{SECRET}@elsewhere:6379/0"
    nodes = {
        "same@x": app,
        "other@x": app_on(elsewhere),
        "off@x": app_on(any_server.url, redlock_enabled=False),
    }
    answers = [
        {name: control.redlock_server(SimpleNamespace(app=node))} for name, node in nodes.items()
    ]
    old = {"old@x": {"error": "unknown command"}}
    monkeypatch.setattr(app.control, "broadcast", lambda *words, **more: [*answers, old])
    told = run(app).output
    assert "other@x locks on redis://elsewhere:6379/0: it excludes nobody" in told
    assert "off@x locks nothing: it excludes nobody" in told
    assert "same@x" not in told
    assert SECRET not in told


def test_a_broker_that_hangs_is_not_waited_for(
    any_server: LockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, never = app_on(any_server.url), threading.Event()
    monkeypatch.setattr(checkup, "SILENT", 0.1)
    monkeypatch.setattr(app.control, "broadcast", lambda *words, **more: never.wait(30))
    began = time.monotonic()
    assert found(app)["permissions"]["severity"] == "ok"
    assert time.monotonic() - began < 20
    never.set()


def test_of_a_sound_cluster_no_node_is_a_problem(tmp_path: Path) -> None:
    cluster = TOPOLOGIES["cluster"](tmp_path)
    try:
        told = findings(app_on(cluster.url))
    finally:
        cluster.stop()
    assert len({each["where"] for each in told if each["where"]}) == 3
    assert not [each for each in told if each["severity"] == "problem"]
    # Its nodes are not what is asked of independent servers.
    assert not {each["name"] for each in told} & {"majority", "same-host", "clocks"}
