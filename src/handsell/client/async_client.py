"""The client for programs with an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, Unpack

from handsell.client import answers as a
from handsell.client import bodies as b
from handsell.client.async_endpoints import AsyncEndpoints
from handsell.client.calls import ApiCall, make_events_call, read_answer
from handsell.client.connection import connect, describe_failure, import_httpx
from handsell.client.delivery import DeliveryTerms, OnLost, identify_event
from handsell.client.errors import ClientError, NoAnswer
from handsell.client.event_task import EventTask
from handsell.client.retries import Attempts

if TYPE_CHECKING:
    import httpx


class AsyncClient(AsyncEndpoints):
    """Asks a handsell service, and sends it events in the background; the parameters are those of Client."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = 10.0,
        retries: int = 3,
        batch_size: int = 100,
        flush_every_s: float = 1.0,
        queue_size: int = 10_000,
        on_lost: OnLost | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ):
        self._connection = connect(url, key, timeout_s, retries, transport)
        self._events = EventTask(self._try_events, DeliveryTerms(batch_size, flush_every_s, queue_size), on_lost)
        self._http: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._connection.url!r})"

    def track(self, **event: Unpack[b.Event]) -> str:
        """Queue an event and return its id; it gets an id and the time where it has no id. Called in the event loop."""
        identified = identify_event(event)
        self._events.add(identified)
        return str(identified["event_id"])

    async def send_events(self, events: Sequence[b.Event]) -> a.EventsAnswer:
        """Send events now; answered when they are durable. Those that are invalid are in `rejected`."""
        return await self._send(make_events_call([identify_event(event) for event in events]))

    async def flush(self, timeout_s: float = 10.0) -> bool:
        """Send the queued events now; return whether none of them waits after the time."""
        return await self._events.flush(timeout_s)

    async def close(self, timeout_s: float = 10.0) -> None:
        """Send the queued events, then close the connections; events that remain after the time are lost."""
        await self._events.close(timeout_s)
        if self._http is not None:
            await self._http.aclose()
        self._http = None

    async def _try_events(self, events: list[b.Event]) -> a.EventsAnswer:
        """Send events once: the queue itself sends them again."""
        call = make_events_call(events)
        return read_answer(call, await self._request(call, self._connection.timeout_s), is_repeated=False)

    async def _send(self, call: ApiCall) -> Any:
        attempts = Attempts(self._connection.retries, self._connection.timeout_s)
        while True:
            try:
                response = await self._request(call, attempts.left_s)
                return read_answer(call, response, is_repeated=attempts.failures > 0)
            except ClientError as error:
                wait_s = attempts.find_wait(error)
            await asyncio.sleep(wait_s)

    async def _request(self, call: ApiCall, timeout_s: float) -> httpx.Response:
        library = import_httpx()
        if self._http is None:
            self._http = self._connection.open_async()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._http.request(**call.list_arguments(), timeout=timeout_s)
        except (library.RequestError, TimeoutError) as error:
            place = f"{call.method} {call.path}"
            raise NoAnswer(describe_failure(place, self._connection.url, error)) from error
