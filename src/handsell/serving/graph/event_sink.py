"""The gateway's access to the event store: in this process, or through the Serve handle of the one SQLite writer."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle

from handsell.access.audit_entry import AuditEntry
from handsell.core.logs.request_trace import RequestTrace, get_traces
from handsell.events.store.interface import AppendResult, CatalogChange, EventStoreError, EventWriter
from handsell.serving.graph.remote import call, pack_traces

ANSWER_S = 10.0  # a call that takes longer counts as failed
GROUP = 128  # calls in one call of the writer's deployment
IN_FLIGHT = 2  # calls of the deployment at once: one commits while the next is on its way

WriterCall = tuple[str, tuple[Any, ...]]  # a method of EventWriter, and its arguments


class EventSink(ABC):
    """Methods answer after the commit; they raise EventStoreError when nothing was stored."""

    @abstractmethod
    async def call(self, method: str, *args: Any) -> AppendResult:
        """Call a method of EventWriter."""

    async def append(self, events: Sequence[dict[str, Any]]) -> AppendResult:
        return await self.call("append", events)

    async def append_slates(self, slates: Sequence[dict[str, Any]]) -> AppendResult:
        return await self.call("append_slates", slates)

    async def append_changes(self, changes: Sequence[CatalogChange]) -> AppendResult:
        return await self.call("append_changes", changes)

    async def put_blocks(self, user_id: str, creators: Sequence[str], tags: Sequence[str]) -> AppendResult:
        return await self.call("put_blocks", user_id, creators, tags)

    async def save_position(self, name: str, offset: int) -> AppendResult:
        return await self.call("save_position", name, offset)

    async def merge_identity(self, visitor_id: str, user_id: str, time: int) -> AppendResult:
        return await self.call("merge_identity", visitor_id, user_id, time)

    async def erase_user(self, user_id: str, time: int) -> AppendResult:
        return await self.call("erase_user", user_id, time)

    async def add_usage(self, day: int, requests: Mapping[str, int]) -> AppendResult:
        return await self.call("add_usage", day, requests)

    async def append_audit(self, entries: Sequence[AuditEntry]) -> AppendResult:
        return await self.call("append_audit", entries)

    def close(self) -> None:
        """Commit all pending calls and release the store, where it is open in this process."""
        return None


class LocalSink(EventSink):
    """A writer in this process."""

    def __init__(self, log: EventWriter):
        self.log = log

    async def call(self, method: str, *args: Any) -> AppendResult:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await asyncio.wrap_future(getattr(self.log, method)(*args))
        except TimeoutError:
            raise EventStoreError(f"the event store did not answer within {ANSWER_S:.0f} s") from None

    async def call_group(self, calls: Sequence[WriterCall]) -> list[AppendResult | EventStoreError]:
        """Make calls that may share a commit; returns the result or the failure of each."""
        found = await asyncio.gather(*(self.call(method, *args) for method, args in calls), return_exceptions=True)
        return [one if isinstance(one, AppendResult | EventStoreError) else _explain(one) for one in found]

    def close(self) -> None:
        self.log.close()


class RemoteSink(EventSink):
    """The writer in its deployment. Calls that are made while others are on their way share the next one."""

    def __init__(self, writer: DeploymentHandle):
        self._writer = writer
        self._waiting: list[tuple[WriterCall, tuple[RequestTrace, ...], asyncio.Future[AppendResult]]] = []
        self._senders: set[asyncio.Task[None]] = set()
        self._active = 0  # senders that will look for waiting calls again; others have ended, but are still in the set

    async def call(self, method: str, *args: Any) -> AppendResult:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[AppendResult] = loop.create_future()
        self._waiting.append(((method, args), get_traces(), done))
        if self._active < IN_FLIGHT:
            self._active += 1
            task = loop.create_task(self._send())
            self._senders.add(task)
            task.add_done_callback(self._senders.discard)
        return await done

    async def _send(self) -> None:
        try:
            while self._waiting:
                await self._send_group()
        finally:  # at once: callers who have their answers may call again before the task counts as ended
            self._active -= 1

    async def _send_group(self) -> None:
        group, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
        results: Sequence[AppendResult | EventStoreError]
        try:
            async with asyncio.timeout(ANSWER_S):
                traces = tuple(each for _, traces, _ in group for each in traces if each.span_id)
                results = await call(self._writer, "call_group", [one for one, _, _ in group], pack_traces(traces))
        except Exception as error:
            results = [_explain(error)] * len(group)
        for (_, _, done), result in zip(group, results, strict=True):
            if done.done():  # its caller has gone
                continue
            if isinstance(result, EventStoreError):
                done.set_exception(result)
            else:
                done.set_result(result)


def _explain(error: BaseException) -> EventStoreError:
    return EventStoreError(f"the event store's writer did not answer: {error!r}")
