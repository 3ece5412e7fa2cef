"""Slates that are being computed, and the requests with the same key that wait for them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from handsell.serving.http.queries import Query
from handsell.serving.reuse.user_slate import UserSlate


@dataclass(slots=True)
class PendingSlate:
    """A query whose slate is being computed, and the queries that wait for it, each with its caller's future."""

    query: Query
    waiting: list[tuple[Query, asyncio.Future[UserSlate]]] = field(default_factory=list)

    def suits(self, query: Query, lasts_us: int) -> bool:
        """Return whether a query may wait: the slate is not of a later time, not too old, and not due later."""
        due = self.query.arrived + self.query.deadline_s
        return 0 <= query.time - self.query.time < lasts_us and due <= query.arrived + query.deadline_s

    def finish(self, slate: UserSlate) -> None:
        """Answer all that wait."""
        for query, answer in self.waiting:
            if not answer.done():  # the caller may have gone
                age_s = (query.time - self.query.time) / 1e6
                answer.set_result(replace(slate, reused="slate", age_s=age_s))

    def fail(self, error: Exception) -> None:
        """Pass a failure on to all that wait."""
        for _, answer in self.waiting:
            if not answer.done():
                answer.set_exception(error)


class PendingSlates:
    """By key."""

    def __init__(self) -> None:
        self._pending: dict[bytes, PendingSlate] = {}

    def begin(self, key: bytes, query: Query) -> PendingSlate:
        """Let later queries wait for this one's slate, which the caller finishes or fails."""
        self._pending[key] = PendingSlate(query)
        return self._pending[key]

    def find(self, key: bytes, query: Query, lasts_us: int) -> PendingSlate | None:
        """Return a slate that a query may wait for."""
        pending = self._pending.get(key)
        return pending if pending is not None and pending.suits(query, lasts_us) else None

    def end(self, key: bytes, pending: PendingSlate) -> None:
        """Let no more queries wait for a slate."""
        if self._pending.get(key) is pending:
            del self._pending[key]

    def clear(self) -> None:
        """Let no more queries wait for any slate."""
        self._pending.clear()
