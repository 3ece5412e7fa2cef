"""A task of the event loop that delivers events in the background; event_sender.py does the same in a thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from handsell.client import answers as a
from handsell.client import bodies as b
from handsell.client.delivery import Delivery, DeliveryTerms, OnLost
from handsell.client.errors import ClientError, NoAnswer


class EventTask:
    """Starts its task with the first event; belongs to one event loop."""

    def __init__(
        self, send: Callable[[list[b.Event]], Awaitable[a.EventsAnswer]], terms: DeliveryTerms, on_lost: OnLost | None
    ):
        self._send, self._flush_every_s = send, terms.flush_every_s
        self._delivery, self._changed = Delivery(terms, on_lost), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False
        self._flush_to = 0  # events to be sent without waiting for others
        self._wakes = 0  # calls of flush and close, each of which ends a wait after a failure

    def add(self, event: b.Event) -> None:
        """Queue an event."""
        self._delivery.add(event)
        if self._task is None:
            self._is_closing = False
            self._task = asyncio.get_running_loop().create_task(self._run(), name="handsell-events")
        self._notify()
        self._delivery.report_losses()

    async def flush(self, timeout_s: float) -> bool:
        """Deliver what waits now; return whether nothing of it waits after the time."""
        last = self._flush_to = self._delivery.added
        self._wakes += 1
        self._notify()
        return await self._wait_for(lambda: self._delivery.settled >= last, timeout_s)

    async def close(self, timeout_s: float) -> None:
        """Deliver what waits and end the task; what remains after the time is lost."""
        task, self._is_closing = self._task, True
        self._wakes += 1
        self._notify()
        if task is None:
            return
        await asyncio.wait({task}, timeout=timeout_s)
        task.cancel()
        self._task = None
        self._delivery.give_up(NoAnswer(f"the client was closed; the service took no events in {timeout_s:g} s"))
        self._notify()
        self._delivery.report_losses()

    async def _run(self) -> None:
        while batch := await self._wait_for_batch():
            wakes, outcome = self._wakes, await self._try(batch)
            wait_s = self._delivery.settle(batch, outcome)
            self._notify()
            await self._wait_for(lambda wakes=wakes: self._wakes != wakes, wait_s)  # type: ignore[misc]
            self._delivery.report_losses()

    async def _wait_for_batch(self) -> list[b.Event]:
        """Return the next batch when it is full, old enough or urgent; an empty one ends the task."""
        delivery = self._delivery
        await self._wait_for(lambda: self._is_closing or not delivery.is_empty)
        await self._wait_for(
            lambda: self._is_closing or delivery.is_batch_full or delivery.settled < self._flush_to,
            self._flush_every_s,
        )
        return delivery.take()

    async def _try(self, batch: list[b.Event]) -> a.EventsAnswer | ClientError:
        try:
            return await self._send(batch)
        except ClientError as error:
            return error
        except Exception as error:
            return ClientError(f"events cannot be sent: {error!r}")

    def _notify(self) -> None:
        """Let every waiter look at its condition again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _wait_for(self, is_reached: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until a condition is reached or the time is over; return whether it is reached."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not is_reached():
                    await self._changed.wait()
        return is_reached()
