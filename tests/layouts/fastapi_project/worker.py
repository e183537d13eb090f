import os

from celery import Celery

from celery_redlock import LockedTask
from tests.layouts import spy

celery = Celery(__name__)
celery.conf.broker_url = os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379")
celery.conf.result_backend = os.environ.get("CELERY_RESULT_BACKEND", "redis://localhost:6379")
celery.conf.redlock_url = os.environ.get("REDLOCK_URL", "redis://localhost:6379/2")
celery.conf.redlock_ttl = 60


@celery.task(name="create_report", base=LockedTask, lock_key="tenant:{tenant}")
def create_report(tenant, pages):
    return f"{pages} pages for {tenant}"


@celery.task(base=LockedTask, bind=True, lock_key="account:{account}")
def report(self, account, gate=None):
    return spy.run(self, account, gate)
