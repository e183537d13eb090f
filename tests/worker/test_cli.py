"""``celery redlock ls``, ``show`` and ``release``, as an operator uses them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Dict, Iterator, List, Optional

import click
import pytest
from celery import Celery
from celery.bin.worker import worker
from click.testing import CliRunner, Result

from celery_redlock import Lock
from celery_redlock.core.ports import Acquire, Granted, Leave, Line, Queued, Store, Terms
from celery_redlock.core.record import Record
from celery_redlock.integration import control
from celery_redlock.integration.cli import redlock
from celery_redlock.integration.runtime import runtime_of
from tests.harness.independent import Independent
from tests.harness.process import free_port
from tests.harness.servers import LockServer
from tests.worker.local import local_app

HOSTILE = "id\x1b[2J\u202e\nfree"
OPERATOR = f"@{socket.gethostname()}"


class Office:
    """An app, its command line, and a rival that holds and waits on its lock server."""

    def __init__(self, url: str, allow_release: bool) -> None:
        self.app = app(url, redlock_allow_release=allow_release)
        self.manager = runtime_of(self.app).manager
        self.store: Store = self.manager.store

    def run(self, *words: str, answer: Optional[str] = None) -> Result:
        context = SimpleNamespace(app=self.app)
        return CliRunner().invoke(redlock, words, obj=context, input=answer)

    def said(self, *words: str, answer: Optional[str] = None) -> str:
        result = self.run(*words, answer=answer)
        assert result.exit_code == 0, result.output
        return result.output

    def json(self, *words: str) -> Dict[str, Any]:
        document: Dict[str, Any] = json.loads(self.said(*words, "--json"))
        return document

    def hold(
        self, resource: str, task_id: str = "holds", wait: bool = False, lease_ms: int = 60_000
    ) -> int:
        """Hold it, or wait for it: the fence, or the place."""
        record = Record("elsewhere", 7, time.time(), task_id, "shop.work", worker="w1@elsewhere")
        line = Line("", 60_000, 60_000) if wait else None
        ask = Acquire(
            resource, f"token of {task_id}", Terms(lease_ms=lease_ms), record.encode(), line
        )
        answer = self.store.acquire(ask)
        assert isinstance(answer, Queued if wait else Granted), answer
        return answer.seq if isinstance(answer, Queued) else answer.fence  # type: ignore[union-attr]

    def leave(self, resource: str, task_id: str = "holds") -> None:
        self.store.leave(Leave(resource, (f"token of {task_id}",)))

    def holders(self, resource: str) -> List[str]:
        held = self.manager.inspect(resource).holders
        records = (Record.decode(each.record) for each in held if each.remaining_ms > 0)
        return [record.holder for record in records if record]


def app(url: str, **settings: Any) -> Celery:
    return local_app("office", redlock_url=url, redlock_restart_grace=0, **settings)


@contextmanager
def opened(server: LockServer, allow_release: bool = True) -> Iterator[Office]:
    office = Office(server.url, allow_release)
    try:
        yield office
    finally:
        office.store.close()
        server.flush()


@pytest.fixture(scope="module")
def server() -> Iterator[LockServer]:
    """A lock server of this module's own: ``ls`` tells of all that is on it."""
    with LockServer.start() as server:
        yield server


@pytest.fixture
def office(server: LockServer) -> Iterator[Office]:
    with opened(server) as office:
        yield office


@pytest.fixture
def strict_office(server: LockServer) -> Iterator[Office]:
    """One whose app allows no release by force."""
    with opened(server, allow_release=False) as office:
        yield office


# --- ls


def test_where_nothing_is_held_that_is_said(office: Office) -> None:
    assert office.said("ls") == "nothing is held or waited for\n"
    assert office.json("ls") == {"resources": [], "stale": 0}


