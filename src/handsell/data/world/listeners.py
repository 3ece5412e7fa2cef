"""Users: two to four drifting tastes, habits, and session times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.errors import ConfigError
from handsell.core.units import DAY_US, HOUR_US, SECOND_US
from handsell.data.config import WorldConfig
from handsell.data.world.catalog import DIMENSIONS, Catalog, build_catalog, get_log_span, normalize, stream

COUNTRIES = ("GB", "IE", "PT", "IS", "GH")  # all in UTC: event hours are local hours
AGE_BANDS = ("13-17", "18-24", "25-34", "35-44", "45-54", "55+")
MAX_TASTES = 4
JOIN_DURING = 0.25  # share of users who join during the log
SESSION_US = 9_000_000_000  # 2.5 h: minimum distance of sessions, and more than their length


@dataclass(frozen=True)
class Listeners:
    """U users with their true parameters; `number` is the number in the whole world."""

    number: np.ndarray  # (U,) int64
    country: np.ndarray  # (U,) int8
    age_band: np.ndarray  # (U,) int8
    joined: np.ndarray  # (U,) int64 µs
    rate: np.ndarray  # (U,) float64, sessions a day
    taste: np.ndarray  # (U, MAX_TASTES, DIMENSIONS) float32, unit length, at the start of the log
    taste_end: np.ndarray  # (U, MAX_TASTES, DIMENSIONS) float32, at the end
    share: np.ndarray  # (U, MAX_TASTES) float32, log weight of each taste at the start; -inf = no such taste
    share_end: np.ndarray  # (U, MAX_TASTES) float32
    energy_pull: np.ndarray  # (U,) float32, effect of the time of day
    hour_shift: np.ndarray  # (U,) float32, hours by which the user's day is later
    novelty: np.ndarray  # (U,) float32, effect of new releases
    loyalty: np.ndarray  # (U,) float32, effect of tracks heard before
    dayparts: np.ndarray  # (U, 4) float32, probability of each of DAYPARTS

    def __len__(self) -> int:
        return len(self.number)


DAYPARTS = np.array([(8.0, 1.2), (13.0, 1.6), (19.0, 2.0), (23.5, 1.4)])  # mean and standard deviation, hours


def n_partitions(world: WorldConfig) -> int:
    return -(-world.users // world.users_per_partition)


def build_listeners(world: WorldConfig, partition: int) -> Listeners:
    """Build the users of a partition; raise ConfigError if the world has no such partition."""
    if not 0 <= partition < n_partitions(world):
        raise ConfigError(
            f"world partition: expected 0 to {n_partitions(world) - 1}, got {partition}; see n_partitions(world)"
        )
    first = partition * world.users_per_partition
    number = np.arange(first, min(first + world.users_per_partition, world.users))
    rng, n = stream(world, "users", partition), len(number)
    start, end = get_log_span(world)
    during = rng.random(n) < JOIN_DURING
    joined = np.where(during, rng.integers(start, end, n), start - (rng.random(n) * 1100 * DAY_US).astype(np.int64))
    rate = world.sessions_per_user_week / 7 * np.minimum(rng.lognormal(-0.32, 0.8, n), 6.0)
    return Listeners(
        number=number,
        country=rng.choice(len(COUNTRIES), n, p=[0.55, 0.15, 0.15, 0.05, 0.1]).astype(np.int8),
        age_band=rng.choice(len(AGE_BANDS), n, p=[0.08, 0.24, 0.28, 0.18, 0.12, 0.1]).astype(np.int8),
        joined=joined // SECOND_US * SECOND_US,
        rate=rate,
        **_draw_tastes(build_catalog(world), rng, n),
        energy_pull=rng.lognormal(2.35, 0.3, n).astype(np.float32),
        hour_shift=rng.normal(0, 0.8, n).astype(np.float32),
        novelty=rng.gamma(2.0, 1.4, n).astype(np.float32),
        loyalty=rng.gamma(9.0, 0.38, n).astype(np.float32),
        dayparts=rng.dirichlet([1.6, 0.9, 2.2, 0.9], n).astype(np.float32),
    )


def _draw_tastes(tracks: Catalog, rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """Draw two to four tastes near genres; their weights and positions change over the log."""
    genres, shape = len(tracks.genre_vector), (n, MAX_TASTES)
    popular = 1.0 / (np.arange(genres) + 8.0)
    genre = rng.choice(genres, shape, p=popular / popular.sum())
    toward = rng.choice(genres, shape, p=popular / popular.sum())
    place = tracks.genre_vector[genre] + rng.normal(0, 0.5 / np.sqrt(DIMENSIONS), (*shape, DIMENSIONS))
    absent = np.arange(MAX_TASTES) >= rng.integers(2, MAX_TASTES + 1, n)[:, None]
    share = np.where(absent, -np.inf, rng.normal(0, 0.7, shape)).astype(np.float32)
    return {
        "taste": normalize(place),
        "taste_end": normalize(place + 0.6 * tracks.genre_vector[toward]),
        "share": share,
        "share_end": (share + rng.normal(0, 1.3, shape)).astype(np.float32),
    }


def draw_session_starts(
    world: WorldConfig, people: Listeners, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw sessions: rows of `people` (S,) and start times (S,) µs, sorted by row, then time."""
    start, end = get_log_span(world)
    count = rng.poisson(people.rate * world.days)
    row = np.repeat(np.arange(len(people)), count)
    day = rng.integers(world.days, size=len(row))
    edge = np.cumsum(people.dayparts, axis=1)[row]
    part = np.minimum((rng.random(len(row))[:, None] > edge).sum(axis=1), len(DAYPARTS) - 1)
    hour = rng.normal(DAYPARTS[part, 0], DAYPARTS[part, 1]) + people.hour_shift[row]
    midnight = start // DAY_US * DAY_US
    time = midnight + day * DAY_US + ((hour % 24) * HOUR_US).astype(np.int64)
    inside = (time >= np.maximum(people.joined[row], start)) & (time < end - SESSION_US)
    row, time = row[inside], time[inside]
    order = np.lexsort((time, row))
    row, time = row[order], time[order]
    close = np.zeros(len(row), bool)
    close[1:] = (row[1:] == row[:-1]) & (np.diff(time) < SESSION_US)
    return row[~close], time[~close]
