from bookshop.settings import *  # noqa: F403 - as settings for other surroundings are written

CELERY_REDLOCK_TTL = "60"