def test_what_is_held_and_waited_for_is_listed_with_the_awaited_first(office: Office) -> None:
    office.hold("account:1", "first")
    office.hold("account:2", "second")
    office.hold("account:2", "third", wait=True)
    header, *rows, last = office.said("ls").splitlines()
    assert header.startswith("RESOURCE")
    assert [row.split()[:4] for row in rows] == [
        ["account:2", "shop.work", "second", "w1@elsewhere"],
        ["account:1", "shop.work", "first", "w1@elsewhere"],
    ]
    assert last == "2 held, 1 waited for, by 1"


def test_a_pattern_chooses_resources(office: Office) -> None:
    office.hold("account:1")
    office.hold("report:1")
    assert [each["resource"] for each in office.json("ls", "report:*")["resources"]] == ["report:1"]
    assert "report" not in office.said("ls", "account:*")


def test_free_resources_are_not_listed(office: Office) -> None:
    office.hold("account:1")
    office.leave("account:1")
    assert office.said("ls") == "nothing is held or waited for\n"


def test_a_lease_that_is_over_is_stale_and_not_held(office: Office) -> None:
    office.hold("account:1", lease_ms=1)
    time.sleep(0.01)
    assert office.said("ls") == "nothing is held or waited for; 1 stale (see --stale)\n"
    assert "account:1" in office.said("ls", "--stale")
    assert office.json("ls", "--stale")["resources"][0]["lapsed"][0]["task_id"] == "holds"


def test_where_nothing_is_stale_that_is_said(office: Office) -> None:
    office.hold("account:1")
    assert office.said("ls", "--stale") == "nothing is stale\n"


def test_json_has_the_same_keys_for_every_resource(office: Office) -> None:
    office.hold("account:1", "holder")
    office.hold("account:1", "waiter", wait=True)
    (told,) = office.json("ls")["resources"]
    keys = {"resource", "fence", "holders", "waiting", "lapsed", "silent", "forced"}
    assert set(told) == keys == set(office.json("show", "account:1"))
    person = {"task", "task_id", "holder", "worker", "host", "pid", "age"}
    holder = {"fence", "mode", "limit", "kept", "lease_left"}
    assert set(told["holders"][0]) == person | holder
    assert set(told["waiting"][0]) == person | {"place"}


def test_hostile_names_and_values_do_nothing_to_the_terminal(office: Office) -> None:
    office.hold(HOSTILE, HOSTILE)
    office.hold(HOSTILE, HOSTILE + "2", wait=True)
    for words in (("ls",), ("show", HOSTILE), ("release", HOSTILE, "--yes")):
        assert all(line.isprintable() for line in office.said(*words).split("\n")), words
    assert office.run("ls", "--json").output.isascii()


# --- show


def test_a_resource_is_shown_with_its_holder_and_its_line(office: Office) -> None:
    fence = office.hold("account:1", "holder")
    office.hold("account:1", "waiter", wait=True)
    told = office.said("show", "account:1").splitlines()
    assert told[0] == f"account:1  (last fence {fence})"
    assert told[1].startswith("  held by shop.work[holder] on w1@elsewhere (pid 7) for ")
    assert told[2].startswith("  1. in line: shop.work[waiter] on w1@elsewhere (pid 7) for ")


def test_a_resource_that_nobody_knows_is_free(office: Office) -> None:
    assert office.said("show", "account:1") == "account:1  (last fence none)\n  free\n"


# --- release


def test_without_the_setting_nothing_is_released(strict_office: Office) -> None:
    strict_office.hold("account:1")
    result = strict_office.run("release", "account:1", "--yes")
    assert result.exit_code == 1
    assert "redlock_allow_release" in result.output
    assert strict_office.holders("account:1") == ["holds"]


def test_a_release_asks_and_a_no_changes_nothing(office: Office) -> None:
    office.hold("account:1")
    for answer in ("n\n", "\n", ""):
        result = office.run("release", "account:1", answer=answer)
        assert result.exit_code == 1
        assert "held by shop.work[holds]" in result.output
        assert office.holders("account:1") == ["holds"]


