"""Calibration: a slate's mix of tags follows the user's own (@steck2018calibrated).

p(tag | user) is the mix of the history's positive events, each spread evenly over its item's tags and weighted by the
event's weight; q(tag | slate) is the same of the slate so far with the candidate. The cost is KL(p ‖ (1 − α) q + α p)
with the paper's α = 0.01: from 0, the same mix, to −ln α ≈ 4.6, nothing in common.
"""

from __future__ import annotations

import numpy as np

from handsell.core.batches import History

ALPHA = 0.01
TINY = 1e-30  # keeps the logarithm of what nobody wants and nothing has finite
DECIMALS = 5  # of a cost: sums over a batch's padded tags may differ beyond


class TasteCalibration:
    """strength · KL of the user's mix wanted (B, U) from the slate's; shares (B, K, U) of each candidate's tags.

    A row of wanted adds up to 1, or to 0 where nothing is known of the user, who then costs nothing; so do shares, 0
    for an item without tags, which leaves the mix as it is.
    """

    def __init__(self, shares: np.ndarray, wanted: np.ndarray, strength: float):
        rows, width, columns = shares.shape
        self._flat = shares.reshape(rows * width, columns)
        self._tagged = shares.any(axis=2)
        wanted = wanted.astype(np.float64)
        self._wanted, self._total, self._strength = wanted, wanted.sum(axis=1), strength
        self._least, self._smooth = xlogx(wanted).sum(axis=1), wanted * (ALPHA / (1 - ALPHA)) + TINY
        self._cell, self._tag = np.nonzero(self._flat * np.repeat(wanted, width, axis=0))  # tags that somebody wants
        self._place = self._cell // width * columns + self._tag  # … in arrays (B, U)
        self._share, self._worth = self._flat[self._cell, self._tag], wanted.take(self._place)
        self._sum, self._count = np.zeros((rows, columns)), np.zeros(rows)

    @property
    def cost(self) -> np.ndarray:
        """Σ p ln p − Σ p ln q̃ with q̃ = (1 − α) / m · (sum of shares + m · α / (1 − α) · p), m tagged items.

        A candidate changes the sum at its own tags alone, so the logarithms of all others are taken once.
        """
        many = self._count + 1
        base = self._sum + many[:, None] * self._smooth
        log = np.log(base)
        met = (self._wanted * log).sum(axis=1) + self._total * np.log((1 - ALPHA) / many)
        more = self._worth * (np.log(base.take(self._place) + self._share) - log.take(self._place))
        gain = np.bincount(self._cell, weights=more, minlength=len(self._flat)).reshape(self._tagged.shape)
        cost = (self._least - met)[:, None] - gain
        if not self._tagged.all():
            cost = np.where(self._tagged, cost, (self._least - self._as_it_is())[:, None])
        return (cost * self._strength).round(DECIMALS)

    def _as_it_is(self) -> np.ndarray:
        """(B,) Σ p ln q̃ of the slate so far, which an item without tags leaves as it is."""
        many = np.maximum(self._count, 1)
        mix = (self._sum + many[:, None] * self._smooth) * ((1 - ALPHA) / many)[:, None]
        return (self._wanted * np.log(mix)).sum(axis=1)

    def add(self, position: int, place: np.ndarray) -> None:
        self._sum += self._flat.take(place, axis=0)
        self._count += self._tagged.take(place)


def own_mix(history: History, shares: np.ndarray) -> np.ndarray:
    """(B, U) float32 mix of the positive events' tags, adding up to 1 or 0; shares (B, T, U) of the history."""
    liked = np.maximum(history.weight, 0)[:, None, :] @ shares
    total = liked.sum(axis=2, keepdims=True)
    return (liked / np.where(total > 0, total, 1))[:, 0, :]


def xlogx(x: np.ndarray) -> np.ndarray:
    """x ln x, 0 at 0."""
    return x * np.log(np.where(x > 0, x, 1))
