"""The gateway's access to the durable event log: in this process, or through the Serve handle of its writer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ray.serve.handle import DeploymentHandle

from handsell.events.store.interface import AppendResult, CatalogChange, EventStoreError, EventWriter
from handsell.serving.graph.remote import call


class EventSink(Protocol):
    """Methods answer after the commit; they raise EventStoreError when nothing was stored."""

    async def append(self, events: Sequence[dict[str, Any]]) -> AppendResult: ...

    async def append_slates(self, slates: Sequence[dict[str, Any]]) -> AppendResult: ...

    async def append_changes(self, changes: Sequence[CatalogChange]) -> AppendResult: ...

    async def put_blocks(self, user_id: str, creators: Sequence[str], tags: Sequence[str]) -> AppendResult: ...

    async def save_position(self, name: str, offset: int) -> AppendResult: ...

    async def merge_identity(self, visitor_id: str, user_id: str, time: int) -> AppendResult: ...

    async def erase_user(self, user_id: str, time: int) -> AppendResult: ...


@dataclass(frozen=True, slots=True)
class LocalSink:
    """The log in this process."""

    log: EventWriter

    async def append(self, events: Sequence[dict[str, Any]]) -> AppendResult:
        return await asyncio.wrap_future(self.log.append(events))

    async def append_slates(self, slates: Sequence[dict[str, Any]]) -> AppendResult:
        return await asyncio.wrap_future(self.log.append_slates(slates))

    async def append_changes(self, changes: Sequence[CatalogChange]) -> AppendResult:
        return await asyncio.wrap_future(self.log.append_changes(changes))

    async def put_blocks(self, user_id: str, creators: Sequence[str], tags: Sequence[str]) -> AppendResult:
        return await asyncio.wrap_future(self.log.put_blocks(user_id, creators, tags))

    async def save_position(self, name: str, offset: int) -> AppendResult:
        return await asyncio.wrap_future(self.log.save_position(name, offset))

    async def merge_identity(self, visitor_id: str, user_id: str, time: int) -> AppendResult:
        return await asyncio.wrap_future(self.log.merge_identity(visitor_id, user_id, time))

    async def erase_user(self, user_id: str, time: int) -> AppendResult:
        return await asyncio.wrap_future(self.log.erase_user(user_id, time))


@dataclass(frozen=True, slots=True)
class RemoteSink:
    """The log's writer in its deployment; every failure of an append is raised as EventStoreError."""

    writer: DeploymentHandle

    async def append(self, events: Sequence[dict[str, Any]]) -> AppendResult:
        return await self._call("append", events)

    async def append_slates(self, slates: Sequence[dict[str, Any]]) -> AppendResult:
        return await self._call("append_slates", slates)

    async def append_changes(self, changes: Sequence[CatalogChange]) -> AppendResult:
        return await self._call("append_changes", changes)

    async def put_blocks(self, user_id: str, creators: Sequence[str], tags: Sequence[str]) -> AppendResult:
        return await self._call("put_blocks", user_id, creators, tags)

    async def save_position(self, name: str, offset: int) -> AppendResult:
        return await self._call("save_position", name, offset)

    async def merge_identity(self, visitor_id: str, user_id: str, time: int) -> AppendResult:
        return await self._call("merge_identity", visitor_id, user_id, time)

    async def erase_user(self, user_id: str, time: int) -> AppendResult:
        return await self._call("erase_user", user_id, time)

    async def _call(self, method: str, *args: Any) -> AppendResult:
        try:
            return await call(self.writer, "call", method, *args)
        except EventStoreError:
            raise
        except Exception as error:
            raise EventStoreError(f"the event log's writer did not answer: {error!r}") from error
