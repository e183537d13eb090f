from django.db import transaction

from orders.models import Order
from orders.tasks import ship


def place_order(customer):
    with transaction.atomic():
        order = Order.objects.create(customer=customer)
        ship.delay_on_commit(order.pk)
    return order
