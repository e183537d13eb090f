"""A script that takes the lock of the tasks: none of them runs beside it.

    celery -A examples.lock_in_a_script worker --concurrency 4 --loglevel INFO
    python -m examples.lock_in_a_script

The name is made of the task's own template, so it is the very same lock. If the script is killed
while it holds it, its lease ends it.
"""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery
from celery.utils.log import get_task_logger

from celery_redlock import Lock, LockedTask, resource

redis = os.environ.get("REDIS_URL", "redis://localhost:6379")

app = Celery("examples.lock_in_a_script", broker=f"{redis}/0", backend=f"{redis}/1")
app.conf.redlock_url = f"{redis}/2"
app.conf.broker_connection_retry_on_startup = True

logger = get_task_logger(__name__)

ACCOUNT = "account:{account_id}"


@app.task(base=LockedTask, bind=True, lock_key=ACCOUNT)
def sync_account(self: Any, account_id: int) -> int:
    logger.info("begin account:%s", account_id)
    time.sleep(0.1)
    logger.info("end account:%s", account_id)
    return int(self.lock.fence)


def main() -> None:
    sync_account.delay(1).get(timeout=30)
    with Lock(resource(ACCOUNT, account_id=1), app=app) as lock:
        waiting = sync_account.delay(1)
        time.sleep(0.5)
        print("closed with fence", lock.fence)
        beside = int(waiting.ready())
    print("synced again with fence", waiting.get(timeout=30))
    print(f"account 1 is closed: {beside} synced beside it")


if __name__ == "__main__":
    main()
