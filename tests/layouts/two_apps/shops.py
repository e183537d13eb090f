import os

from celery import Celery

servers = {"broker": os.environ["BROKER_URL"], "backend": os.environ["RESULT_URL"]}

books = Celery("books", include=["shared_jobs"], **servers)
books.conf.update(
    task_default_queue="books",
    redlock_url=os.environ["LOCK_URL"],
    redlock_prefix=os.environ.get("LOCK_PREFIX"),
    redlock_ttl=60,
)

music = Celery("music", include=["shared_jobs"], **servers)
music.conf.update(
    task_default_queue="music",
    redlock_url=os.environ.get("MUSIC_LOCK_URL", os.environ["LOCK_URL"]),
    redlock_prefix=os.environ.get("LOCK_PREFIX"),
    redlock_ttl=50,
)
