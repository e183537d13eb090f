"""The worker ends: what it kept goes back to the queues, in the order in which it came.

First of all nothing must be delivered here any more. What the broker has sent by then arrives as
any message does, so the step stops consuming, and after that sees what it keeps.

RabbitMQ puts a rejected message back where it was. kombu's Redis transport puts it behind all
others, and what is left alone back in reverse, when the last body has ended. So there the newest
goes first to the end that is consumed next, and the oldest last. One transaction for all: workers
that acknowledge meanwhile change the same hash, and each change makes it begin anew.
"""

from __future__ import annotations

import json
from contextlib import suppress
from queue import Empty
from typing import Any, List, Sequence

from kombu.transport import redis

from celery_redlock.integration.parking.keeping import Kept, forget
from celery_redlock.observe.logs import logger


def stop_consuming(consumer: Any) -> None:
    """Have no more messages delivered; raises nothing.

    kombu leaves a BRPOP to the Redis server open, for a second at most, and reads its answer when
    the channel is closed. The first message that is given back would be that answer.
    """
    task_consumer = consumer.task_consumer
    if task_consumer is None:
        return
    channel = task_consumer.channel
    try:
        is_popping = isinstance(channel, redis.Channel) and channel._in_poll
        if is_popping:
            with suppress(Empty):
                channel._brpop_read()
        task_consumer.cancel()
    except Exception as problem:  # noqa: BLE001 - each transport has errors of its own
        logger.warning("could not stop to take messages from the broker: %r", problem)


def give_back(consumer: Any, kept: Sequence[Kept]) -> None:
    """Return the messages of all that were kept, the oldest first in ``kept``.

    For the consumer's thread at a warm, soft or cold shutdown, after ``stop_consuming``. Raises
    nothing: what cannot be returned comes back when the broker misses this worker. What came by an
    earlier connection is dropped.
    """
    current = [each for each in kept if each.is_current(consumer)]
    requests = [each.request for each in current if not each.request.acknowledged]
    try:
        if requests:
            _return(requests)
    except Exception as problem:  # noqa: BLE001 - each transport has errors of its own
        logger.warning(
            "could not give %d messages of waiting tasks back to the broker, which delivers them "
            "again later: %r",
            len(requests),
            problem,
        )
    for each in kept:
        forget(consumer, each)


def _return(requests: List[Any]) -> None:
    channel = requests[0].message.channel
    if isinstance(channel, redis.Channel) and channel.ack_emulation:
        _return_to_redis(channel, requests)
        return
    for request in requests:
        request.message.requeue()
        request.acknowledged = True


def _return_to_redis(channel: Any, requests: List[Any]) -> None:
    tags = [request.message.delivery_tag for request in reversed(requests)]
    qos = channel.qos
    with channel.conn_or_acquire() as client:

        def restore(transaction: Any) -> None:
            # Read by another connection, after this one began to watch: no round trip for each.
            with client.pipeline(transaction=False) as reading:
                for tag in tags:
                    reading.hget(qos.unacked_key, tag)
                messages = reading.execute()
            transaction.multi()
            for tag, message in zip(tags, messages):
                qos._remove_from_indices(tag, transaction)
                if message:
                    payload, exchange, routing_key = json.loads(message)
                    channel._do_restore_message(payload, exchange, routing_key, transaction, False)

        client.transaction(restore, qos.unacked_key)
    for request in requests:
        qos._quick_ack(request.message.delivery_tag)
        request.message._state = "REQUEUED"
        request.acknowledged = True
