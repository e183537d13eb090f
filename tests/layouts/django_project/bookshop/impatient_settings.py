from bookshop.settings import *  # noqa: F403 - as settings for other surroundings are written

DATABASES = {
    "default": {
        **DATABASES["default"],  # noqa: F405 - from the star above
        "ENGINE": "bookshop.impatient",
        "CONN_MAX_AGE": 1,
    }
}
