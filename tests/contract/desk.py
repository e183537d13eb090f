"""The words of the contract's tests: one resource of one store, its requests with defaults."""

from __future__ import annotations

import time
from typing import Any, Callable, List, Optional, Tuple

from celery_redlock.core.ports import (
    Acquire,
    AcquireAnswer,
    Beat,
    BeatAnswer,
    Closed,
    Extended,
    Gone,
    Granted,
    HolderView,
    Leave,
    Line,
    Message,
    Queued,
    Reestablish,
    ReestablishAnswer,
    Renew,
    RenewAnswer,
    ResourceView,
    Store,
    Terms,
)
from celery_redlock.store.quorum import QuorumServers

#: Long enough not to end in a test, and one that a test waits for.
LONG = 60_000
SHORT = 150

PATIENCE = 10.0


class AnyClosed:
    """Of several servers one may have buried the token: its word is what is said then."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Closed)


class Desk:
    """Where holders and waiters, named by tokens, ask for one resource."""

    def __init__(self, store: Store, resource: str = "desk") -> None:
        self.store = store
        self.resource = resource

    def ask(
        self,
        token: str,
        *,
        wait: bool = True,
        mode: str = "exclusive",
        limit: int = 1,
        lease_ms: int = LONG,
        orphans: Tuple[str, ...] = (),
        kept: str = "",
        record: str = "",
        **line: Any,
    ) -> AcquireAnswer:
        """Acquire; ``line`` are fields of Line."""
        fields = {"inbox": "in", "waiter_ttl_ms": LONG, "grant_ttl_ms": LONG, **line}
        return self.store.acquire(
            Acquire(
                self.resource,
                token,
                Terms(mode, limit, lease_ms),
                record or f"record of {token}",
                Line(**fields) if wait else None,
                kept,
                orphans,
            )
        )

    def granted(self, token: str, **terms: Any) -> int:
        """Acquire, which must be granted; its fence.

        Of a long lease it is written where everybody meets it: a short one may be over by then.
        """
        answer = self.ask(token, **terms)
        assert isinstance(answer, Granted), answer
        if not answer.is_settled and terms.get("lease_ms", LONG) >= LONG:
            self.view()  # after which every server has voted: it reads the answers of all
            assert self.renew(token, answer.fence, lease_ms=0) == Extended()
        return answer.fence

    @property
    def gone(self) -> Any:
        """Equal to what is said of a hold that is not there."""
        return AnyClosed() if isinstance(self.store, QuorumServers) else Gone()

    def queued(self, token: str, **terms: Any) -> Queued:
        """Acquire, which must be put in line."""
        answer = self.ask(token, **terms)
        assert isinstance(answer, Queued), answer
        return answer

    def leave(self, *tokens: str, tomb_ms: int = 0, why: str = "left") -> str:
        return self.store.leave(Leave(self.resource, tokens, tomb_ms, why)).what

    def renew(self, token: str, fence: int, *, lease_ms: int = LONG, kept: str = "") -> RenewAnswer:
        (answer,) = self.store.renew([Renew(self.resource, token, fence, lease_ms, kept)])
        return answer

    def beat(self, token: str, ttl_ms: int = LONG) -> BeatAnswer:
        (answer,) = self.store.heartbeat([Beat(self.resource, token, ttl_ms)])
        return answer

    def bring_back(
        self,
        token: str,
        fence: int,
        *,
        mode: str = "exclusive",
        limit: int = 1,
        lease_ms: int = LONG,
        trusted: bool = True,
    ) -> ReestablishAnswer:
        return self.store.reestablish(
            Reestablish(
                self.resource,
                token,
                fence,
                Terms(mode, limit, lease_ms),
                f"record of {token}",
                trusted,
            )
        )

    def view(self) -> ResourceView:
        return self.store.inspect(self.resource)

    def holder(self, token: str) -> HolderView:
        (found,) = [holder for holder in self.view().holders if holder.token == token]
        return found

    def live(self) -> List[str]:
        """The tokens that hold it, the longest first."""
        return [holder.token for holder in self.view().holders if holder.remaining_ms > 0]

    def line(self) -> List[str]:
        return [waiter.token for waiter in self.view().waiters]

    def lapse(self, *tokens: str) -> None:
        """Wait until the leases, or the silences, of these tokens are over."""

        def are_over() -> bool:
            view = self.view()
            entries: Tuple[Any, ...] = view.holders + view.waiters
            return not any(each.token in tokens and each.remaining_ms > 0 for each in entries)

        until(are_over, f"{tokens} lapse")


def said(text: Optional[str]) -> Optional[str]:
    """What a message says and to whom, without the numbers that it brings."""
    return text and " ".join(Message.read(text)[:2])


def until(happened: Callable[[], bool], what: str, within: float = PATIENCE) -> None:
    """Wait for an event, at most so long."""
    deadline = time.monotonic() + within
    while not happened():
        assert time.monotonic() < deadline, f"in {within} s it did not happen that {what}"
        time.sleep(0.005)
