"""The client for programs without an event loop; any number of threads may share one."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, Unpack

from handsell.client import answers as a
from handsell.client import bodies as b
from handsell.client.calls import ApiCall, make_events_call, read_answer
from handsell.client.connection import connect, describe_failure, import_httpx
from handsell.client.delivery import DeliveryTerms, OnLost, identify_event
from handsell.client.endpoints import Endpoints
from handsell.client.errors import ClientError, NoAnswer
from handsell.client.event_sender import EventSender
from handsell.client.retries import Attempts

if TYPE_CHECKING:
    import httpx


class Client(Endpoints):
    """Asks a handsell service, and sends it events in the background.

    `key` is by default $HANDSELL_API_KEY. `timeout_s` holds for a whole call, with up to `retries` further attempts
    and the waits that the service asks for. Events of `track` are sent together, `batch_size` or those of
    `flush_every_s`; up to `queue_size` wait while the service is away. `on_lost(events, error)` is told of events that
    will not arrive; without it, a line is logged. Close the client, or use it in `with`, so that the last are sent.
    """

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
        transport: httpx.BaseTransport | None = None,
    ):
        self._connection = connect(url, key, timeout_s, retries, transport)
        self._terms, self._on_lost = DeliveryTerms(batch_size, flush_every_s, queue_size), on_lost
        self._begin()
        _CLIENTS.add(self)

    def _begin(self) -> None:
        self._http: httpx.Client | None = None
        self._opening = threading.Lock()
        self._events = EventSender(self._try_events, self._terms, self._on_lost)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._connection.url!r})"

    def track(self, **event: Unpack[b.Event]) -> str:
        """Queue an event and return its id; it gets an id and the time where it has no id. Never waits or raises."""
        identified = identify_event(event)
        self._events.add(identified)
        return str(identified["event_id"])

    def send_events(self, events: Sequence[b.Event]) -> a.EventsAnswer:
        """Send events now; answered when they are durable. Those that are invalid are in `rejected`."""
        return self._send(make_events_call([identify_event(event) for event in events]))

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Send the queued events now; return whether none of them waits after the time."""
        return self._events.flush(timeout_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Send the queued events, then close the connections; events that remain after the time are lost."""
        self._events.close(timeout_s)
        with self._opening:
            if self._http is not None:
                self._http.close()
            self._http = None

    def _try_events(self, events: list[b.Event]) -> a.EventsAnswer:
        """Send events once: the queue itself sends them again."""
        call = make_events_call(events)
        return read_answer(call, self._request(call, self._connection.timeout_s), is_repeated=False)

    def _send(self, call: ApiCall) -> Any:
        attempts = Attempts(self._connection.retries, self._connection.timeout_s)
        while True:
            try:
                return read_answer(call, self._request(call, attempts.left_s), is_repeated=attempts.failures > 0)
            except ClientError as error:
                wait_s = attempts.find_wait(error)
            time.sleep(wait_s)

    def _request(self, call: ApiCall, timeout_s: float) -> httpx.Response:
        http, library = self._open(), import_httpx()
        try:
            return http.request(**call.list_arguments(), timeout=timeout_s)
        except library.RequestError as error:
            place = f"{call.method} {call.path}"
            raise NoAnswer(describe_failure(place, self._connection.url, error)) from error

    def _open(self) -> httpx.Client:
        with self._opening:
            if self._http is None:
                self._http = self._connection.open()
            return self._http


_CLIENTS: weakref.WeakSet[Client] = weakref.WeakSet()


def _begin_in_child() -> None:
    """Give each client of a forked process its own connections and an empty queue."""
    for client in _CLIENTS:
        client._events.forget()
        client._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
