"""SQLite behind a server that hangs up on the idle."""

import time

from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

IDLE_SECONDS = 1.5


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params):
        self._used_at = time.monotonic()
        return super().get_new_connection(conn_params)

    def create_cursor(self, name=None):
        idle, self._used_at = time.monotonic() - self._used_at, time.monotonic()
        if idle > IDLE_SECONDS:
            raise OperationalError(f"server closed the connection, idle for {idle:.1f} s")
        return super().create_cursor(name)
