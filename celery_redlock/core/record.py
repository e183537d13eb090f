"""Who holds or waits: the record that travels with a lock.

Opaque to the server's scripts, read by people and by proofs of death. It never contains arguments,
tokens or passwords.
"""

from __future__ import annotations

import json
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, NamedTuple, Optional


class Record(NamedTuple):
    """One holder or waiter, as the others see it. ``since`` is when it asked, in Unix time.

    ``worker`` is the node name of the worker that its body runs in, None elsewhere.
    """

    host: str
    pid: int
    since: float
    task_id: Optional[str] = None
    task: Optional[str] = None
    retries: int = 0
    boot_id: Optional[str] = None
    pid_namespace: Optional[str] = None
    started: Optional[int] = None
    inbox: Optional[str] = None
    worker: Optional[str] = None

    @property
    def holder(self) -> str:
        """The name used in markers and errors: the task id, or ``host/pid`` for a direct lock."""
        return self.task_id or f"{self.host}/{self.pid}"

    def granted(self, fence: int) -> Record:
        """The same since its grant, for a holder: it may have waited after it asked.

        A fence is not less than the server's microseconds when it was issued.
        """
        return self._replace(since=max(self.since, fence / 1e6))

    def encode(self) -> str:
        """One line of JSON; absent fields are left out.

        Written by hand, the process's part of it once: it is sent with every acquire.
        """
        text = _process(
            self.host,
            self.pid,
            self.boot_id,
            self.pid_namespace,
            self.started,
            self.inbox,
            self.worker,
        )
        task = f',"t":{_quoted(self.task)}' if self.task else ""
        task_id = f',"id":{_quoted(self.task_id)}' if self.task_id else ""
        retries = f',"r":{self.retries}' if self.retries else ""
        return f'{text}{task}{task_id}{retries},"s":{self.since!r}}}'

    @classmethod
    def decode(cls, text: str) -> Optional[Record]:
        """The record, or None for a text that no version of ours wrote."""
        try:
            fields: Any = json.loads(text)
            known = {_SHORT[short]: value for short, value in fields.items() if short in _SHORT}
            record = cls(**{"host": "?", "pid": 0, "since": 0.0, **known})
        except (ValueError, TypeError, AttributeError, RecursionError):
            return None
        return record if _is_sound(record) else None


@lru_cache(maxsize=8)
def _process(
    host: str,
    pid: int,
    boot_id: Optional[str],
    pid_namespace: Optional[str],
    started: Optional[int],
    inbox: Optional[str],
    worker: Optional[str],
) -> str:
    """The part of the JSON that is the same for every lock of one process, without its end."""
    fields = {
        "h": host,
        "p": pid,
        "b": boot_id,
        "n": pid_namespace,
        "st": started,
        "i": inbox,
        "w": worker,
    }
    given = {short: value for short, value in fields.items() if value is not None}
    return json.dumps(given, separators=(",", ":"))[:-1]


def _is_sound(record: Record) -> bool:
    """Whether every field is of its type: what is on the server may be anybody's."""
    texts = (record.host, record.task_id, record.task, record.inbox, record.worker)
    return (
        all(text is None or isinstance(text, str) for text in texts)
        and isinstance(record.host, str)
        and isinstance(record.pid, int)
        and abs(record.pid) < _PIDS
        and isinstance(record.retries, int)
        and isinstance(record.since, (int, float))
        and abs(record.since) < _FOREVER
    )


#: No process has a greater pid: a system call does not take one.
_PIDS = 2**31

#: Seconds. Also refuses what is no number, which JSON of Python's may say.
_FOREVER = 1e12

_SHORT = {
    "id": "task_id",
    "t": "task",
    "r": "retries",
    "h": "host",
    "b": "boot_id",
    "n": "pid_namespace",
    "p": "pid",
    "st": "started",
    "i": "inbox",
    "w": "worker",
    "s": "since",
}