def test_a_release_frees_moves_the_fence_and_passes_the_lock_on(office: Office) -> None:
    fence = office.hold("account:1", "holder")
    office.hold("account:1", "waiter", wait=True)
    told = office.said("release", "account:1", answer="y\n")
    assert "released from shop.work[holder] on w1@elsewhere" in told
    assert f"refuse what is written with {fence} or less" in told
    assert office.holders("account:1") == ["waiter"]
    shown = office.json("show", "account:1")
    assert shown["fence"] > fence
    assert shown["forced"]["by"].endswith(OPERATOR)


def test_who_asked_is_logged(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    # A worker in the tests' process may have raised the root's level.
    caplog.set_level("WARNING", "celery_redlock")
    office.hold("account:1", "holder")
    office.said("release", "account:1", "--yes")
    (said,) = [
        each for each in caplog.records if getattr(each, "redlock_event", "") == "lock_forced"
    ]
    assert said.levelname == "WARNING"
    assert f"{OPERATOR} released account:1 by force" in said.getMessage()
    assert "holder" in said.getMessage()


def test_releasing_what_nobody_holds_says_so_and_does_not_ask(office: Office) -> None:
    assert office.said("release", "account:1") == "account:1 is not held\n"
    assert office.json("release", "account:1") == {
        "resource": "account:1",
        "released": [],
        "fence": None,
    }


def test_a_release_in_json_says_who_held_it_and_the_fence(office: Office) -> None:
    fence = office.hold("account:1", "holder")
    told = office.json("release", "account:1", "--yes")
    assert [each["task_id"] for each in told["released"]] == ["holder"]
    assert told["fence"] > fence


def test_the_question_is_no_part_of_the_json(office: Office) -> None:
    office.hold("account:1", "holder")
    result = office.run("release", "account:1", "--json", answer="y\n")
    document = [line for line in result.output.splitlines() if line.startswith("{")]
    assert [each["task_id"] for each in json.loads(document[0])["released"]] == ["holder"]


# --- the same through remote control, without a worker


def node(office: Office, name: str = "w1@here") -> Any:
    pool = SimpleNamespace(info={"processes": [os.getpid()]})
    return SimpleNamespace(app=office.app, hostname=name, consumer=SimpleNamespace(pool=pool))


def test_remote_control_releases_nothing_without_the_setting(strict_office: Office) -> None:
    strict_office.hold("account:1")
    told = control.redlock_release(node(strict_office), "account:1")
    assert "redlock_allow_release" in told["error"]
    assert strict_office.holders("account:1") == ["holds"]


def test_one_request_to_many_workers_ends_one_hold(office: Office) -> None:
    office.hold("account:1", "holder")
    office.hold("account:1", "next", wait=True)
    asked = {"name": "account:1", "by": "ops@desk"}
    first, second = (control.redlock_release(node(office, name), asked) for name in ("a@x", "b@x"))
    assert "released from shop.work[holder]" in first["ok"]
    assert "by ops@desk through a@x" in second["ok"]
    (held,) = office.manager.inspect("account:1").holders
    assert "now held by shop.work[next]" in second["ok"]
    assert f"add its fence {held.fence}" in second["ok"]
    assert office.holders("account:1") == ["next"]


def test_with_its_fence_the_next_holder_is_released_too(office: Office) -> None:
    stale = office.hold("account:1", "holder")
    office.hold("account:1", "next", wait=True)
    control.redlock_release(node(office), "account:1")
    assert (
        "is not held with this fence"
        in control.redlock_release(node(office), "account:1", stale)["ok"]
    )
    (held,) = office.manager.inspect("account:1").holders
    assert "[next]" in control.redlock_release(node(office), "account:1", held.fence)["ok"]
    assert office.holders("account:1") == []


@pytest.mark.parametrize("name", [None, 7, {}, {"by": "x"}])
def test_a_request_without_a_name_is_an_error(office: Office, name: Any) -> None:
    assert "error" in control.redlock_release(node(office), name)


def test_a_worker_tells_of_its_own_locks_only(office: Office) -> None:
    office.hold("account:1", "elsewhere's")
    assert control.redlock_held(node(office)) == {"held": [], "complete": True}
    told = control.redlock_held(node(office, "w1@elsewhere"))
    assert [entry["resource"] for entry in told["held"]] == ["account:1"]
    assert "token" not in json.dumps(told).replace("token of", "")


def test_one_answer_has_a_bounded_number_of_locks(office: Office) -> None:
    for number in range(control._MOST + 5):
        office.hold(f"account:{number}")
    told = control.redlock_held(node(office, "w1@elsewhere"))
    assert len(told["held"]) == control._MOST
    assert told["complete"] is False


# --- the server of workers with a flag


@pytest.fixture
def elsewhere() -> Iterator[LockServer]:
    """Where the workers' flag is, and the app's settings are not."""
    with LockServer.start() as server:
        yield server


def test_every_command_goes_by_the_lock_server_that_a_flag_names(
    office: Office, elsewhere: LockServer
) -> None:
    flag = f"--redlock-url={elsewhere.url}"
    with opened(elsewhere) as theirs:
        theirs.hold("account:1", "theirs")
        office.hold("account:2", "ours")
        assert [each["resource"] for each in office.json(flag, "ls")["resources"]] == ["account:1"]
        assert "shop.work[theirs]" in office.said(flag, "show", "account:1")
        assert "free" in office.said(flag, "show", "account:2").split()
        assert "shop.work[theirs] holds account:1" in office.said(flag, "explain", "theirs")
        assert "released from" in office.said(flag, "release", "account:1", "--yes")
        assert theirs.holders("account:1") == []
        where = {each["where"] for each in office.json(flag, "doctor")["findings"]}
        assert where == {elsewhere.url, ""}
    assert [each["resource"] for each in office.json("ls")["resources"]] == ["account:2"]
    assert office.holders("account:2") == ["ours"]


def test_the_flag_is_given_once_for_each_of_several_servers(office: Office) -> None:
    with Independent.durable() as independent:
        flags = [word for url in independent.urls for word in ("--redlock-url", url)]
        theirs = local_app("office", redlock_url=independent.urls)
        with Lock("account:1", app=theirs):
            (found,) = office.json(*flags, "ls")["resources"]
            assert found["resource"] == "account:1"
        assert office.json("ls")["resources"] == []


def test_it_says_what_the_workers_flag_says_and_refuses_what_that_refuses(office: Office) -> None:
    (theirs,) = [each for each in worker.params if "--redlock-url" in each.opts]
    (ours,) = [each for each in redlock.params if "--redlock-url" in each.opts]
    assert isinstance(theirs, click.Option)
    assert isinstance(ours, click.Option)
    assert ours.help == theirs.help
    for url in ("http://:S3CRET@host", "redis://a;redis://:S3CRET@b"):
        result = office.run("--redlock-url", url, "ls")
        assert result.exit_code == 2
        assert "expected" in result.output
        assert "S3CRET" not in result.output


# --- a server that is away


@pytest.mark.parametrize("words", [("ls",), ("show", "x"), ("release", "x", "--yes")])
def test_a_server_that_is_away_is_one_line_and_a_failure(words: List[str]) -> None:
    nowhere = Office(f"redis://:secret@127.0.0.1:{free_port()}/0", allow_release=True)
    result = nowhere.run(*words)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert len(result.output.splitlines()) == 1
    assert "secret" not in result.output
    told = control.redlock_held(node(nowhere)), control.redlock_release(node(nowhere), "x")
    assert all("error" in each and "secret" not in each["error"] for each in told)


# --- the program itself

PROJECT = """
from celery import Celery

app = Celery("office", broker="memory://")
app.conf.redlock_url = {url!r}
app.conf.redlock_restart_grace = 0
"""


def test_the_installed_program_has_the_commands(office: Office, tmp_path: Any) -> None:
    office.hold("account:1", "holder")
    (tmp_path / "project.py").write_text(
        PROJECT.format(url=runtime_of(office.app).settings.given["redlock_url"])
    )
    run = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "project", "redlock", "ls"],
        cwd=str(tmp_path),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    assert "account:1" in run.stdout
    assert run.stdout.endswith("1 held, none waited for\n")
