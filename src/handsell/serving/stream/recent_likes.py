"""Likes of items since the live bundle's data, halved with every hour, day and half-life of popularity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE
from handsell.core.units import DAY_US, HOUR_US
from handsell.data.weights import compute_event_weights
from handsell.events.store.interface import Columns, EventReader
from handsell.maintenance.retention import COUNTED_EVENTS

PAGE = 10_000  # events read at once
SENT = 20_000  # items with the most likes that gateways get
EXPONENT = 200.0  # sums are scaled anew when a new like would count 2^200 of the first
PRIOR = 5.0  # added to the expected likes, as in retrieval.trending


@dataclass(frozen=True, slots=True)
class RecentLikes:
    """Sums of positive event weights of N items as of `time`."""

    version: int  # offset of the last counted event
    bundle: str  # its data holds the likes before
    time: int  # µs of the newest counted like, 0 without one
    item_ids: tuple[str, ...]
    sums: np.ndarray  # (N, 3) float32, halved with every hour, day, and half-life of popularity


class LikeCounter:
    """Counts likes after an offset of the event store; the sums depend on the events' times, not on their order."""

    def __init__(self, config: Config, bundle: str, after_offset: int):
        self._events, self.bundle, self.offset = config.events, bundle, after_offset
        self._half_lives = find_half_lives(config)
        self._place: dict[str, int] = {}
        self._sums = np.zeros((1_024, 3))  # times 2^((time - origin) / half-life)
        self._origin = self._newest = 0

    def catch_up(self, reader: EventReader, through: int) -> bool:
        """Count the next events up to an offset; return whether there may be more."""
        self.offset = max(self.offset, through - COUNTED_EVENTS)
        if self.offset >= through:
            return False
        page = reader.scan(self.offset, PAGE)
        self.add(page)
        return len(page["offset"]) == PAGE

    def add(self, events: Columns) -> None:
        """Count the likes among events (N,) in order of offsets; those counted before are ignored."""
        names = {name: code for code, name in enumerate(self._events.names)}
        fresh = [i for i, o in enumerate(events["offset"]) if o > self.offset and events["type"][i] in names]
        self.offset = max([self.offset, *events["offset"][-1:]])
        kind = np.array([names[events["type"][i]] for i in fresh], np.int8)
        value = np.array([np.nan if events["value"][i] is None else events["value"][i] for i in fresh], np.float32)
        weight = compute_event_weights(kind, value, self._events)
        liked = np.flatnonzero(weight > 0)
        if not len(liked):
            return
        time = np.array([events["time"][i] for i in fresh], np.int64)[liked]
        place = [self._place.setdefault(events["item_id"][fresh[i]], len(self._place)) for i in liked.tolist()]
        if len(self._place) > len(self._sums):
            self._sums = np.concatenate([self._sums, np.zeros((len(self._place), 3))])
        self._newest = max(self._newest, int(time.max()))
        self._move_origin()
        scaled = weight[liked, None] * np.exp2((time - self._origin)[:, None] / self._half_lives)
        np.add.at(self._sums, place, scaled)

    def read(self) -> RecentLikes:
        """Return the sums as of the newest like, of the items with the most."""
        age = np.exp2(-(self._newest - self._origin) / self._half_lives)
        sums = self._sums[: len(self._place)] * age
        ids, share = list(self._place), sums / np.maximum(sums.sum(axis=0), 1e-300)
        most = np.sort(np.argsort(-share.max(axis=1), kind="stable")[:SENT])
        names = tuple(ids[i] for i in most.tolist())
        return RecentLikes(self.offset, self.bundle, self._newest, names, sums[most].astype(np.float32))

    def _move_origin(self) -> None:
        if not self._origin:
            self._origin = self._newest
        elif (self._newest - self._origin) / self._half_lives[0] > EXPONENT:
            self._sums *= np.exp2((self._origin - self._newest) / self._half_lives)
            self._origin = self._newest


def find_half_lives(config: Config) -> np.ndarray:
    """Return an hour, a day, and the half-life of the popularity source (3,) µs."""
    return np.array([HOUR_US, DAY_US, config.retrieval["popularity"].half_life_days * DAY_US])


def add_likes(
    popularity: np.ndarray,
    trend: np.ndarray,
    likes: RecentLikes,
    snapshot: Snapshot,
    config: Config,
    since: int,
    now: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return popularity and trend (I,) as of `now` from those of a bundle with data until `since`, and recent likes.

    Popularity is the sum that the popularity source would have if it were fitted now. The bundle's trend fades with
    each day; an item trends where its likes of the last hour or day exceed its share of popularity, in standard errors
    of a Poisson count as in retrieval.trending.
    """
    half_lives = find_half_lives(config)
    number = snapshot.items.number(likes.item_ids)
    known = number != NONE
    recent = np.zeros((len(snapshot), 3))
    recent[number[known]] = likes.sums[known] * np.exp2(-max(now - likes.time, 0) / half_lives)
    age = max(now - since, 0)
    popular = popularity * np.exp2(-age / half_lives[2]) + recent[:, 2]
    bursts = [_exceed(recent[:, column], popular) for column in (0, 1)]
    return popular, trend * np.exp2(-age / DAY_US) + np.maximum(*bursts)


def _exceed(recent: np.ndarray, long: np.ndarray) -> np.ndarray:
    """(I,) the excess of recent likes over the share of long-term likes, 0 where there is none."""
    expected = long * (recent.sum() / max(float(long.sum()), 1e-300))
    return np.maximum((recent - expected) / np.sqrt(expected + PRIOR), 0)
