"""Item vectors as int8, from which an exact search of few queries proposes items: a quarter of the memory is read.

A product of one query with all vectors is bound by memory, not by arithmetic. Proposals are scored again with the
vectors themselves; the error of the coarse products is bounded, so that none of the best items is missed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.core.kernels import compiled

MOST_BYTES = 16 * 2**20  # larger catalogs keep one copy of their vectors, the mapped one
LANES = 16  # items of a block; columns are padded to a multiple of these


@dataclass(frozen=True)
class CoarseVectors:
    """vectors ≈ coarse · scale; no vector is further from its own than `error`.

    Blocks hold LANES items side by side, number by number, the last one filled with zeros: the kernel multiplies the
    items of a block at once.
    """

    coarse: np.ndarray  # (⌈I / LANES⌉, W, LANES) int8
    scale: np.ndarray  # (⌈I / LANES⌉, LANES) float32
    error: float

    @classmethod
    def of(cls, vectors: np.ndarray) -> CoarseVectors | None:
        """Round vectors (I, D) float32; None where they are too many, not finite, or the kernel cannot use them."""
        items, size = vectors.shape
        width = -(-size // LANES) * LANES
        if (
            compiled is None
            or not compiled.wide
            or not 0 < items * width <= MOST_BYTES
            or not np.isfinite(vectors).all()
        ):
            return None
        scale = np.maximum(np.abs(vectors).max(axis=1), np.finfo(np.float32).tiny) / np.float32(127)
        coarse = np.zeros((items, width), np.int8)
        coarse[:, :size] = np.rint(vectors / scale[:, None])
        error = np.linalg.norm(vectors - coarse[:, :size] * scale[:, None], axis=1).max()
        return cls(_cut_into_blocks(coarse).transpose(0, 2, 1).copy(), _cut_into_blocks(scale), float(error))

    def pad(self, queries: np.ndarray) -> np.ndarray:
        """Return queries (B, D) with as many columns as the coarse vectors."""
        if queries.shape[1] == self.coarse.shape[1]:
            return queries
        out = np.zeros((len(queries), self.coarse.shape[1]), np.float32)
        out[:, : queries.shape[1]] = queries
        return out


def _cut_into_blocks(rows: np.ndarray) -> np.ndarray:
    """Return rows (I, …) as (⌈I / LANES⌉, LANES, …), filled with zeros."""
    out = np.zeros((-(-len(rows) // LANES) * LANES, *rows.shape[1:]), rows.dtype)
    out[: len(rows)] = rows
    return out.reshape(-1, LANES, *rows.shape[1:])
