"""The harness itself: what the worker tests rely on, and that its alarms can sound."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, List

import pytest

from examples.demo.bodylog import BodyLog, now_ns
from tests.harness.broker import RabbitMQ
from tests.harness.process import Program, is_living
from tests.harness.shop import MakeShop, Shop

SOON = 20.0


def assert_dead(pids: List[int]) -> None:
    assert [pid for pid in pids if is_living(pid)] == []


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_plain_task_runs_on_a_worker_process(shop: Shop, pool: str) -> None:
    worker = shop.worker(pool=pool)
    result = shop.send("hold", "account:1")
    assert result.get(timeout=SOON) == "account:1"
    (body,) = shop.bodies.wait_for(count_ended=1)
    assert body.task_id == result.id
    assert body.pid in (worker.pids() if pool == "prefork" else [worker.pid])
    assert worker.stop()
    assert_dead([worker.pid, body.pid])


def test_two_plain_bodies_on_one_resource_are_reported_as_overlapping(shop: Shop) -> None:
    shop.worker(concurrency=2)
    gate = shop.gate()
    results = [shop.send("hold", "account:1", gate.path) for _ in range(2)]
    shop.bodies.wait_for(count_started=2, timeout=SOON)
    gate.open()
    for result in results:
        result.get(timeout=SOON)
    first, second = shop.bodies.wait_for(count_ended=2)
    assert shop.bodies.overlaps() == [(first, second)]
    assert shop.bodies.overlaps(limit=2) == []
    with pytest.raises(AssertionError, match="1 bodies ran beyond the limit of 1"):
        shop.bodies.assert_exclusive()


def test_bodies_one_after_the_other_or_on_other_resources_do_not_overlap(tmp_path: Path) -> None:
    log = BodyLog(tmp_path / "bodies.log")
    with log.body("a", fence=1), log.body("b", fence=7):
        pass
    with log.body("a", fence=2):
        pass
    log.assert_exclusive()
    log.assert_fences_grow()
    with log.body("a", fence=2):
        pass
    with pytest.raises(AssertionError, match="the fence did not grow"):
        log.assert_fences_grow()


def test_shared_bodies_overlap_with_exclusive_ones_only(tmp_path: Path) -> None:
    log = BodyLog(tmp_path / "bodies.log")
    with log.body("a", shared=True), log.body("a", shared=True):
        assert log.overlaps() == []
        with log.body("a"):
            pass
    assert len(log.overlaps()) == 1


def test_a_killed_body_has_no_end_and_lasts_until_its_death_if_that_is_known(
    tmp_path: Path,
) -> None:
    log = BodyLog(tmp_path / "bodies.log")
    die = "import os, sys; from examples.demo.bodylog import BodyLog\n"
    die += "with BodyLog(sys.argv[1]).body('a'): os.kill(os.getpid(), 9)"
    died = subprocess.run([sys.executable, "-c", die, str(log.path)], check=False)
    assert died.returncode == -signal.SIGKILL
    (killed,) = log.bodies()
    assert killed.end is None
    before = now_ns()
    with log.body("a"):
        pass
    log.assert_exclusive()
    log.assert_exclusive(deaths={killed.pid: before})
    assert log.overlaps(deaths={killed.pid: now_ns()})
    assert log.overlaps(unended_runs=True)


def test_a_failing_body_has_an_end(shop: Shop) -> None:
    with shop.embedded_worker(), pytest.raises(ValueError, match="account:1"):
        shop.send("fail", "account:1").get(timeout=SOON)
    shop.bodies.wait_for(count_ended=1)


def test_a_killed_worker_leaves_no_process(shop: Shop) -> None:
    worker = shop.worker(concurrency=2)
    shop.send("hold", "account:1", shop.gate().path)
    (body,) = shop.bodies.wait_for(count_started=1, timeout=SOON)
    members = worker.members()
    assert {worker.pid, body.pid} <= set(members)
    worker.kill()
    assert_dead(members)
    assert worker.members() == []


def test_a_program_that_ignores_term_and_what_it_started_are_ended(tmp_path: Path) -> None:
    code = "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    code += "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    code += "print('started', flush=True); time.sleep(600)"
    program = Program([sys.executable, "-c", code], output=tmp_path / "output")
    program.start()
    program.wait_for_text("started", SOON)
    members = [process.pid for process in program.members()]
    assert len(members) == 2
    assert not program.stop(timeout=0.2)
    assert_dead(members)


def test_a_program_that_ends_early_is_an_error_with_its_output(tmp_path: Path) -> None:
    program = Program([sys.executable, "-c", "print('cannot')"], output=tmp_path / "output")
    program.start()
    with pytest.raises(RuntimeError, match=r"ended without printing 'ready'(.|\n)*cannot"):
        program.wait_for_text("ready", SOON)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PDEATHSIG is Linux's")
def test_programs_die_with_a_test_run_that_is_killed(tmp_path: Path) -> None:
    code = "import os, sys, time; from pathlib import Path; from tests.harness.process import *\n"
    code += "program = Program(['sleep', '600'], output=Path(sys.argv[1]))\n"
    code += "program.start(); print(program.pid, flush=True); time.sleep(600)"
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "output")], stdout=subprocess.PIPE
    )
    with run:
        assert run.stdout is not None
        program = int(run.stdout.readline())
        run.kill()
    wait_until(lambda: not is_living(program))


@pytest.mark.parametrize("backend", ["rpc", "database"])
def test_a_task_goes_round_through_rabbitmq(make_shop: MakeShop, backend: str) -> None:
    shop = make_shop(broker="rabbitmq", backend=backend)
    shop.worker(concurrency=1)
    assert shop.send("add", 2, 3).get(timeout=SOON) == 5


def test_a_message_survives_the_worker_that_had_not_acknowledged_it(make_shop: MakeShop) -> None:
    shop = make_shop(broker="rabbitmq", backend="database", task_acks_late=True)
    gate = shop.gate()
    worker = shop.worker(concurrency=1)
    result = shop.send("hold", "account:1", gate.path)
    shop.bodies.wait_for(count_started=1, timeout=SOON)
    worker.kill()
    gate.open()
    shop.worker(concurrency=1)
    assert result.get(timeout=SOON) == "account:1"
    killed, redelivered = shop.bodies.wait_for(count_started=2, count_ended=1)
    assert killed.end is None
    assert killed.task_id == redelivered.task_id


def test_a_killed_rabbitmq_leaves_no_process(tmp_path: Path) -> None:
    server = RabbitMQ(tmp_path)
    server.start()
    members = server.members()
    assert server.pid in members
    server.kill()
    assert not server.is_running
    assert_dead(members)


def test_several_shops_do_not_see_one_anothers_tasks(make_shop: MakeShop) -> None:
    here, there = make_shop(), make_shop()
    assert here.queue != there.queue
    with here.embedded_worker():
        unseen = there.send("add", 1, 1)
        assert here.send("add", 1, 2).get(timeout=SOON) == 3
        assert unseen.state == "PENDING"
