"""pytest-celery's nodes: the same tests on its containers and on processes of this machine."""

from __future__ import annotations

from pytest_celery import CeleryTestSetup
from pytest_celery.vendors.worker.tasks import add

READY_WITHIN = 30


def test_a_worker_node_serves_through_its_broker_and_backend(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready(ping=True, control=True, docker=True)
    result = add.s(1, 2).apply_async(queue=celery_setup.worker.worker_queue)
    assert result.get(timeout=READY_WITHIN) == 3
    celery_setup.worker.assert_log_exists("add", timeout=READY_WITHIN)


def test_a_killed_worker_node_is_gone_until_it_is_restarted(celery_setup: CeleryTestSetup) -> None:
    worker = celery_setup.worker
    assert celery_setup.ready(docker=True)
    worker.kill()
    assert worker.container.status == "exited"
    result = add.s(2, 2).apply_async(queue=worker.worker_queue)
    worker.restart()
    assert result.get(timeout=READY_WITHIN) == 4


def test_the_worker_node_is_named_as_the_app_sees_it(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready(docker=True)
    name = celery_setup.worker.hostname()
    assert celery_setup.app.control.ping([name], timeout=5, limit=1) == [{name: {"ok": "pong"}}]


def test_a_server_node_is_known_by_its_status_and_log(celery_setup: CeleryTestSetup) -> None:
    for server in (celery_setup.broker, celery_setup.backend):
        assert server.ready()
        assert server.container.status == "running"
        assert server.container.ready_prompt in server.logs()
