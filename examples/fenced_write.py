"""A write that a stale holder cannot make: the table itself compares fencing numbers.

    celery -A examples.fenced_write worker --concurrency 2 --loglevel INFO
    python -m examples.fenced_write

A lock is a lease. A process that is paused for longer than its lease (a frozen virtual machine, a
stopped process) cannot know it at the moment when it goes on, and another may hold the lock by
then. So the row keeps the fence of its last writer, and a write counts only with a higher one.

Stop a worker's child with ``kill -STOP`` while it works, let another run pass, continue it with
``kill -CONT``: its write is refused.
"""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery
from celery.utils.log import get_task_logger
from sqlalchemy import BigInteger, create_engine
from sqlalchemy.dialects.sqlite import insert  # PostgreSQL's has the same on_conflict_do_update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from celery_redlock import LockedTask

redis = os.environ.get("REDIS_URL", "redis://localhost:6379")

app = Celery("examples.fenced_write", broker=f"{redis}/0", backend=f"{redis}/1")
app.conf.redlock_url = f"{redis}/2"
app.conf.broker_connection_retry_on_startup = True

database = os.environ.get("DATABASE_URL", "sqlite:///prices.sqlite")
engine = create_engine(database, poolclass=NullPool)  # no connection goes through the fork

logger = get_task_logger(__name__)


class Base(DeclarativeBase):
    pass


class Price(Base):
    __tablename__ = "price"
    product_id: Mapped[int] = mapped_column(primary_key=True)
    cents: Mapped[int]
    fence: Mapped[int] = mapped_column(BigInteger)  # about 2 ** 51: too large for 32 bits


class StaleWrite(Exception):
    """A later holder of the lock has already written."""


# A short lease, so that the pause need not be long. "warn": nobody has to interrupt a body that has
# lost its lock, since the table refuses what it writes.
@app.task(
    base=LockedTask, bind=True, lock_key="product:{product_id}", lock_ttl=1, lock_on_lost="warn"
)
def set_price(self: Any, product_id: int, cents: int, seconds: float = 0.0) -> int:
    logger.info("holding product:%s in process %s", product_id, os.getpid())
    time.sleep(seconds)  # asks the supplier
    save(product_id, cents, self.lock.fence)
    return self.lock.fence


def save(product_id: int, cents: int, fence: int) -> None:
    """Write a price, or raise StaleWrite. One statement compares and writes: nothing in between."""
    new = insert(Price).values(product_id=product_id, cents=cents, fence=fence)
    newer_only = new.on_conflict_do_update(
        index_elements=[Price.product_id],
        set_={"cents": new.excluded.cents, "fence": new.excluded.fence},
        where=Price.fence < new.excluded.fence,
    )
    with engine.begin() as connection:
        if connection.execute(newer_only).rowcount == 0:
            raise StaleWrite(f"product {product_id} was written with a fence above {fence}")


@app.on_after_finalize.connect
def create_tables(**_details: Any) -> None:
    Base.metadata.create_all(engine)


def main() -> None:
    results = [set_price.delay(7, cents) for cents in (995, 1095)]
    print("written with fences", *(result.get(timeout=30) for result in results))


if __name__ == "__main__":
    main()
