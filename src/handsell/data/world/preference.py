"""How much somebody would like to hear something now: the truth of the world, in log-odds-like units.

    utility = taste + appeal + time of day + novelty + familiarity - boredom      at the start of a session
            + momentum - same artist again                                        from one track to the next

Taste is a log-sum over a listener's tastes, the others depend on time, on history and on the order of
tracks, so no inner product of user and item vectors can hold them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.units import DAY_US, HOUR_US
from handsell.data.world.catalog import Catalog
from handsell.data.world.listeners import Listeners
from handsell.data.world.memory import Recall, occurrences

TASTE = 10.0  # sharpness of a taste around its center
APPEAL = 0.9  # pull of popularity
FRESH_DAYS = 10.0
BOREDOM = 7.0  # cost of a track heard just now
BOREDOM_HOURS = 60.0
MOMENTUM = 2.5  # cost of a jump in energy from 0 to 1
SAME_ARTIST = 1.5


@dataclass(frozen=True)
class Moment:
    """B listeners at one time each."""

    time: np.ndarray  # (B,) int64 µs
    taste: np.ndarray  # (B, K, D) float32, unit length
    share: np.ndarray  # (B, K) float32, log weights of the tastes, sum of weights 1
    energy_wish: np.ndarray  # (B,) float32, 0..1
    energy_pull: np.ndarray  # (B,)
    novelty: np.ndarray  # (B,)
    loyalty: np.ndarray  # (B,)


def moment(people: Listeners, row: np.ndarray, time: np.ndarray, log_span: tuple[int, int]) -> Moment:
    """The state of rows of `people` at time (B,) µs: where their tastes have drifted, what the hour asks for."""
    start, end = log_span
    gone = np.clip((time - start) / (end - start), 0, 2).astype(np.float32)[:, None]
    place = people.taste[row] * (1 - gone[:, :, None]) + people.taste_end[row] * gone[:, :, None]
    none = np.isneginf(people.share[row])
    share = np.where(none, 0, people.share[row]) * (1 - gone) + np.where(none, 0, people.share_end[row]) * gone
    share = np.where(none, -np.inf, share)
    hour = (time % DAY_US) / HOUR_US - people.hour_shift[row]
    return Moment(
        time=time,
        taste=place / np.linalg.norm(place, axis=2, keepdims=True),
        share=share - np.log(np.exp(share).sum(axis=1, keepdims=True)),
        energy_wish=energy_wish(hour).astype(np.float32),
        energy_pull=people.energy_pull[row],
        novelty=people.novelty[row],
        loyalty=people.loyalty[row],
    )


def energy_wish(hour: np.ndarray) -> np.ndarray:
    """The energy 0..1 that an hour asks for: 0.88 at nine in the morning, 0.12 at three in the night or so."""
    return 0.5 + 0.38 * np.sin((hour - 4.0) / 24 * 2 * np.pi) + 0.08 * np.sin((hour - 6.0) / 12 * 2 * np.pi)


def utility(tracks: Catalog, now: Moment, item: np.ndarray | slice) -> np.ndarray:
    """(B, C) for item (B, C), or (B, n) for a slice of the catalog: all but what history says."""
    away = np.abs(tracks.energy[item] - now.energy_wish[:, None])
    age = np.maximum(now.time[:, None] - tracks.published[item], 0) / DAY_US
    return (
        taste(tracks.vector[item], now)
        + APPEAL * np.log(tracks.weight[item])
        - now.energy_pull[:, None] * away
        + now.novelty[:, None] * np.exp(-age / FRESH_DAYS)
    )


def taste(vector: np.ndarray, now: Moment) -> np.ndarray:
    """(B, C) of vectors (B, C, D) given per listener, or (B, n) of vectors (n, D) common to all."""
    closeness = None
    for k in range(now.taste.shape[1]):  # one taste at a time keeps the table at (B, C)
        mine = now.taste[:, k]
        close = np.einsum("bd,bcd->bc" if vector.ndim == 3 else "bd,cd->bc", mine, vector)
        term = TASTE * close + now.share[:, [k]]
        closeness = term if closeness is None else np.logaddexp(closeness, term)
    assert closeness is not None
    return closeness


def habit(now: Moment, recall: Recall, item: np.ndarray) -> np.ndarray:
    """(B, C) what having heard item (B, C) before does: it draws back, but not too soon."""
    heard = np.where(recall.present, recall.item, -1)
    return habit_of(now, *occurrences(heard, item, recall.present, staleness(now, recall)))


def habit_of(now: Moment, times: np.ndarray, stale: np.ndarray) -> np.ndarray:
    """The same from (B, C) counts of listens and sums of `staleness`."""
    return now.loyalty[:, None] * np.log1p(times) - BOREDOM * stale


def staleness(now: Moment, recall: Recall) -> np.ndarray:
    """(B, H) 1 for a listen just now, falling to 0 over days."""
    hours = np.maximum(now.time[:, None] - recall.time, 0) / HOUR_US
    return np.where(recall.present, np.exp(-hours / BOREDOM_HOURS), 0.0)


def following(tracks: Catalog, item: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """(B, C) or (B,) what playing `previous` (B,) just before does to item; -1 = nothing was played."""
    before = previous if item.ndim == 1 else previous[:, None]
    some = np.maximum(before, 0)
    jump = MOMENTUM * np.abs(tracks.energy[item] - tracks.energy[some])
    again = SAME_ARTIST * (tracks.artist[item] == tracks.artist[some])
    return np.where(before >= 0, -jump - again, 0.0)
