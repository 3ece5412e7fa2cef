"""The true utility of tracks for listeners, in units like log-odds.

    utility = taste + appeal + time of day + novelty + familiarity - boredom      at the start of a session
            - energy jump - same artist                                           from one track to the next

Taste is a log-sum over a listener's tastes; the other terms depend on time, history and the order of tracks, so the
utility is not an inner product of user and item vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.units import DAY_US, HOUR_US
from handsell.data.world.catalog import Catalog
from handsell.data.world.listen_history import RecentListens, sum_matches
from handsell.data.world.listeners import Listeners

TASTE = 10.0  # sharpness of tastes
APPEAL = 0.9  # effect of popularity
FRESH_DAYS = 10.0
BOREDOM = 7.0  # cost of repeating a track right after it was played
BOREDOM_HOURS = 60.0
MOMENTUM = 2.5  # cost of a jump in energy from 0 to 1
SAME_ARTIST = 1.5


@dataclass(frozen=True)
class ListenerState:
    """States of B listeners, each at one time."""

    time: np.ndarray  # (B,) int64 µs
    taste: np.ndarray  # (B, K, D) float32, unit length
    share: np.ndarray  # (B, K) float32, log weights of the tastes, sum of weights 1
    preferred_energy: np.ndarray  # (B,) float32, 0..1
    energy_pull: np.ndarray  # (B,)
    novelty: np.ndarray  # (B,)
    loyalty: np.ndarray  # (B,)


def build_listener_states(
    people: Listeners, row: np.ndarray, time: np.ndarray, log_span: tuple[int, int]
) -> ListenerState:
    """Build the states of rows (B,) of `people` at time (B,) µs: drifted tastes, energy preferred at that hour."""
    start, end = log_span
    gone = np.clip((time - start) / (end - start), 0, 2).astype(np.float32)[:, None]
    place = people.taste[row] * (1 - gone[:, :, None]) + people.taste_end[row] * gone[:, :, None]
    none = np.isneginf(people.share[row])
    share = np.where(none, 0, people.share[row]) * (1 - gone) + np.where(none, 0, people.share_end[row]) * gone
    share = np.where(none, -np.inf, share)
    hour = (time % DAY_US) / HOUR_US - people.hour_shift[row]
    return ListenerState(
        time=time,
        taste=place / np.linalg.norm(place, axis=2, keepdims=True),
        share=share - np.log(np.exp(share).sum(axis=1, keepdims=True)),
        preferred_energy=preferred_energy(hour).astype(np.float32),
        energy_pull=people.energy_pull[row],
        novelty=people.novelty[row],
        loyalty=people.loyalty[row],
    )


def preferred_energy(hour: np.ndarray) -> np.ndarray:
    """Preferred energy 0..1 by hour of the day: about 0.88 at 9:00, 0.12 at 3:00."""
    return 0.5 + 0.38 * np.sin((hour - 4.0) / 24 * 2 * np.pi) + 0.08 * np.sin((hour - 6.0) / 12 * 2 * np.pi)


def utility(tracks: Catalog, now: ListenerState, item: np.ndarray | slice) -> np.ndarray:
    """Utility without history terms: (B, C) for item (B, C), or (B, n) for a slice of the catalog."""
    away = np.abs(tracks.energy[item] - now.preferred_energy[:, None])
    age = np.maximum(now.time[:, None] - tracks.published[item], 0) / DAY_US
    return (
        taste(tracks.vector[item], now)
        + APPEAL * np.log(tracks.weight[item])
        - now.energy_pull[:, None] * away
        + now.novelty[:, None] * np.exp(-age / FRESH_DAYS)
    )


def taste(vector: np.ndarray, now: ListenerState) -> np.ndarray:
    """Taste term: (B, C) for vectors (B, C, D) per listener, or (B, n) for shared vectors (n, D)."""
    closeness = None
    for k in range(now.taste.shape[1]):  # one taste at a time, to keep the table at (B, C)
        mine = now.taste[:, k]
        close = np.einsum("bd,bcd->bc" if vector.ndim == 3 else "bd,cd->bc", mine, vector)
        term = TASTE * close + now.share[:, [k]]
        closeness = term if closeness is None else np.logaddexp(closeness, term)
    assert closeness is not None
    return closeness


def familiarity(now: ListenerState, listens: RecentListens, item: np.ndarray) -> np.ndarray:
    """Familiarity minus boredom of item (B, C): (B, C)."""
    heard = np.where(listens.present, listens.item, -1)
    return familiarity_of_counts(now, *sum_matches(heard, item, listens.present, staleness(now, listens)))


def familiarity_of_counts(now: ListenerState, times: np.ndarray, stale: np.ndarray) -> np.ndarray:
    """The same, from (B, C) counts of listens and sums of `staleness`."""
    return now.loyalty[:, None] * np.log1p(times) - BOREDOM * stale


def staleness(now: ListenerState, listens: RecentListens) -> np.ndarray:
    """(B, H) decay of boredom: 1 right after the listen, near 0 after days."""
    hours = np.maximum(now.time[:, None] - listens.time, 0) / HOUR_US
    return np.where(listens.present, np.exp(-hours / BOREDOM_HOURS), 0.0)


def transition(tracks: Catalog, item: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Effect of the previous track (B,) on item (B, C) or (B,); 0 where previous is -1, none."""
    before = previous if item.ndim == 1 else previous[:, None]
    some = np.maximum(before, 0)
    jump = MOMENTUM * np.abs(tracks.energy[item] - tracks.energy[some])
    again = SAME_ARTIST * (tracks.artist[item] == tracks.artist[some])
    return np.where(before >= 0, -jump - again, 0.0)
