"""What is kept of each user's past: enough for every user feature, and foldable event by event."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.config import Config
from handsell.core.batches import History, Ragged, RowBatch, Seen
from handsell.core.units import DAY_US

HALF_LIVES_DAYS = (1, 7, 28)
MOST_AWAY_DAYS = 90.0  # a longer time since an event is the same to every feature: few examples tell of it


@dataclass(frozen=True, slots=True)
class Weights(RowBatch):
    """A sparse map per row, kept sorted by key: what the user feels about creators, or about tags."""

    key: Ragged  # (B, *) int32 catalog numbers
    weight: Ragged  # (B, *) float64, as of the row's state_time

    @classmethod
    def empty(cls, rows: int) -> Weights:
        return cls(Ragged.empty(rows, np.int32), Ragged.empty(rows, np.float64))


@dataclass(frozen=True, slots=True)
class UserStates(RowBatch):
    """B users (or B moments of users). A row without events has state_time 0 and counts of 0."""

    state_time: np.ndarray  # (B,) int64 µs of the latest event folded
    first_time: np.ndarray  # (B,) int64 µs of the earliest event folded, 0 = none
    log_offset: np.ndarray  # (B,) int64 event-log offset folded so far, 0 from batch jobs
    counts: np.ndarray  # (B, number of event types) float64
    signs: np.ndarray  # (B, 2) float64 number of positive and of negative events
    decayed: np.ndarray  # (B, 2, 3) float64 sums of |weight|, positive and negative, halving in 1, 7, 28 days
    history: History  # (B, T)
    creators: Weights
    tags: Weights
    seen: Seen  # sorted by item within a row
    seen_total: np.ndarray  # (B,) int64 distinct items ever seen, also those beyond the cap

    def __len__(self) -> int:
        return len(self.state_time)

    @classmethod
    def empty(cls, rows: int, n_types: int, length: int) -> UserStates:
        def zeros() -> np.ndarray:
            return np.zeros(rows, np.int64)

        return cls(
            zeros(), zeros(), zeros(),
            np.zeros((rows, n_types)), np.zeros((rows, 2)), np.zeros((rows, 2, len(HALF_LIVES_DAYS))),
            History.empty(rows, length), Weights.empty(rows), Weights.empty(rows),
            Seen(Ragged.empty(rows, np.int32), Ragged.empty(rows, np.int64)), zeros(),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Events:
    """N events to fold, in log order; `row` says into which state."""

    row: np.ndarray  # (N,) int64, 0..B-1
    item: np.ndarray  # (N,) int32, -1 for an item that the catalog does not know
    type: np.ndarray  # (N,) int8
    time: np.ndarray  # (N,) int64 µs
    weight: np.ndarray  # (N,) float32
    offset: np.ndarray  # (N,) int64 event-log offset, 0 = not from the log (batch, or given in the request)

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def of(cls, row, item, type, time, weight, offset=None) -> Events:
        """From anything array-like; without `offset` nothing counts as folded before."""
        rows = np.asarray(row, np.int64)
        return cls(
            rows,
            np.asarray(item, np.int32),
            np.asarray(type, np.int8),
            np.asarray(time, np.int64),
            np.asarray(weight, np.float32),
            np.zeros(len(rows), np.int64) if offset is None else np.asarray(offset, np.int64),
        )

    def where(self, mask: np.ndarray) -> Events:
        return Events(*(getattr(self, f)[mask] for f in self.__slots__))


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """What the fold needs to know of I items."""

    creator: np.ndarray  # (I,) int32 primary creator, -1 none
    tags: Ragged  # (I, *) int32


@dataclass(frozen=True, slots=True)
class FoldRules:
    """How events count, and how much is kept."""

    seen: np.ndarray  # (number of event types,) bool: an interaction, as against an impression
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

    def start(self, rows: int) -> UserStates:
        """States of users who have done nothing yet."""
        return UserStates.empty(rows, len(self.seen), self.history_length)
