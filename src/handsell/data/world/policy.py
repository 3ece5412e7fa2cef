"""The logging policy: what the service's old recommender showed, with the exact chance of each choice."""

from __future__ import annotations

import numpy as np

from handsell.data.world.catalog import Catalog
from handsell.data.world.draws import Mixture
from handsell.data.world.memory import Recall

# popular, uniform over the whole catalog (exploration), artists heard, tags heard, tracks heard
SHARES = (0.35, 0.15, 0.22, 0.22, 0.06)
_SPARE = 3  # draws per place of the slate; a slate that still lacks distinct tracks is shorter


def logging_mixture(tracks: Catalog, time: np.ndarray, recall: Recall) -> Mixture:
    """The policy's mixture for B listeners, who are known to it by what they heard only."""
    released = tracks.available(time)
    chance = heard_tags(tracks, recall)
    return Mixture.of(tracks, released, np.zeros_like(released), recall, chance, SHARES)


def slate(mixture: Mixture, rng: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Items (B, length) int32, -1 padded, and propensities (B, length), top first.

    The propensity of a place is the chance of its track given the tracks above: m(i) / (1 - m(those above)),
    because draws that repeat a track above are thrown away.
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


def heard_tags(tracks: Catalog, recall: Recall) -> np.ndarray:
    """(B, T) chance of each tag when a listen is picked evenly, then one of its tags; 0 without listens."""
    genres = len(tracks.genre_vector)
    tag = tracks.tags[recall.item]  # (B, H, MAX_TAGS)
    valid = (tag >= 0) & recall.present[:, :, None]
    share = valid / np.maximum(valid.sum(axis=2, keepdims=True), 1) / np.maximum(recall.count, 1)[:, None, None]
    row, listen, place = np.nonzero(valid)
    cell = row * genres + tag[row, listen, place]
    return np.bincount(cell, share[row, listen, place], minlength=len(tag) * genres).reshape(len(tag), genres)
