"""A writer that commits the calls of all threads in groups, from a thread of its own.

Calls that arrive during a commit form the next group: one disk synchronization per group, without a timer.
"""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self

from handsell.access.api_key import ApiKey
from handsell.access.audit_entry import AuditEntry
from handsell.events.store.interface import (
    AppendResult,
    CatalogChange,
    EventStoreError,
    IdentityConflict,
    TrimmedTable,
)
from handsell.events.store.operations import OPERATIONS, Result
from handsell.events.store.removal import TRIMMED_ROWS
from handsell.events.store.rows import build_change, build_slate
from handsell.events.store.transaction import Transaction

GROUP = 4_096  # a group is committed at this number of rows, even if more are waiting


@dataclass(slots=True)
class Call:
    """A call that waits for its group's commit."""

    operation: str  # of OPERATIONS
    arguments: tuple
    size: int  # in rows
    done: Future


class GroupedWriter(ABC):
    """The methods of EventWriter (interface.py); an engine gives the transaction. A context manager."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._queue: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._closed = False
        self._writer = threading.Thread(target=self._write_groups, name="event-store", daemon=True)
        self._writer.start()

    @abstractmethod
    def _transact(self) -> AbstractContextManager[Transaction]:
        """Begin a transaction; commit it where the body ends, roll it back where it raises."""

    @abstractmethod
    def _explain(self, error: Exception) -> EventStoreError:
        """Say why a group was not stored, and what to do."""

    def _is_unreachable(self, error: Exception) -> bool:
        """Return whether the store did not answer, so that calls which wait for it fail, too."""
        return False

    def _is_about_data(self, error: Exception) -> bool:
        """Return whether a value of one call caused the error, which has nothing to do with the other calls."""
        return isinstance(error, TypeError | ValueError | LookupError | OverflowError)

    def append(self, events: Sequence[dict[str, Any]]) -> Future[AppendResult]:
        return self._submit("events", (list(events),), len(events))

    def append_slates(self, slates: Sequence[dict[str, Any]]) -> Future[AppendResult]:
        return self._submit("slates", ([build_slate(slate) for slate in slates],), len(slates))

    def append_changes(self, changes: Sequence[CatalogChange]) -> Future[AppendResult]:
        return self._submit("catalog_changes", ([build_change(change) for change in changes],), len(changes))

    def put_blocks(self, user_id: str, creators: Sequence[str], tags: Sequence[str]) -> Future[AppendResult]:
        return self._submit("blocks", (user_id, list(creators), list(tags)))

    def merge_identity(self, visitor_id: str, user_id: str, time: int) -> Future[AppendResult]:
        return self._submit("merge", (visitor_id, user_id, time))

    def erase_user(self, user_id: str, time: int) -> Future[AppendResult]:
        return self._submit("erase", (user_id, time))

    def finish_erasure(self, person: str) -> Future[AppendResult]:
        return self._submit("finish", (person,))

    def save_position(self, name: str, offset: int) -> Future[AppendResult]:
        return self._submit("position", (name, offset))

    def trim(self, table: TrimmedTable, through: int) -> Future[AppendResult]:
        whole: Future[AppendResult] = Future()
        whole.set_running_or_notify_cancel()
        self._trim_on(whole, table, through, 0)
        return whole

    def put_key(self, key: ApiKey) -> Future[AppendResult]:
        return self._submit("api_keys", (key,))

    def add_usage(self, day: int, requests: Mapping[str, int]) -> Future[AppendResult]:
        return self._submit("key_usage", (day, dict(requests)))

    def append_audit(self, entries: Sequence[AuditEntry]) -> Future[AppendResult]:
        return self._submit("audit", (list(entries),), len(entries))

    def _trim_on(self, whole: Future[AppendResult], table: str, through: int, trimmed: int) -> None:
        """Trim one part, then the next; complete `whole` after the last."""

        def proceed(part: Future[AppendResult]) -> None:
            try:
                count = part.result().accepted
                if count < TRIMMED_ROWS:
                    whole.set_result(AppendResult(trimmed + count, 0, ()))
                else:
                    self._trim_on(whole, table, through, trimmed + count)
            except EventStoreError as error:
                whole.set_exception(error)

        self._submit("trim", (table, through)).add_done_callback(proceed)

    def _submit(self, operation: str, arguments: tuple, size: int = 1) -> Future[AppendResult]:
        if self._closed:
            raise EventStoreError(f"{self.name} is closed: open it again before appending")
        done: Future[AppendResult] = Future()
        done.set_running_or_notify_cancel()  # a cancelled caller must not cancel the shared commit
        self._queue.put(Call(operation, arguments, size, done))
        return done

    def _write_groups(self) -> None:
        while (first := self._queue.get()) is not None:
            group, size = [first], first.size
            while size < GROUP and not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    self._queue.put(None)
                    break
                group.append(more)
                size += more.size
            self._commit(group)

    def _commit(self, group: list[Call]) -> None:
        results: list[Result] = []
        try:
            with self._transact() as transaction:
                for operation, calls in groupby(group, lambda call: call.operation):
                    results += OPERATIONS[operation](transaction, [call.arguments for call in calls])
        except Exception as error:
            if len(group) > 1 and self._is_about_data(error):
                for call in group:  # so that the others are stored
                    self._commit([call])
                return
            self._fail([*group, *self._take_waiting()] if self._is_unreachable(error) else group, error)
            return
        for call, result in zip(group, results, strict=True):
            if isinstance(result, IdentityConflict):
                call.done.set_exception(result)
            else:
                call.done.set_result(result)

    def _take_waiting(self) -> list[Call]:
        """Take the calls that wait, so that they fail now, and not one group after another."""
        waiting: list[Call] = []
        while not self._queue.empty():
            call = self._queue.get()
            if call is None:
                self._queue.put(None)
                break
            waiting.append(call)
        return waiting

    def _fail(self, calls: Sequence[Call], error: Exception) -> None:
        failure = self._explain(error)
        for call in calls:
            call.done.set_exception(failure)

    def close(self) -> None:
        """Commit all pending calls, then close the store."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._writer.join()
        self._disconnect()

    @abstractmethod
    def _disconnect(self) -> None:
        """Release the store; no thread uses it any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
