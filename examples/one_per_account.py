"""One at a time per account, and different accounts side by side.

    celery -A examples.one_per_account worker --concurrency 4 --loglevel INFO
    python -m examples.one_per_account

The template names what is locked. Every argument that it does not name (``full``) makes no
difference, and another task with the same template would share the accounts' locks.
"""

from __future__ import annotations

import os
import time

from celery import Celery, group
from celery.utils.log import get_task_logger

from celery_redlock import LockedTask

redis = os.environ.get("REDIS_URL", "redis://localhost:6379")

app = Celery("examples.one_per_account", broker=f"{redis}/0", backend=f"{redis}/1")
app.conf.redlock_url = f"{redis}/2"
app.conf.broker_connection_retry_on_startup = True

logger = get_task_logger(__name__)


@app.task(base=LockedTask, lock_key="account:{account_id}")
def sync_account(account_id: int, full: bool = False) -> int:
    logger.info("begin account:%s", account_id)
    time.sleep(0.4)
    logger.info("end account:%s", account_id)
    return account_id


def main() -> None:
    calls = [(1, False), (2, False), (1, True), (2, True)]
    done = group(sync_account.s(account_id, full=full) for account_id, full in calls)
    print("synced accounts", *done().get(timeout=30))


if __name__ == "__main__":
    main()
