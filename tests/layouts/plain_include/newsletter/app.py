import os

from celery import Celery

app = Celery(
    "newsletter",
    broker=os.environ["BROKER_URL"],
    backend=os.environ["RESULT_URL"],
    include=["newsletter.jobs"],
)
app.conf.redlock_url = os.environ["LOCK_URL"]
app.conf.redlock_ttl = 60
