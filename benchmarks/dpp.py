"""Greedy MAP of a determinantal point process (@chen2018fast), as a preference of the same greedy selection.

With L = diag(q) S diag(q) the log-determinant of a set is 2 Σ ln q + ln det S, an item's gain 2 ln q plus the log of
its residual: what of it the chosen ones do not explain. So, with ln q in proportion to relevance, the value of a
candidate is (1 - θ) · relevance + θ · ln residual, and Cholesky rows are extended by one with each item.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.batches import Requests
from handsell.reranking.selection import Preference
from handsell.reranking.similarity import cosines
from handsell.reranking.stage import Likeness, LocalReranking

BY_CREATOR = 0.25  # of the kernel: the rest is the cosine of tags
RIDGE = 0.05  # part of every item that no other explains: a catalogue has fewer tags than a slate has positions


class Determinantal:
    """−strength · ln residual; kernel (B, K, K) positive semi-definite with 1 on its diagonal, strength (B,)."""

    def __init__(self, kernel: np.ndarray, strength: np.ndarray, n: int):
        rows, width, _ = kernel.shape
        self._kernel, self._strength = kernel.astype(np.float64), strength[:, None]
        self._left = np.ones((rows, width))
        self._basis = np.zeros((n, rows, width))
        self._rows = np.arange(rows)
        self._first = self._rows * width

    @property
    def cost(self) -> np.ndarray:
        return -self._strength * np.log(np.maximum(self._left, 1e-9))

    def add(self, position: int, place: np.ndarray) -> None:
        pick = place - self._first
        done = self._basis[:position]
        explained = (done * done[:, self._rows, pick][:, :, None]).sum(axis=0)
        root = np.sqrt(np.maximum(self._left[self._rows, pick], 1e-9))
        row = (self._kernel[self._rows, pick] - explained) / root[:, None]
        self._basis[position] = row
        self._left = self._left - row**2


def kernel(likeness: Likeness) -> np.ndarray:
    """(B, K, K) from tags and creators."""
    k = likeness.alike.shape[1]
    same = likeness.related[:, :, :k].astype(np.float32)
    found = (1 - RIDGE) * ((1 - BY_CREATOR) * cosines(likeness.tags[:, :k], k) + BY_CREATOR * same)
    found[:, np.arange(k), np.arange(k)] = 1
    return found


@dataclass(frozen=True)
class DeterminantalReranking(LocalReranking):
    """Re-ranking as in the product, with `reranking.diversity` as the θ of a DPP."""

    def preferences(self, requests: Requests, likeness: Likeness, diversity: np.ndarray) -> list[Preference]:
        if not self.config.reranking.diversity:
            return []
        k = likeness.alike.shape[1]
        return [Determinantal(kernel(likeness), diversity, k)]
