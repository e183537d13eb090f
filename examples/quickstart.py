"""One locked task: the same call never overlaps itself.

    celery -A examples.quickstart worker --loglevel INFO     in one terminal
    python -m examples.quickstart                            in another: three calls at once

Their bodies run one after the other. A call with another argument would not wait for them.
Redis is expected on localhost; say where else with REDIS_URL (without a database's number).
"""

from __future__ import annotations

import os
import time

from celery import Celery, group
from celery.utils.log import get_task_logger

from celery_redlock import LockedTask

redis = os.environ.get("REDIS_URL", "redis://localhost:6379")

# Named like the module, so that tasks have one name whether it is imported or run.
app = Celery("examples.quickstart", broker=f"{redis}/0", backend=f"{redis}/1")
app.conf.redlock_url = f"{redis}/2"
app.conf.broker_connection_retry_on_startup = True

logger = get_task_logger(__name__)


@app.task(base=LockedTask)
def rebuild_index(shop: str) -> str:
    logger.info("begin %s", shop)
    time.sleep(0.3)
    logger.info("end %s", shop)
    return f"the index of {shop} is new"


def main() -> None:
    calls = group(rebuild_index.s("books") for _ in range(3))
    for line in calls().get(timeout=30):
        print(line)


if __name__ == "__main__":
    main()
