"""The worker's parent: a fresh secret for each receipt, and which of its children has which."""

from __future__ import annotations

import atexit
import functools
import os
import secrets
from contextlib import suppress
from typing import Any, Callable, Mapping, Optional

from celery.app.task import Context
from celery.worker.request import Request

from celery_redlock.core.ports import Terms
from celery_redlock.core.unpatched import has_greenlets
from celery_redlock.exceptions import RedlockError
from celery_redlock.integration import django
from celery_redlock.integration.call import WAIT, Call
from celery_redlock.integration.children import Children
from celery_redlock.integration.handing import CONTENT_TYPE, RECEIPT, SENT, Sent, token_of
from celery_redlock.integration.obtaining import release_kept
from celery_redlock.integration.runtime import runtime_of
from celery_redlock.locking import native
from celery_redlock.locking.hold import Hold
from celery_redlock.observe.logs import logger

#: What the header WAIT says, or one that was lost said.
Wait = Optional[Mapping[str, Any]]


class LockedRequest(Request):  # type: ignore[misc]
    """Celery's request, with a fresh secret for its owner tokens."""

    #: Whether its child has died, and what it held is seen to.
    was_freed = False
    #: Whether a process has taken it.
    is_accepted = False
    #: Whether its body is over, as the process that ran it has told.
    is_settled = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Celery makes a subclass for each task, whose on_success calls no other.
        if "on_success" in vars(cls):
            cls.on_success = _settling(cls.on_success)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._request_dict.pop(SENT, None)
        self._request_dict[CONTENT_TYPE] = self.message.content_type
        self.new_receipt()

    def new_receipt(self) -> str:
        """Tokens that follow from an earlier secret are no more this request's."""
        receipt = self._request_dict[RECEIPT] = secrets.token_hex(16)
        return receipt

    def call(self, wait: Wait = None) -> Call:
        """As its gate will see it. ``wait`` is known of its last delivery, if that was lost."""
        context = _context_of(self)
        wait = wait or self.request_dict.get(WAIT) or (context.headers or {}).get(WAIT)
        return Call(
            task=self.task,
            args=tuple(self.args),
            kwargs=dict(self.kwargs),
            request=context,
            is_traced=True,
            is_eager=False,
            receipt=self.request_dict[RECEIPT],
            wait=wait if wait and isinstance(wait, Mapping) else {},
        )

    def revoked(self) -> bool:
        """Whether it is revoked or has expired; what was kept for it is released then."""
        was_known = self._already_revoked
        is_revoked = bool(super().revoked())
        is_news = is_revoked and not was_known
        if is_news and self.request_dict.get("retries") and hasattr(self.task, "redlock_names"):
            _in_background(lambda: release_kept(self.call()))
        return is_revoked

    def send_along(self, sent: Sent) -> None:
        """What the process that runs it is to know."""
        self._request_dict[SENT] = sent

    def settled(self) -> None:
        """Its body is over, as the process that ran it has told."""
        self.is_settled = True
        if self.worker_pid:
            children.settled(self.worker_pid, self)
        sent, receipt = self._request_dict.get(SENT), self._request_dict[RECEIPT]
        if sent is not None and sent.holds:
            tokens = [token_of(receipt, handed.resource) for handed in sent.holds]
            runtime_of(self.task.app).manager.bodies_over(tokens)

    def give_back_untaken(self) -> None:
        """Release what was handed over with it: its process has not even come to its gate."""
        sent = self._request_dict.get(SENT)
        if sent is None or not sent.holds:
            return
        _in_background(lambda: self._give_back(sent))

    def _give_back(self, sent: Sent) -> None:
        runtime, receipt = runtime_of(self.task.app), self._request_dict[RECEIPT]
        record = runtime.record_of_child(self, self.worker_pid or os.getpid())
        holds = [Hold(handed.resource, Terms(), record) for handed in sent.holds]
        for hold in holds:
            hold.token = token_of(receipt, hold.resource)
        runtime.manager.give_back(holds, sent.holds)

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        self.is_accepted = True
        try:
            children.accepted(pid, self)
        except OSError:  # too many open files: then on_failure is the first to tell
            logger.exception("could not watch the process %s of the task %s", pid, self.id)
        super().on_accepted(pid, time_accepted)

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        # Without return_ok its child may still run: a hard time limit is told before it is ended.
        if return_ok:
            self.settled()
        else:
            children.failed(self.worker_pid, self)
        return super().on_failure(exc_info, send_failed_event, return_ok)


def _context_of(request: LockedRequest) -> Context:
    """As Celery makes one, which looks through all of it for headers of the user's besides."""
    context = Context.__new__(Context)
    vars(context).update(request.request_dict)
    return context


def _in_background(call: Callable[[], None]) -> None:
    # No greenlet may wait for a thread of the system, and no event loop for a lock server.
    if has_greenlets():
        call()
        return
    with suppress(RuntimeError):  # as many threads as may be: the lease ends it
        native.start_thread(call)


def _settling(on_success: Any) -> Any:
    @functools.wraps(on_success)
    def settle(self: LockedRequest, failed__retval__runtime: Any, **kwargs: Any) -> Any:
        self.settled()
        failed, _result, runtime = failed__retval__runtime
        if not failed and runtime is None:
            # A copy of what has succeeded, which Celery drops before it begins: see
            # worker_deduplicate_successful_tasks.
            self.give_back_untaken()
        return on_success(self, failed__retval__runtime, **kwargs)

    return settle


def _free(request: LockedRequest, pid: int) -> None:
    """Release what its child held, which is dead, or was to hold; in a thread of its own."""
    try:
        # The task's app: a worker may have tasks that are bound to another than its own.
        runtime = runtime_of(request.task.app)
        if runtime.settings.enabled:
            receipt = request._request_dict[RECEIPT]
            names = request.task.redlock_names(request.args, request.kwargs)
            tokens = {name: token_of(receipt, name) for name in names}
            runtime.end_for_dead(request.task, runtime.record_of_child(request, pid), tokens)
    except Exception as problem:  # noqa: BLE001 - names come from users' code
        # The lease ends it, or whoever asks next on this host.
        if not isinstance(problem, RedlockError):
            logger.exception(
                "could not name the locks of the dead task %s: whoever asks next on this host "
                "takes them over, else their leases end them",
                request.id,
            )
    finally:
        # Celery closes what a task leaves open in its child, and nothing in this process.
        django.close_connections()


children = Children(_free)
atexit.register(children.finish)
