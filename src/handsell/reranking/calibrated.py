"""Calibration: the slate's mix of tags follows the mix of the user's history (@steck2018calibrated).

p(tag | user) is the mix of the history's positive events: the weight of an event is spread evenly over the tags of its
item. q(tag | slate) is the mix of the slate so far with the candidate. The cost is KL(p ‖ (1 − α) q + α p) with the
paper's α = 0.01: from 0 for the same mix to −ln α ≈ 4.6 for nothing in common.
"""

from __future__ import annotations

import numpy as np

from handsell.core.batches import History

ALPHA = 0.01
TINY = 1e-30  # keeps the logarithm finite for tags with p = q = 0
DECIMALS = 5  # of a cost: further ones depend on the padding of the batch


class TasteCalibration:
    """Cost: strength · KL divergence of the user's mix from the slate's mix.

    wanted (B, U): the user's mix; a row adds up to 1, or to 0 without history, where the cost is 0.
    shares (B, K, U): tags of each candidate; a row adds up to 1, or to 0 without tags, which leaves the mix unchanged.
    """

    def __init__(self, shares: np.ndarray, wanted: np.ndarray, strength: float):
        self.shares, self.wanted, self.strength = shares, wanted.astype(np.float64), strength
        self._begun = False

    def _begin(self) -> None:
        self._begun = True
        shares, wanted = self.shares, self.wanted
        rows, width, columns = shares.shape
        self._flat = shares.reshape(rows * width, columns)
        self._tagged = shares.any(axis=2)
        self._wanted, self._total, self._strength = wanted, wanted.sum(axis=1), self.strength
        self._least, self._smooth = xlogx(wanted).sum(axis=1), wanted * (ALPHA / (1 - ALPHA)) + TINY
        self._cell, self._tag = np.nonzero(self._flat * np.repeat(wanted, width, axis=0))  # tags with a share and p > 0
        self._place = self._cell // width * columns + self._tag  # the same in arrays (B, U)
        self._share, self._weight = self._flat[self._cell, self._tag], wanted.take(self._place)
        self._sum, self._count = np.zeros((rows, columns)), np.zeros(rows)

    @property
    def cost(self) -> np.ndarray:
        """Σ p ln p − Σ p ln q̃ with q̃ = (1 − α) / m · (sum of shares + m · α / (1 − α) · p), m tagged items.

        A candidate changes the sum only at its own tags, so the other logarithms are computed once.
        """
        if not self._begun:
            self._begin()
        many = self._count + 1
        base = self._sum + many[:, None] * self._smooth
        log = np.log(base)
        met = (self._wanted * log).sum(axis=1) + self._total * np.log((1 - ALPHA) / many)
        more = self._weight * (np.log(base.take(self._place) + self._share) - log.take(self._place))
        gain = np.bincount(self._cell, weights=more, minlength=len(self._flat)).reshape(self._tagged.shape)
        cost = (self._least - met)[:, None] - gain
        if not self._tagged.all():
            cost = np.where(self._tagged, cost, (self._least - self._present_cost())[:, None])
        return (cost * self._strength).round(DECIMALS)

    def _present_cost(self) -> np.ndarray:
        """(B,) Σ p ln q̃ of the slate so far, for items without tags."""
        many = np.maximum(self._count, 1)
        mix = (self._sum + many[:, None] * self._smooth) * ((1 - ALPHA) / many)[:, None]
        return (self._wanted * np.log(mix)).sum(axis=1)

    def add(self, position: int, place: np.ndarray) -> None:
        if not self._begun:
            self._begin()
        self._sum += self._flat.take(place, axis=0)
        self._count += self._tagged.take(place)


def compute_tag_mix(history: History, shares: np.ndarray) -> np.ndarray:
    """Return (B, U) float32, the mix of the positive events' tags; shares (B, T, U) of the history's items."""
    liked = np.maximum(history.weight, 0)[:, None, :] @ shares
    total = liked.sum(axis=2, keepdims=True)
    return (liked / np.where(total > 0, total, 1))[:, 0, :]


def xlogx(x: np.ndarray) -> np.ndarray:
    """x ln x, 0 at 0."""
    return x * np.log(np.where(x > 0, x, 1))
