"""What listeners remember: their most recent listens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REMEMBERED = 40  # listens


@dataclass(frozen=True)
class Recall:
    """B listeners' last listens in no particular order; row b fills its first `count[b]` places."""

    item: np.ndarray  # (B, H) int32, 0 where empty
    time: np.ndarray  # (B, H) int64 µs
    count: np.ndarray  # (B,) int64

    @property
    def present(self) -> np.ndarray:
        return np.arange(self.item.shape[1]) < self.count[:, None]


@dataclass(frozen=True)
class Memory:
    """The same for all users of a partition, overwritten in a ring."""

    item: np.ndarray  # (U, REMEMBERED) int32
    time: np.ndarray  # (U, REMEMBERED) int64 µs
    total: np.ndarray  # (U,) int64 listens so far

    @classmethod
    def empty(cls, users: int) -> Memory:
        shape = (users, REMEMBERED)
        return cls(np.zeros(shape, np.int32), np.zeros(shape, np.int64), np.zeros(users, np.int64))

    def recall(self, user: np.ndarray) -> Recall:
        return Recall(self.item[user], self.time[user], np.minimum(self.total[user], REMEMBERED))

    def add(self, user: np.ndarray, item: np.ndarray, time: np.ndarray) -> None:
        """One listen each of different users."""
        at = self.total[user] % REMEMBERED
        self.item[user, at], self.time[user, at] = item, time
        self.total[user] += 1


def occurrences(heard: np.ndarray, item: np.ndarray, *values: np.ndarray) -> list[np.ndarray]:
    """For each of values (B, H) its sum (B, C) over the places where heard (B, H) is item (B, C).

    Matches are few, so they are listed and counted rather than summed over the (B, C, H) comparison.
    """
    b, c = item.shape
    h = heard.shape[1]
    match = np.flatnonzero(heard[:, None, :] == item[:, :, None])
    place = match // h
    listen = place // c * h + match % h
    return [np.bincount(place, value.ravel()[listen], minlength=b * c).reshape(b, c) for value in values]
