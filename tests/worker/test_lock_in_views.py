"""Lock in a web view: of Django, of FastAPI with and without async, of several requests at once."""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Iterator

import pytest
from celery import Celery

from celery_redlock import Lock, resource
from celery_redlock.integration.runtime import runtime_of
from examples.demo.bodylog import BodyLog
from tests.harness.servers import LockServer, missing
from tests.worker.local import apps_apart, local_app

SOON = 20.0
REQUESTS = 6


@pytest.fixture
def app(lock_server: LockServer) -> Iterator[Celery]:
    with apps_apart():
        app = local_app(redlock_url=lock_server.url, redlock_restart_grace=0)
        yield app
        runtime_of(app).manager.store.close()


@pytest.fixture
def bodies(tmp_path: Path) -> BodyLog:
    return BodyLog(tmp_path / "bodies.log")


def sync_account(app: Celery, bodies: BodyLog, account: str) -> int:
    """What the views do: one request at a time for an account."""
    with Lock(resource("account:{account}", account=account), app=app) as lock:
        assert lock.fence is not None
        with bodies.body(lock.name, lock.fence):
            return lock.fence


def assert_took_turns(bodies: BodyLog, fences: Any) -> None:
    assert len(set(fences)) == REQUESTS
    assert len(bodies.bodies()) == REQUESTS
    bodies.assert_exclusive()
    bodies.assert_fences_grow()


def test_a_django_view(app: Celery, bodies: BodyLog, account: str) -> None:
    _need("django")
    from django.conf import settings
    from django.http import HttpRequest, JsonResponse
    from django.test import RequestFactory

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"])

    def sync(request: HttpRequest) -> JsonResponse:
        return JsonResponse({"fence": sync_account(app, bodies, request.GET["account"])})

    def get(_number: int) -> int:
        request = RequestFactory().get("/sync", {"account": account})
        return int(json.loads(sync(request).content)["fence"])

    with ThreadPoolExecutor(REQUESTS) as pool:
        assert_took_turns(bodies, pool.map(get, range(REQUESTS), timeout=SOON))


@pytest.mark.parametrize("path", ["/sync", "/async", "/held-by-the-coroutine"])
def test_a_fastapi_endpoint(app: Celery, bodies: BodyLog, account: str, path: str) -> None:
    _need("fastapi")
    _need("httpx")
    from fastapi import FastAPI
    from httpx import ASGITransport, AsyncClient

    api = FastAPI()

    @api.get("/sync")
    def in_a_thread(account: str) -> int:
        return sync_account(app, bodies, account)

    @api.get("/async")
    async def by_to_thread(account: str) -> int:
        return await _to_thread(sync_account, app, bodies, account)

    @api.get("/held-by-the-coroutine")
    async def held_by_the_coroutine(account: str) -> int:
        lock = Lock(resource("account:{account}", account=account), app=app)
        await _to_thread(lock.acquire)
        try:
            assert lock.fence is not None
            with bodies.body(lock.name, lock.fence):
                await asyncio.sleep(0.01)
                return lock.fence
        finally:
            await _to_thread(lock.release)

    async def requests() -> Any:
        transport = ASGITransport(app=api)
        async with AsyncClient(transport=transport, base_url="http://shop") as client:
            asked = [client.get(path, params={"account": account}) for _ in range(REQUESTS)]
            return [answer.json() for answer in await asyncio.gather(*asked)]

    assert_took_turns(bodies, asyncio.run(asyncio.wait_for(requests(), SOON)))


async def _to_thread(call: Any, *args: Any) -> Any:
    """As asyncio.to_thread, which Python 3.8 does not have: in a copy of the context."""
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, lambda: context.run(call, *args))


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        missing(package)
