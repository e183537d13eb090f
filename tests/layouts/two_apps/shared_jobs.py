from celery import shared_task
from shops import books, music

from celery_redlock import LockedTask
from tests.layouts import spy


@shared_task(base=LockedTask, bind=True, lock_key="account:{account}")
def report(self, account, gate=None):
    return spy.run(self, account, gate)


@shared_task(base=LockedTask, bind=True, lock_key="account:{account}")
def report_in_both(self, account):
    """The other app's task of the same name, on the resource of the same name, inside this one."""
    other = music if self.app.main == books.main else books
    return [spy.seen_by(self), other.tasks[report.name](account)]
