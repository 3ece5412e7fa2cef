"""The logging policy: slates of the recommender that was in use during the log, with exact propensities."""

from __future__ import annotations

import numpy as np

from handsell.data.world.catalog import Catalog
from handsell.data.world.listen_history import RecentListens
from handsell.data.world.mixture import Mixture

# popular, uniform over the whole catalog (exploration), artists heard, tags heard, tracks heard
SHARES = (0.35, 0.15, 0.22, 0.22, 0.06)
_SPARE = 3  # draws per position; with fewer distinct tracks, the slate is shorter


def build_logging_mixture(tracks: Catalog, time: np.ndarray, listens: RecentListens) -> Mixture:
    """Build the mixture for B listeners from their latest listens."""
    released = tracks.count_released(time)
    chance = compute_tag_chances(tracks, listens)
    return Mixture.of(tracks, released, np.zeros_like(released), listens, chance, SHARES)


def draw_slate(mixture: Mixture, rng: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw slates: items (B, length) int32, -1 padded, and propensities (B, length), top first.

    The propensity is the probability of the track given the tracks above, m(i) / (1 - m(tracks above)), because draws
    that repeat a track above are discarded.
    """
    drawn = mixture.draw(rng, _SPARE * length)  # (B, N)
    n = drawn.shape[1]
    earlier = np.tril(np.ones((n, n), bool), -1)
    repeated = ((drawn[:, :, None] == drawn[:, None, :]) & earlier).any(axis=2)
    place = np.cumsum(~repeated, axis=1) - 1
    row, column = np.nonzero(~repeated & (place < length))
    item = np.full((len(drawn), length), -1, np.int32)
    item[row, place[row, column]] = drawn[row, column]
    chance = np.where(item >= 0, mixture.chance(np.maximum(item, 0)), 0.0)
    above = np.cumsum(chance, axis=1) - chance
    return item, np.where(item >= 0, chance / np.maximum(1 - above, 1e-12), 0.0)


def compute_tag_chances(tracks: Catalog, listens: RecentListens) -> np.ndarray:
    """Probability of each tag (B, T) if a listen is drawn uniformly, then one of its tags; 0 without listens."""
    genres = len(tracks.genre_vector)
    tag = tracks.tags[listens.item]  # (B, H, MAX_TAGS)
    valid = (tag >= 0) & listens.present[:, :, None]
    share = valid / np.maximum(valid.sum(axis=2, keepdims=True), 1) / np.maximum(listens.count, 1)[:, None, None]
    row, listen, place = np.nonzero(valid)
    cell = row * genres + tag[row, listen, place]
    return np.bincount(cell, share[row, listen, place], minlength=len(tag) * genres).reshape(len(tag), genres)
