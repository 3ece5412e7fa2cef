"""Determinantal point process, greedy MAP (@chen2018fast): prefer candidates that differ from all chosen ones.

With L = diag(q) S diag(q) the log-determinant of a set is 2 Σ ln q + ln det S; an item gains 2 ln q plus the log of its
residual in S. With ln q in proportion to relevance, the value of a candidate is (1 - θ) · relevance + θ · ln residual;
a row of the Cholesky factor is added with each item. Unlike MMR it counts all chosen items, not only the most similar.
"""

from __future__ import annotations

import numpy as np

BY_CREATOR = 0.25  # share of the creator in the kernel; the rest is the cosine of tags
RIDGE = 0.05  # unexplained part of each item, as there may be fewer tags than positions
LEAST = 1e-9


class Determinantal:
    """Cost: −strength (B,) · ln residual; kernel (B, K, K) positive semi-definite with 1 on its diagonal."""

    def __init__(self, kernel: np.ndarray, strength: np.ndarray, n: int):
        rows, width, _ = kernel.shape
        self.kernel, self.strength, self._n = kernel, strength, n
        self._kernel, self._strength = kernel.reshape(rows * width, width), -strength[:, None]
        self._rows, self._first = np.arange(rows), np.arange(rows) * width
        self.cost = np.zeros((rows, width))

    def _begin(self) -> None:
        rows, width, _ = self.kernel.shape
        self._left = np.ones((rows, width))
        self._factor = np.zeros((rows, min(self._n, width), width))

    def add(self, position: int, place: np.ndarray) -> None:
        if not position:
            self._begin()
        pick = place - self._first
        done = self._factor[:, :position]
        row = self._kernel.take(place, axis=0)
        if position:
            row -= (done[self._rows, :, pick][:, None, :] @ done)[:, 0]
        row /= np.sqrt(self._left.take(place))[:, None]
        self._factor[:, position] = row
        self._left -= row * row
        np.maximum(self._left, LEAST, out=self._left)
        np.log(self._left, out=self.cost)
        self.cost *= self._strength


def build_kernel(cosine: np.ndarray, related: np.ndarray) -> np.ndarray:
    """Return (B, K, K) float64 from the cosines of tags and from related (B, K, K) bool, the same creator."""
    found = (1 - RIDGE) * ((1 - BY_CREATOR) * cosine.astype(np.float64) + BY_CREATOR * related)
    width = np.arange(cosine.shape[1])
    found[:, width, width] = 1
    return found
