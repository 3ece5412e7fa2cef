"""Calibration: a slate's mix of tags follows the user's own (@steck2018calibrated).

p(tag | user) is the mix of the history's positive events, each spread evenly over its item's tags and weighted by the
event's weight; q(tag | slate) is the same of the slate so far with the candidate. The cost is KL(p ‖ (1 − α) q + α p)
with the paper's α = 0.01: from 0, the same mix, to −ln α ≈ 4.6, nothing in common.
"""

from __future__ import annotations

import numpy as np

from handsell.core.batches import History

ALPHA = 0.01
DECIMALS = 5  # of a cost: sums over a batch's padded tags may differ beyond


class Calibration:
    """strength · KL of the user's mix wanted (B, U) from the slate's; shares (B, K, U) of each candidate's tags.

    A row of wanted adds up to 1, or to 0 where nothing is known of the user, who then costs nothing; so do shares, 0
    for an item without tags, which leaves the mix as it is.
    """

    def __init__(self, shares: np.ndarray, wanted: np.ndarray, strength: float):
        known = (wanted > 0).any(axis=0)  # tags that nobody of the batch wants say nothing
        self._shares, self._wanted, self._strength = shares[:, :, known], wanted[:, None, known], strength
        self._tagged = shares.any(axis=2).astype(np.float32)
        rows, width, columns = self._shares.shape
        self._flat = self._shares.reshape(rows * width, columns)
        self._sum, self._count = np.zeros((rows, columns), np.float32), np.zeros(rows, np.float32)
        self._least = xlogx(self._wanted).sum(axis=2)  # (B, 1)

    @property
    def cost(self) -> np.ndarray:
        count = np.maximum(self._count[:, None] + self._tagged, 1)
        mix = (self._sum[:, None, :] + self._shares) * ((1 - ALPHA) / count)[:, :, None] + ALPHA * self._wanted
        np.log(np.maximum(mix, 1e-30, out=mix), out=mix)
        met = (mix * self._wanted).sum(axis=2)
        return np.round(self._strength * (self._least - met), DECIMALS)

    def add(self, position: int, place: np.ndarray) -> None:
        self._sum += self._flat.take(place, axis=0)
        self._count += self._tagged.reshape(-1).take(place)


def own_mix(history: History, shares: np.ndarray) -> np.ndarray:
    """(B, U) float32 mix of the positive events' tags, adding up to 1 or 0; shares (B, T, U) of the history."""
    liked = np.maximum(history.weight, 0)[:, None, :] @ shares
    total = liked.sum(axis=2, keepdims=True)
    return (liked / np.where(total > 0, total, 1))[:, 0, :]


def xlogx(x: np.ndarray) -> np.ndarray:
    """x ln x, 0 at 0."""
    return x * np.log(np.where(x > 0, x, 1))
