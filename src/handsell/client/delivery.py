"""Delivery of events: at least once, each with the same id, in the order in which they were tracked.

The store counts events with the same id once, so a batch whose answer was lost is sent again as it is. What the
service may take later stays in the queue: after a failure, a timeout, a full rate or quota, and also with a key that it
does not know yet. What it refuses for good is lost, and reported.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from handsell.client import answers as a
from handsell.client import bodies as b
from handsell.client.calls import encode_body
from handsell.client.errors import AccessDenied, ClientError, EventQueueFull, EventRejected, ProblemError
from handsell.client.retries import draw_wait

log = logging.getLogger("handsell.client")

OnLost = Callable[[list[b.Event], ClientError], None]
LONGEST_WAIT_S = 30.0
LOG_EVERY_S = 10.0
TOO_LARGE = 413


@dataclass(frozen=True, slots=True)
class DeliveryTerms:
    """When events are sent: `batch_size` of them, or those that wait since `flush_every_s`."""

    batch_size: int
    flush_every_s: float
    queue_size: int

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.queue_size < 1 or not self.flush_every_s >= 0:
            raise ClientError(
                "expected batch_size and queue_size of 1 or more, and flush_every_s of 0 or more, got "
                f"{self.batch_size}, {self.queue_size} and {self.flush_every_s}"
            )


def identify_event(event: b.Event) -> b.Event:
    """Return an event that may be sent again: one without an id gets an id and the time.

    One with an id stays as it is: its caller may send it again, and with another time it would count twice.
    """
    if event.get("event_id"):
        return event
    return {**event, "event_id": uuid.uuid4().hex, "timestamp": event.get("timestamp") or round(time.time() * 1_000)}


class Delivery:
    """The events that wait, the next batch, and what an answer means for it."""

    def __init__(self, terms: DeliveryTerms, on_lost: OnLost | None):
        self._terms, self._on_lost = terms, on_lost or LossLog().write
        self._waiting: deque[b.Event] = deque()
        self._losses: deque[tuple[list[b.Event], ClientError]] = deque()
        self._batch_size, self._failures = terms.batch_size, 0
        self.added = self.settled = 0  # events that were queued, and those of them that are delivered or lost

    @property
    def is_empty(self) -> bool:
        return not self._waiting

    @property
    def is_batch_full(self) -> bool:
        return len(self._waiting) >= self._batch_size

    def add(self, event: b.Event) -> None:
        """Append an event; one too many is lost, and one that is no JSON."""
        try:
            encode_body(event)
        except ClientError as error:
            self._losses.append(([event], error))
            return
        if len(self._waiting) >= self._terms.queue_size:
            most = self._terms.queue_size
            detail = f"{most} events wait already: check that the service answers, or raise queue_size"
            self._losses.append(([event], EventQueueFull(detail)))
            return
        self._waiting.append(event)
        self.added += 1

    def take(self) -> list[b.Event]:
        """Return the next batch, which stays in the queue until it is settled."""
        return list(islice(self._waiting, self._batch_size))

    def settle(self, batch: list[b.Event], outcome: a.EventsAnswer | ClientError) -> float:
        """Settle a batch by its answer or error; return the seconds until the next attempt."""
        if not isinstance(outcome, ClientError):
            self._accept(batch, outcome)
        elif isinstance(outcome, ProblemError) and outcome.status == TOO_LARGE and len(batch) > 1:
            self._batch_size = len(batch) // 2
        elif outcome.is_temporary or isinstance(outcome, AccessDenied):
            self._failures += 1
            return max(outcome.retry_after_s or 0.0, draw_wait(self._failures, longest_s=LONGEST_WAIT_S))
        else:
            self._remove(len(batch))
            self._losses.append((batch, outcome))
        return 0.0

    def give_up(self, error: ClientError) -> None:
        """Count all events that still wait as lost."""
        if left := list(self._waiting):
            self._remove(len(left))
            self._losses.append((left, error))

    def report_losses(self) -> None:
        """Call `on_lost` for what was lost since the last report."""
        while self._losses:
            events, error = self._losses.popleft()
            try:
                self._on_lost(events, error)
            except Exception:
                log.exception("on_lost failed; %d events are lost: %s", len(events), error)

    def _accept(self, batch: list[b.Event], answer: a.EventsAnswer) -> None:
        rejected = [(batch[r["index"]], EventRejected(r["code"], r["field"], r["detail"])) for r in answer["rejected"]]
        self._losses.extend(([event], error) for event, error in rejected)
        self._failures, self._batch_size = 0, min(2 * self._batch_size, self._terms.batch_size)
        self._remove(len(batch))

    def _remove(self, count: int) -> None:
        for _ in range(count):
            self._waiting.popleft()
        self.settled += count


class LossLog:
    """Writes a line for lost events, at most one in some seconds."""

    def __init__(self) -> None:
        self._lost, self._next = 0, 0.0

    def write(self, events: list[b.Event], error: ClientError) -> None:
        self._lost += len(events)
        if time.monotonic() >= self._next:
            log.warning("%d events are lost; the last because of: %s", self._lost, error)
            self._lost, self._next = 0, time.monotonic() + LOG_EVERY_S
