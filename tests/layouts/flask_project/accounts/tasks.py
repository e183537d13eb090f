from celery import shared_task
from flask import current_app

from celery_redlock import LockedTask
from tests.layouts import spy


@shared_task(base=LockedTask, bind=True, ignore_result=False, lock_key="account:{account_id}")
def sync_account(self, account_id: int) -> str:
    self.lock.check()
    return f"account {account_id} of {current_app.name}"


@shared_task(base=LockedTask, bind=True, ignore_result=False, lock_key="account:{account}")
def report(self, account, gate=None):
    return {**spy.run(self, account, gate), "context": current_app.name}
