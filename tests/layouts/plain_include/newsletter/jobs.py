from celery_redlock import LockedTask
from newsletter.app import app
from tests.layouts import spy


@app.task(base=LockedTask, bind=True, lock_key="account:{account}")
def report(self, account, gate=None):
    return spy.run(self, account, gate)
