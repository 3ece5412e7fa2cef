"""The latest listens of each user, on which the simulation depends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_LISTENS = 40  # listens


@dataclass(frozen=True)
class RecentListens:
    """Latest listens of B listeners in any order; row b uses its first `count[b]` columns."""

    item: np.ndarray  # (B, H) int32, 0 where empty
    time: np.ndarray  # (B, H) int64 µs
    count: np.ndarray  # (B,) int64

    @property
    def present(self) -> np.ndarray:
        return np.arange(self.item.shape[1]) < self.count[:, None]


@dataclass(frozen=True)
class ListenHistory:
    """Latest listens of all users of a partition, in ring buffers."""

    item: np.ndarray  # (U, MAX_LISTENS) int32
    time: np.ndarray  # (U, MAX_LISTENS) int64 µs
    total: np.ndarray  # (U,) int64 listens so far

    @classmethod
    def empty(cls, users: int) -> ListenHistory:
        shape = (users, MAX_LISTENS)
        return cls(np.zeros(shape, np.int32), np.zeros(shape, np.int64), np.zeros(users, np.int64))

    def select(self, user: np.ndarray) -> RecentListens:
        return RecentListens(self.item[user], self.time[user], np.minimum(self.total[user], MAX_LISTENS))

    def add(self, user: np.ndarray, item: np.ndarray, time: np.ndarray) -> None:
        """Add one listen for each of these users, who must differ."""
        at = self.total[user] % MAX_LISTENS
        self.item[user, at], self.time[user, at] = item, time
        self.total[user] += 1


def sum_matches(heard: np.ndarray, item: np.ndarray, *values: np.ndarray) -> list[np.ndarray]:
    """Sum each of values (B, H) where heard (B, H) equals item (B, C); the sums are (B, C).

    Matches are few, so they are listed and counted instead of summing over the (B, C, H) comparison.
    """
    b, c = item.shape
    h = heard.shape[1]
    match = np.flatnonzero(heard[:, None, :] == item[:, :, None])
    place = match // h
    listen = place // c * h + match % h
    return [np.bincount(place, value.ravel()[listen], minlength=b * c).reshape(b, c) for value in values]
