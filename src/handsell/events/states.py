"""User state: the part of a user's past that features need, updated event by event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from handsell.config import Config
from handsell.core.batches import History, Ragged, RowBatch, Seen
from handsell.core.units import DAY_US

HALF_LIVES_DAYS = (1, 7, 28)
MAX_AWAY_DAYS = 90.0  # features cap the time since an event at this: longer times are too rare to learn from


@dataclass(frozen=True, slots=True)
class Affinities(RowBatch):
    """Weights of creators or of tags per user: a sparse map per row, sorted by key."""

    key: Ragged  # (B, *) int32 catalog numbers
    weight: Ragged  # (B, *) float64, as of the row's state_time

    @classmethod
    def empty(cls, rows: int) -> Affinities:
        return cls(Ragged.empty(rows, np.int32), Ragged.empty(rows, np.float64))


@dataclass(frozen=True, slots=True)
class UserStates(RowBatch):
    """States of B users, or of users at B times. A row without events has state_time 0 and counts 0."""

    state_time: np.ndarray  # (B,) int64 µs of the latest folded event
    first_time: np.ndarray  # (B,) int64 µs of the earliest folded event, 0 = none
    log_offset: np.ndarray  # (B,) int64 offset of the event store through which events are folded
    counts: np.ndarray  # (B, number of event types) float64
    signs: np.ndarray  # (B, 2) float64 number of positive and of negative events
    decayed: np.ndarray  # (B, 2, 3) float64 sums of |weight|, positive and negative, by half-life 1, 7, 28 days
    history: History  # (B, T)
    creators: Affinities
    tags: Affinities
    seen: Seen  # sorted by item within a row
    seen_total: np.ndarray  # (B,) int64 distinct items ever seen, including those beyond the cap

    def __len__(self) -> int:
        return len(self.state_time)

    @classmethod
    def empty(cls, rows: int, n_types: int, length: int) -> UserStates:
        def zeros() -> np.ndarray:
            return np.zeros(rows, np.int64)

        return cls(
            zeros(), zeros(), zeros(),
            np.zeros((rows, n_types)), np.zeros((rows, 2)), np.zeros((rows, 2, len(HALF_LIVES_DAYS))),
            History.empty(rows, length), Affinities.empty(rows), Affinities.empty(rows),
            Seen(Ragged.empty(rows, np.int32), Ragged.empty(rows, np.int64)), zeros(),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Events:
    """N events to fold, in log order; `row` is the row of the state."""

    row: np.ndarray  # (N,) int64, 0..B-1
    item: np.ndarray  # (N,) int32, -1 for an item that is not in the catalog
    type: np.ndarray  # (N,) int8
    time: np.ndarray  # (N,) int64 µs
    weight: np.ndarray  # (N,) float32
    offset: np.ndarray  # (N,) int64 event-log offset, 0 = not from the log (batch, or sent with a request)

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def of(cls, row, item, type, time, weight, offset=None) -> Events:
        """Convert array-likes; without `offset`, no event counts as folded already."""
        rows = np.asarray(row, np.int64)
        return cls(
            rows,
            np.asarray(item, np.int32),
            np.asarray(type, np.int8),
            np.asarray(time, np.int64),
            np.asarray(weight, np.float32),
            np.zeros(len(rows), np.int64) if offset is None else np.asarray(offset, np.int64),
        )

    @classmethod
    @cache
    def none(cls) -> Events:
        """No events, always the same object: its arrays have nothing that could be changed."""
        return cls.of([], [], [], [], [])

    @classmethod
    def concatenate(cls, parts: Sequence[Events]) -> Events:
        """The events of all parts, in their order."""
        parts = [part for part in parts if len(part)]
        if not parts:
            return cls.none()
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))

    def at_row(self, row: int) -> Events:
        """The same events for one row of a batch."""
        return replace(self, row=np.full(len(self), row))

    def take(self, rows: np.ndarray) -> Events:
        """Return the events of rows (R,), numbered by their place there."""
        places = [np.flatnonzero(self.row == row) for row in rows]
        at = np.concatenate([np.zeros(0, np.int64), *places])
        new = np.repeat(np.arange(len(rows)), [len(place) for place in places])
        return replace(Events(*(getattr(self, f)[at] for f in self.__slots__)), row=new)

    def where(self, mask: np.ndarray) -> Events:
        return Events(*(getattr(self, f)[mask] for f in self.__slots__))


@dataclass(frozen=True, slots=True)
class ItemAttributes:
    """Attributes of I items that the fold uses."""

    creator: np.ndarray  # (I,) int32 primary creator, -1 none
    tags: Ragged  # (I, *) int32


@dataclass(frozen=True, slots=True)
class FoldRules:
    """Settings of the fold: which event types are interactions, half-life and sizes."""

    seen: np.ndarray  # (number of event types,) bool: interactions, as opposed to impressions
    history_length: int
    affinity_half_life_us: float
    affinity_size: int
    seen_cap: int

    @classmethod
    def of(cls, config: Config) -> FoldRules:
        features = config.features
        return cls(
            np.array([kind.seen for kind in config.events.types.values()], bool),
            features.history_length,
            features.affinity_half_life_days * DAY_US,
            features.affinity_size,
            features.seen_cap,
        )

    def empty_states(self, rows: int) -> UserStates:
        """Return states of users without events."""
        return UserStates.empty(rows, len(self.seen), self.history_length)
