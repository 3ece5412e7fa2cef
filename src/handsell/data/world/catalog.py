"""Artists, tracks and genres, with their latent vectors."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import numpy as np

from handsell.core.errors import ConfigError
from handsell.core.units import DAY_US, SECOND_US
from handsell.data.config import WorldConfig
from handsell.data.world.names import GENRES

DIMENSIONS = 16
MAX_TAGS = 4
RELEASED_DURING = 0.12  # share of tracks released during the log: cold-start items
ZIPF = 0.85  # exponent of popularity


@dataclass(frozen=True)
class Groups:
    """Tracks by artist or by tag: group g is member[offset[g]:offset[g + 1]], oldest release first."""

    member: np.ndarray  # (M,) int32
    offset: np.ndarray  # (G + 1,) int64
    below: np.ndarray  # (M + 1,) float64, cumulative weight of the members before
    key: np.ndarray  # (M,) int64 sorted, group * I + member

    @classmethod
    def of(cls, group: np.ndarray, member: np.ndarray, groups: int, weight: np.ndarray) -> Groups:
        key = np.sort(group.astype(np.int64) * len(weight) + member)
        member = (key % len(weight)).astype(np.int32)
        offset = np.searchsorted(key, np.arange(groups + 1, dtype=np.int64) * len(weight))
        return cls(member, offset, np.concatenate([[0.0], np.cumsum(weight[member])]), key)


@dataclass(frozen=True)
class Catalog:
    """I tracks numbered in order of release, so that the available tracks at any time are a prefix."""

    artist: np.ndarray  # (I,) int32
    tags: np.ndarray  # (I, MAX_TAGS) int16, -1 padded; the first is the main one
    vector: np.ndarray  # (I, DIMENSIONS) float32, unit length; hidden
    weight: np.ndarray  # (I,) float64, Zipf popularity, mean 1; hidden
    published: np.ndarray  # (I,) int64 µs, ascending
    energy: np.ndarray  # (I,) float32, 0..1
    acousticness: np.ndarray  # (I,) float32, 0..1
    tempo: np.ndarray  # (I,) float32, beats per minute
    explicit: np.ndarray  # (I,) bool
    genre_vector: np.ndarray  # (T, DIMENSIONS) float32, unit length
    by_artist: Groups
    by_tag: Groups
    below: np.ndarray  # (I + 1,) float64, cumulative weight of the tracks before

    def __len__(self) -> int:
        return len(self.artist)

    def count_released(self, time: np.ndarray) -> np.ndarray:
        """Return the number of tracks released at or before each time (B,); tracks of lower number are available."""
        return np.searchsorted(self.published, time, side="right")


def stream(world: WorldConfig, name: str, partition: int = 0) -> np.random.Generator:
    """Return the random generator of one part of the world, independent of the other parts."""
    return np.random.default_rng([world.seed, int.from_bytes(name.encode(), "big"), partition])


def get_log_span(world: WorldConfig) -> tuple[int, int]:
    """Return (start, end) of the log in µs; raise ConfigError if `end` is not a time."""
    try:
        end = datetime.fromisoformat(world.end)
        if end.tzinfo is None:
            raise ValueError("no time zone")
    except ValueError as error:
        raise ConfigError(
            f"data.world.end: expected a time such as 2026-06-30T00:00:00Z, got {world.end!r} ({error}); correct it"
        ) from None
    end_us = int(end.timestamp()) * SECOND_US
    return end_us - world.days * DAY_US, end_us


def normalize(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=4)
def build_catalog(world: WorldConfig) -> Catalog:
    """Build all tracks of the world, the same in every process; O(items) memory."""
    rng = stream(world, "catalogue")  # the name is part of the seed: do not change it
    center, energy, acousticness = _draw_genres(world.tags, rng)
    fame = rng.normal(0, 1.0, world.artists)
    popular_genre = 1.0 / (np.arange(world.tags) + 6.0)
    home = rng.choice(world.tags, world.artists, p=popular_genre / popular_genre.sum())
    second = rng.integers(world.tags, size=world.artists)
    artist_vector = normalize(center[home] + 0.3 * center[second] + 0.5 * _draw_noise(rng, world.artists))

    artist = _draw_artists(world, rng)
    published = _draw_release_times(world, rng)
    vector = normalize(artist_vector[artist] + 0.45 * _draw_noise(rng, world.items))
    order_of_fame = np.argsort(np.argsort(-(0.8 * fame[artist] + rng.normal(0, 1.0, world.items))))
    weight = (order_of_fame + 8.0) ** -ZIPF
    weight /= weight.mean()
    energy = np.clip(energy[home[artist]] + rng.normal(0, 0.14, world.items), 0, 1).astype(np.float32)
    acousticness = np.clip(acousticness[home[artist]] + rng.normal(0, 0.12, world.items), 0, 1).astype(np.float32)
    tags = _draw_tags(vector, home[artist], center, rng)
    row, column = np.nonzero(tags >= 0)
    return Catalog(
        artist=artist,
        tags=tags,
        vector=vector,
        weight=weight,
        published=published,
        energy=energy,
        acousticness=acousticness,
        tempo=np.round(72 + 75 * energy + rng.normal(0, 9, world.items)).astype(np.float32),
        explicit=rng.random(world.items) < 0.04 + 0.14 * energy,
        genre_vector=center,
        by_artist=Groups.of(artist, np.arange(world.items), world.artists, weight),
        by_tag=Groups.of(tags[row, column], row, world.tags, weight),
        below=np.concatenate([[0.0], np.cumsum(weight)]),
    )


def _draw_genres(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw latent centers (T, D), whose first two directions are energy and acousticness, and both attributes (T,)."""
    known = np.array([GENRES[k % len(GENRES)][1:] for k in range(count)])
    known = np.clip(known + np.where(np.arange(count)[:, None] < len(GENRES), 0, rng.normal(0, 0.08, (count, 2))), 0, 1)
    rest = rng.normal(0, 1 / np.sqrt(DIMENSIONS - 2), (count, DIMENSIONS - 2))
    return normalize(np.hstack([(known - 0.5) * 1.2, rest])), known[:, 0], known[:, 1]


