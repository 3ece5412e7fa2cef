"""Answers that are being computed, and the requests with the same key that wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from handsell.serving.http.queries import Query

A = TypeVar("A")


@dataclass(slots=True)
class PendingAnswer(Generic[A]):
    """A query whose answer is being computed, and the queries that wait for it, each with its future."""

    query: Query
    waiting: list[tuple[Query, asyncio.Future[A]]] = field(default_factory=list)

    def suits(self, query: Query, lasts_us: int) -> bool:
        """Return whether a query may wait: the answer is not of a later time, not too old, and not due later."""
        due = self.query.arrived + self.query.deadline_s
        return 0 <= query.time - self.query.time < lasts_us and due <= query.arrived + query.deadline_s

    def finish(self, answer_for: Callable[[Query], A]) -> None:
        """Answer all that wait."""
        for query, answer in self.waiting:
            if not answer.done():  # the caller may have gone
                answer.set_result(answer_for(query))

    def fail(self, error: Exception) -> None:
        """Pass a failure on to all that wait."""
        for _, answer in self.waiting:
            if not answer.done():
                answer.set_exception(error)


class PendingAnswers(Generic[A]):
    """The answers that are being computed, by the key of the query."""

    def __init__(self) -> None:
        self._pending: dict[bytes, PendingAnswer[A]] = {}

    def begin(self, key: bytes, query: Query) -> PendingAnswer[A]:
        """Let later queries wait for this one's answer, which the caller finishes or fails."""
        self._pending[key] = PendingAnswer(query)
        return self._pending[key]

    def find(self, key: bytes, query: Query, lasts_us: int) -> PendingAnswer[A] | None:
        """Return an answer that a query may wait for."""
        pending = self._pending.get(key)
        return pending if pending is not None and pending.suits(query, lasts_us) else None

    def end(self, key: bytes, pending: PendingAnswer[A]) -> None:
        """Let no more queries wait for an answer."""
        if self._pending.get(key) is pending:
            del self._pending[key]

    def clear(self) -> None:
        """Let no more queries wait for any answer."""
        self._pending.clear()
