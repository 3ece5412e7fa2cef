"""What a recommender would know that knew everything: the true expected preference of any user at any time.

For evaluation and the simulator only; it reads the truth folder and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np

from handsell.core.errors import DataError
from handsell.data.config import WorldConfig
from handsell.data.world import truth
from handsell.data.world.catalog import Catalog, span
from handsell.data.world.listeners import Listeners
from handsell.data.world.listening import LISTENS, examination, home_share, play_chance
from handsell.data.world.memory import REMEMBERED, Recall
from handsell.data.world.policy import logging_mixture
from handsell.data.world.preference import Moment, habit, habit_of, moment, staleness, utility

T = TypeVar("T", Moment, Recall)
_CELLS = 4_000_000  # of a (B, I) table worked on at once


@dataclass(frozen=True)
class Oracle:
    """The truth of a world, asked in batches of B users at B times.

    `history_item` (B, T) track numbers and `history_time` (B, T) µs are the user's latest *listens* before
    `time`, in any order, -1 padded; the 40 most recent count. Numbers are those of `item_numbers`.
    """

    world: WorldConfig
    tracks: Catalog
    people: Listeners

    @classmethod
    def load(cls, folder: Path) -> Oracle:
        """From a truth folder; raises DataError where it is not complete."""
        return cls(*truth.read(folder))

    def user_numbers(self, ids: Sequence[str]) -> np.ndarray:
        """(B,) int64 numbers of user ids; raises DataError for one that the world does not have."""
        return _numbers(ids, "u", len(self.people))

    def item_numbers(self, ids: Sequence[str]) -> np.ndarray:
        """(N,) int64 track numbers of item ids; raises DataError for one that the world does not have."""
        return _numbers(ids, "t", len(self.tracks))

    def true_utility(
        self, user: np.ndarray, time: np.ndarray, history_item: np.ndarray, history_time: np.ndarray,
        items: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """(B, I) float32, or (B, K) for items (B, K): utility at the start of a session; -inf before release.

        A softmax of a row is the chance of each track to be the user's first choice from search or library.
        """
        now, recall = self._asked(user, time, history_item, history_time)
        if items is None:
            parts = [self._all_of(_rows(now, p), _rows(recall, p)) for p in self._parts(len(time))]
            return np.concatenate([np.zeros((0, len(self.tracks))), *parts]).astype(np.float32)
        known = np.clip(items, 0, len(self.tracks) - 1)
        value = utility(self.tracks, now, known) + habit(now, recall, known)
        out = (items < 0) | (items >= self.tracks.available(time)[:, None])
        return np.where(out, -np.inf, value).astype(np.float32)

    def expected_listens(
        self, user: np.ndarray, time: np.ndarray, history_item: np.ndarray, history_time: np.ndarray
    ) -> np.ndarray:
        """(B, I) float32: listens expected of each track in a session that starts at `time`.

        The ceiling for offline evaluation on the log: what is chosen freely, plus what the logging policy
        shows and the user takes. To first order: effects of one track on the next are left out.
        """
        now, recall = self._asked(user, time, history_item, history_time)
        out = np.empty((len(time), len(self.tracks)), np.float32)
        for part in self._parts(len(time)):
            want = self._all_of(_rows(now, part), _rows(recall, part))
            chosen = np.exp(want - want.max(axis=1, keepdims=True))
            chosen /= chosen.sum(axis=1, keepdims=True)
            shown = logging_mixture(self.tracks, time[part], _rows(recall, part))
            looked = home_share(self.world) * examination(self.world).sum() * shown.chance_of_all()
            out[part] = self.world.organic_share * LISTENS * chosen + looked * play_chance(want)
        return out

    def _asked(
        self, user: np.ndarray, time: np.ndarray, history_item: np.ndarray, history_time: np.ndarray
    ) -> tuple[Moment, Recall]:
        return moment(self.people, user, time, span(self.world)), _recall(time, history_item, history_time)

    def _parts(self, rows: int) -> list[slice]:
        step = max(_CELLS // len(self.tracks), 1)
        return [slice(at, at + step) for at in range(0, rows, step)]

    def _all_of(self, now: Moment, recall: Recall) -> np.ndarray:
        """(B, I) utility with habits; -inf before release."""
        value = utility(self.tracks, now, slice(None))
        times, stale = np.zeros_like(value), np.zeros_like(value)
        row, place = np.nonzero(recall.present)
        item = recall.item[row, place]
        np.add.at(times, (row, item), 1)
        np.add.at(stale, (row, item), staleness(now, recall)[row, place])
        value += habit_of(now, times, stale)
        return np.where(np.arange(len(self.tracks)) < self.tracks.available(now.time)[:, None], value, -np.inf)


def _recall(time: np.ndarray, item: np.ndarray, listened: np.ndarray) -> Recall:
    """The most recent listens before `time`, packed to the front of each row."""
    past = (item >= 0) & (listened < time[:, None])
    order = np.argsort(np.where(past, -listened, 1), axis=1, kind="stable")[:, :REMEMBERED]
    count = np.minimum(past.sum(axis=1), REMEMBERED)
    empty = np.arange(order.shape[1]) >= count[:, None]
    item, listened = (np.where(empty, 0, np.take_along_axis(a, order, axis=1)) for a in (item, listened))
    return Recall(item.astype(np.int32), listened, count)


def _rows(batch: T, part: slice) -> T:
    return type(batch)(*(getattr(batch, f.name)[part] for f in fields(batch)))


def _numbers(ids: Sequence[str], prefix: str, count: int) -> np.ndarray:
    numbers = [int(i[1:]) if i[:1] == prefix and i[1:].isdecimal() else -1 for i in ids]
    for name, number in zip(ids, numbers, strict=True):
        if not 0 <= number < count:
            raise DataError(
                f"an id {prefix}{0:07d} to {prefix}{count - 1:07d} is expected, got {name!r}: not this world's"
            )
    return np.array(numbers, np.int64)