def _draw_noise(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.normal(0, 1 / np.sqrt(DIMENSIONS), (rows, DIMENSIONS))


def _draw_artists(world: WorldConfig, rng: np.random.Generator) -> np.ndarray:
    """Draw the artist of each track, (I,) int32; each artist has a track if there are enough, some have many."""
    productive = rng.lognormal(0, 0.7, world.artists)
    artist = rng.choice(world.artists, world.items, p=productive / productive.sum())
    sure = min(world.artists, world.items)
    artist[:sure] = np.arange(sure)
    return rng.permutation(artist).astype(np.int32)


def _draw_release_times(world: WorldConfig, rng: np.random.Generator) -> np.ndarray:
    """Draw release times, (I,) int64 µs ascending: most are years old, some within the log; the first is before it."""
    start, end = get_log_span(world)
    age_days = np.minimum(1 + rng.exponential(1400, world.items), 30 * 365)
    before = start - (age_days * DAY_US).astype(np.int64)
    during = rng.integers(start, end, world.items)
    fresh = rng.random(world.items) < RELEASED_DURING
    fresh[0] = False
    return np.sort(np.where(fresh, during, before) // SECOND_US * SECOND_US)


def _draw_tags(vector: np.ndarray, home: np.ndarray, center: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw tags, (I, MAX_TAGS) int16: the artist's genre, then up to three genres near the track."""
    items, genres = len(vector), len(center)
    tags = np.full((items, MAX_TAGS), -1, np.int16)
    more = rng.choice(MAX_TAGS, items, p=[0.3, 0.4, 0.2, 0.1])
    for at in range(0, items, 50_000):  # bounds the (rows, T) table of large catalogs
        rows = slice(at, at + 50_000)
        near = np.einsum("id,td->it", vector[rows], center) + rng.gumbel(0, 0.08, (len(vector[rows]), genres))
        near[np.arange(len(near)), home[rows]] = np.inf
        best = np.argsort(-near, axis=1)[:, :MAX_TAGS].astype(np.int16)
        keep = np.arange(best.shape[1]) <= more[rows, None]
        tags[rows, : best.shape[1]] = np.where(keep, best, -1)
    return tags
