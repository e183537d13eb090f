"""A FastAPI project: endpoints that send tasks and tell their state, the tasks in ``worker.py``."""

from __future__ import annotations

import json

from tests.layouts.conftest import MakeProject

SOON = 30.0

CLIENT = f"""
import asyncio, json, time
import httpx
from main import app


async def use():
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        sent = await client.post("/reports", json={{"tenant": "Ann", "pages": 3}})
        url = f"/reports/{{sent.json()['task_id']}}"
        deadline = time.monotonic() + {SOON}
        while time.monotonic() < deadline:
            state = (await client.get(url)).json()
            if state["task_status"] not in ("PENDING", "STARTED"):
                break
    return [sent.status_code, state]

print(json.dumps(asyncio.run(use())))
"""


def test_an_endpoint_sends_a_locked_task_and_another_tells_its_state(
    make_project: MakeProject,
) -> None:
    project = make_project("fastapi")
    project.worker(concurrency=1)
    done = project.python("-c", CLIENT)
    assert done.returncode == 0, done.stderr
    state = {"task_status": "SUCCESS", "task_result": "3 pages for Ann"}
    assert json.loads(done.stdout.splitlines()[-1]) == [201, state]
