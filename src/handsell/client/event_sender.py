"""A thread that delivers events in the background."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable

from handsell.client import answers as a
from handsell.client import bodies as b
from handsell.client.delivery import Delivery, DeliveryTerms, OnLost
from handsell.client.errors import ClientError, NoAnswer


class EventSender:
    """Starts its thread with the first event; any thread may add events."""

    def __init__(self, send: Callable[[list[b.Event]], a.EventsAnswer], terms: DeliveryTerms, on_lost: OnLost | None):
        self._send, self._flush_every_s = send, terms.flush_every_s
        self._delivery, self._changed = Delivery(terms, on_lost), threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._flush_to = 0  # events to be sent without waiting for others
        self._wakes = 0  # calls of flush and close, each of which ends a wait after a failure

    def add(self, event: b.Event) -> None:
        """Queue an event."""
        with self._changed:
            self._delivery.add(event)
            if self._thread is None:
                self._start()
            self._changed.notify_all()
        self._delivery.report_losses()

    def flush(self, timeout_s: float) -> bool:
        """Deliver what waits now; return whether nothing of it waits after the time."""
        with self._changed:
            last = self._flush_to = self._delivery.added
            self._wakes += 1
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._delivery.settled >= last, timeout_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Deliver what waits and end the thread; what remains after the time is lost."""
        with self._changed:
            thread, self._is_closing = self._thread, True
            self._wakes += 1
            self._changed.notify_all()
        if thread is None:
            return
        thread.join(timeout_s)
        with self._changed:
            self._thread = None
            self._delivery.give_up(
                NoAnswer(f"the client was closed, and the service took no events in {timeout_s:g} s")
            )
            self._changed.notify_all()
        self._delivery.report_losses()
        atexit.unregister(self.close)

    def forget(self) -> None:
        """Leave the thread and its events to the process that this one was forked from."""
        atexit.unregister(self.close)

    def _start(self) -> None:
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="handsell-events", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def _run(self) -> None:
        while batch := self._wait_for_batch():
            wakes, outcome = self._wakes, self._try(batch)
            with self._changed:
                if self._thread is not threading.current_thread():
                    return  # closed while the batch was sent
                wait_s = self._delivery.settle(batch, outcome)
                self._changed.notify_all()
                self._changed.wait_for(lambda wakes=wakes: self._wakes != wakes, wait_s)  # type: ignore[misc]
            self._delivery.report_losses()

    def _wait_for_batch(self) -> list[b.Event]:
        """Return the next batch when it is full, old enough or urgent; an empty one ends the thread."""
        delivery = self._delivery
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing or not delivery.is_empty)
            self._changed.wait_for(
                lambda: self._is_closing or delivery.is_batch_full or delivery.settled < self._flush_to,
                self._flush_every_s,
            )
            return delivery.take()

    def _try(self, batch: list[b.Event]) -> a.EventsAnswer | ClientError:
        try:
            return self._send(batch)
        except ClientError as error:
            return error
        except Exception as error:
            return ClientError(f"events cannot be sent: {error!r}")
