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


class Calibration:
    """strength · KL of the user's mix wanted (B, U) from the slate's; shares (B, K, U) of each candidate's tags.

    A row of wanted adds up to 1, or to 0 where nothing is known of the user, who then costs nothing; so do shares, 0
    for an item without tags, which leaves the mix as it is.
    """

    def __init__(self, shares: np.ndarray, wanted: np.ndarray, strength: float):
        known = (wanted > 0).any(axis=0)  # tags that nobody of the batch wants say nothing
        self._shares = np.ascontiguousarray(shares[:, :, known], np.float32)
        rows, width, columns = self._shares.shape
        self._flat = self._shares.reshape(rows * width, columns)
        self._tagged = shares.any(axis=2)
        wanted = wanted[:, known].astype(np.float32)
        self._wanted, self._total, self._strength = wanted[:, :, None], wanted.sum(axis=1), strength
        self._least, self._smooth = xlogx(wanted).sum(axis=1), wanted * (ALPHA / (1 - ALPHA)) + TINY
        self._sum, self._count = np.zeros((rows, columns), np.float32), np.zeros(rows, np.float32)
        self._mix = np.empty_like(self._shares)

    @property
    def cost(self) -> np.ndarray:
        """Σ p ln p − Σ p ln q̃ with q̃ = (1 − α) / m · (sum of shares + m · α / (1 − α) · p), m tagged items."""
        many = self._count + 1
        np.add(self._shares, (self._sum + many[:, None] * self._smooth)[:, None, :], out=self._mix)
        met = (np.log(self._mix, out=self._mix) @ self._wanted)[:, :, 0]
        met += (self._total * np.log((1 - ALPHA) / many))[:, None]
        if not self._tagged.all():
            met = np.where(self._tagged, met, self._as_it_is()[:, None])
        return ((self._least[:, None] - met) * self._strength).round(DECIMALS)

    def _as_it_is(self) -> np.ndarray:
        """(B,) Σ p ln q̃ of the slate so far, which an item without tags leaves as it is."""
        many = np.maximum(self._count, 1)
        mix = (self._sum + many[:, None] * self._smooth) * ((1 - ALPHA) / many)[:, None]
        return (self._wanted[:, :, 0] * np.log(mix)).sum(axis=1)

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
