import os
import signal

from celery import shared_task

from celery_redlock import LockedTask
from orders.models import Order
from tests.layouts import spy


@shared_task(base=LockedTask, lock_key="order:{order_id}")
def ship(order_id):
    order = Order.objects.get(pk=order_id)
    if not order.is_shipped:
        order.is_shipped = True
        order.save()


@shared_task(base=LockedTask, bind=True, lock_key="account:{account}")
def report(self, account, gate=None):
    return spy.run(self, account, gate)


def customer_of(order_id):
    """Names the resource by a query: its connection is open before the task waits."""
    return f"customer:{Order.objects.get(pk=order_id).customer}"


@shared_task(base=LockedTask, bind=True, lock_key=customer_of)
def remind(self, order_id):
    return [self.lock.resource, Order.objects.get(pk=order_id).customer]


@shared_task(base=LockedTask, lock_key=customer_of)
def crash(order_id):
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(base=LockedTask, bind=True, lock_key=("order",))
def price(self, order, discount=0):
    return self.lock.resource


@shared_task(base=LockedTask, lock_key="order:{order}")
def mistaken(order): ...
