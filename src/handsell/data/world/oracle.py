"""The true preferences of the users of a world at any time: the upper bound for recommenders.

For evaluation only; reads the truth folder only.
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
from handsell.data.world.catalog import Catalog, get_log_span
from handsell.data.world.listen_history import MAX_LISTENS, RecentListens
from handsell.data.world.listeners import Listeners
from handsell.data.world.policy import build_logging_mixture
from handsell.data.world.preference import (
    ListenerState,
    build_listener_states,
    familiarity,
    familiarity_of_counts,
    staleness,
    utility,
)
from handsell.data.world.session_simulation import LISTENS, examination, home_share, play_chance

T = TypeVar("T", ListenerState, RecentListens)
_CELLS = 4_000_000  # of a (B, I) table per step


@dataclass(frozen=True)
class Oracle:
    """The truth of a world, for batches of B users at B times.

    `history_item` (B, T) track numbers and `history_time` (B, T) µs are the user's *listens* before `time`, in any
    order, -1 padded; the latest 40 are used. Numbers are those of `item_numbers`.
    """

    world: WorldConfig
    tracks: Catalog
    people: Listeners

    @classmethod
    def load(cls, folder: Path) -> Oracle:
        """Load a truth folder; raise DataError if it is incomplete."""
        return cls(*truth.read(folder))

    def user_numbers(self, ids: Sequence[str]) -> np.ndarray:
        """Return the numbers of user ids, (B,) int64; raise DataError for an unknown id."""
        return _require(self.find_users(ids), ids, "u", len(self.people))

    def find_users(self, ids: Sequence[str]) -> np.ndarray:
        """Return the numbers of user ids, (B,) int64, -1 for those that the world lacks."""
        return _find(ids, "u", len(self.people))

    def item_numbers(self, ids: Sequence[str]) -> np.ndarray:
        """Return the track numbers of item ids, (N,) int64; raise DataError for an unknown id."""
        return _require(self.find_items(ids), ids, "t", len(self.tracks))

    def find_items(self, ids: Sequence[str]) -> np.ndarray:
        """Return the track numbers of item ids, (N,) int64, -1 for those that the world lacks."""
        return _find(ids, "t", len(self.tracks))

    def true_utility(
        self, user: np.ndarray, time: np.ndarray, history_item: np.ndarray, history_time: np.ndarray,
        items: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Utility at the start of a session: (B, I) float32, or (B, K) for items (B, K); -inf before release.

        The softmax of a row is the probability of each track to be the first choice from search or library.
        """
        now, listens = self._build_states(user, time, history_item, history_time)
        if items is None:
            parts = [self._all_of(_rows(now, p), _rows(listens, p)) for p in self._parts(len(time))]
            return np.concatenate([np.zeros((0, len(self.tracks))), *parts]).astype(np.float32)
        known = np.clip(items, 0, len(self.tracks) - 1)
        value = utility(self.tracks, now, known) + familiarity(now, listens, known)
        out = (items < 0) | (items >= self.tracks.count_released(time)[:, None])
        return np.where(out, -np.inf, value).astype(np.float32)

    def expected_listens(
        self, user: np.ndarray, time: np.ndarray, history_item: np.ndarray, history_time: np.ndarray
    ) -> np.ndarray:
        """Return the expected listens of each track in a session that starts at `time`, (B, I) float32.

        The upper bound for offline evaluation on the log: organic listens plus listens from slates of the policy.
        A first-order value, without effects of one track on the next.
        """
        now, listens = self._build_states(user, time, history_item, history_time)
        out = np.empty((len(time), len(self.tracks)), np.float32)
        for part in self._parts(len(time)):
            want = self._all_of(_rows(now, part), _rows(listens, part))
            chosen = np.exp(want - want.max(axis=1, keepdims=True))
            chosen /= chosen.sum(axis=1, keepdims=True)
            shown = build_logging_mixture(self.tracks, time[part], _rows(listens, part))
            looked = home_share(self.world) * examination(self.world).sum() * shown.chance_of_all()
            out[part] = self.world.organic_share * LISTENS * chosen + looked * play_chance(want)
        return out

    def _build_states(
        self, user: np.ndarray, time: np.ndarray, history_item: np.ndarray, history_time: np.ndarray
    ) -> tuple[ListenerState, RecentListens]:
        return build_listener_states(self.people, user, time, get_log_span(self.world)), _select_listens(
            time, history_item, history_time
        )

    def _parts(self, rows: int) -> list[slice]:
        step = max(_CELLS // len(self.tracks), 1)
        return [slice(at, at + step) for at in range(0, rows, step)]

    def _all_of(self, now: ListenerState, listens: RecentListens) -> np.ndarray:
        """(B, I) utility with familiarity; -inf before release."""
        value = utility(self.tracks, now, slice(None))
        times, stale = np.zeros_like(value), np.zeros_like(value)
        row, place = np.nonzero(listens.present)
        item = listens.item[row, place]
        np.add.at(times, (row, item), 1)
        np.add.at(stale, (row, item), staleness(now, listens)[row, place])
        value += familiarity_of_counts(now, times, stale)
        return np.where(np.arange(len(self.tracks)) < self.tracks.count_released(now.time)[:, None], value, -np.inf)


def _select_listens(time: np.ndarray, item: np.ndarray, listened: np.ndarray) -> RecentListens:
    """Select the latest listens before `time`, in the first columns of each row."""
    past = (item >= 0) & (listened < time[:, None])
    order = np.argsort(np.where(past, -listened, 1), axis=1, kind="stable")[:, :MAX_LISTENS]
    count = np.minimum(past.sum(axis=1), MAX_LISTENS)
    empty = np.arange(order.shape[1]) >= count[:, None]
    item, listened = (np.where(empty, 0, np.take_along_axis(a, order, axis=1)) for a in (item, listened))
    return RecentListens(item.astype(np.int32), listened, count)


def _rows(batch: T, part: slice) -> T:
    return type(batch)(*(getattr(batch, f.name)[part] for f in fields(batch)))


def _find(ids: Sequence[str], prefix: str, count: int) -> np.ndarray:
    numbers = np.array([int(i[1:]) if i[:1] == prefix and i[1:].isdecimal() else -1 for i in ids], np.int64)
    return np.where(numbers < count, numbers, -1)


def _require(numbers: np.ndarray, ids: Sequence[str], prefix: str, count: int) -> np.ndarray:
    if (numbers < 0).any():
        name = ids[int(np.argmax(numbers < 0))]
        raise DataError(
            f"expected an id {prefix}{0:07d} to {prefix}{count - 1:07d}, got {name!r}; use ids of this world"
        )
    return numbers
