"""The list that a candidate is scored in: the other candidates of its request, and the user's latest items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CONTEXT = 128  # candidates that others attend to: of more, every n-th in fused order


@dataclass(frozen=True, slots=True)
class Lists:
    """What a ranker may read of B requests besides the row of a candidate."""

    real: np.ndarray  # (B, K) bool, false for padding
    stands_for: np.ndarray  # (B, K) float32 ≥ 1, the number of candidates that a row of a sampled list represents
    history: np.ndarray  # (B, T, F) float32, the user's latest items as candidates without a source
    weight: np.ndarray  # (B, T) float32 weights of their events, NaN where padded

    @classmethod
    def without_history(cls, real: np.ndarray, width: int) -> Lists:
        """Return whole lists of candidates where `real` (B, K), with `width` features."""
        rows = len(real)
        return cls(
            real,
            np.ones(real.shape, np.float32),
            np.zeros((rows, 0, width), np.float32),
            np.zeros((rows, 0), np.float32),
        )

    def row(self, b: int) -> ListContext:
        """Return the context of request b."""
        real, known = np.flatnonzero(self.real[b]), ~np.isnan(self.weight[b])
        return ListContext.sample(real, self.stands_for[b, real], self.history[b, known], self.weight[b, known])


@dataclass(frozen=True, slots=True)
class ListContext:
    """The rows of one request that its candidates attend to: C candidates and T items of the history."""

    candidate: np.ndarray  # (C,) rows of the request's matrix, ascending
    stands_for: np.ndarray  # (C,) float32 ≥ 1, the number of candidates that each represents
    history: np.ndarray  # (T, F) float32
    weight: np.ndarray  # (T,) float32 weights of the history's events

    @classmethod
    def sample(
        cls, candidate: np.ndarray, stands_for: np.ndarray, history: np.ndarray, weight: np.ndarray
    ) -> ListContext:
        """Keep every n-th of the candidates (N,), at most CONTEXT."""
        step = -(-len(candidate) // CONTEXT) or 1
        return cls(candidate[::step], np.float32(step) * stands_for[::step], history, weight)

    def without(self, candidate: int) -> ListContext:
        """Return the context that a candidate has: no row attends to itself."""
        other = self.candidate != candidate
        return ListContext(self.candidate[other], self.stands_for[other], self.history, self.weight)
