import os

SECRET_KEY = "of a project for tests"
INSTALLED_APPS = ["orders"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["DATABASE_FILE"],
    }
}

CELERY_BROKER_URL = os.environ["BROKER_URL"]
CELERY_RESULT_BACKEND = os.environ["RESULT_URL"]
CELERY_REDLOCK_URL = os.environ["LOCK_URL"]
CELERY_REDLOCK_TTL = 60
