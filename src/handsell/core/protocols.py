"""Protocols of stages and models. Sizes as in `handsell.core.batches`; I items in the catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np

from handsell.core.batches import Candidates, Requests, Slates


@runtime_checkable
class Savable(Protocol):
    """Saves to a directory and loads from it; without pickle."""

    def save(self, path: Path) -> None: ...

    @classmethod
    def load(cls, path: Path) -> Self: ...


@runtime_checkable
class Encoder(Protocol):
    """Turns requests into query vectors. ALS, two-tower and sequence models differ only in their encoder."""

    def encode(self, requests: Requests) -> np.ndarray:
        """(B, D) float32; zeros for a request without usable history."""
        ...


@runtime_checkable
class Retriever(Savable, Protocol):
    """A source of candidates."""

    def retrieve(self, requests: Requests, k: int, eligible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Items (B, k) int32 best first, padded with -1, and scores (B, k) float32, NaN where padded.

        `eligible` (B, I) bool: only these items may be returned. Return k items wherever that many have a score, and
        an empty (-1) row for a request that the retriever has no data for.
        """
        ...

    def score(self, requests: Requests, items: np.ndarray) -> np.ndarray:
        """(B, K) float32 scores of items (B, K); NaN where the item is -1 or unknown to the model."""
        ...


@runtime_checkable
class Ranker(Protocol):
    """Scores candidates; it cannot drop or reorder them."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the F columns, in order."""
        ...

    def score(self, x: np.ndarray) -> np.ndarray:
        """(B, K, F) float32 → (B, K) float32 in 0..1 (calibrated)."""
        ...


class CandidateStage(Protocol):
    async def candidates(self, requests: Requests, k: int) -> Candidates: ...


class RankingStage(Protocol):
    async def rank(self, requests: Requests, candidates: Candidates, k: int) -> Candidates:
        """Return the k candidates of highest score, best first."""
        ...


class RerankingStage(Protocol):
    async def rerank(self, requests: Requests, candidates: Candidates, n: int) -> Slates: ...
