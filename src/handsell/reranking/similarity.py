"""Similarity of items by tags and creator, for diversity and for reasons."""

from __future__ import annotations

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE
from handsell.core.kernels import compiled

DECIMALS = 5  # of a cosine: float32 has seven, and the last two depend on the order of summation


def compute_cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return (B, M, N) float32 cosines of unit tag vectors (B, M, U) and (B, N, U).

    They are rounded to DECIMALS places, so that ties are exact: unrounded, two items with the same two tags have
    0.99999994, and two with the same single tag 1.
    """
    cosine = left @ right.transpose(0, 2, 1)
    return np.round(cosine, DECIMALS, out=cosine)


def build_tag_vectors(snapshot: Snapshot, items: np.ndarray) -> np.ndarray:
    """Return (B, M, U) float32 unit tag vectors of items (B, M), over the U tags that occur in the same row.

    Vectors are comparable within a row only: each row numbers its own tags, which keeps the arrays small. Zeros for -1
    and for items without tags.
    """
    rows, width = items.shape
    if compiled is not None and items.size:
        tags = snapshot.item_tags
        built, columns = compiled.build_tag_vectors(
            np.ascontiguousarray(items, np.int32), np.ascontiguousarray(tags.offsets, np.int64),
            np.ascontiguousarray(tags.values, np.int32), rows,
        )  # fmt: skip
        return np.frombuffer(built, np.float32).reshape(rows, width, columns)
    cell, tag, count = gather_tags(snapshot, items)
    column, columns = _number_by_row(cell // max(width, 1), tag, rows)
    vectors = np.zeros((rows * width, columns), np.float32)
    vectors[cell, column] = (1 / np.sqrt(np.maximum(count, 1)))[cell]
    return vectors.reshape(rows, width, columns)


def gather_tags(snapshot: Snapshot, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all N tags of items (B, M): (N,) flat cell b·M + m, (N,) tag; and (B·M,) number of tags of each cell."""
    flat = items.ravel()
    at = np.maximum(flat, 0)
    start = snapshot.item_tags.offsets[at]
    count = (snapshot.item_tags.offsets[at + 1] - start) * (flat != NONE)
    ends = count.cumsum()
    total = int(ends[-1]) if len(ends) else 0
    where = np.arange(total) + (start - ends + count).repeat(count)
    return np.arange(len(flat)).repeat(count), snapshot.item_tags.values[where], count


def match_creators(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return (B, M, N) bool, whether creators (B, M) and (B, N) are the same and known."""
    return (left[:, :, None] == right[:, None, :]) & (left != NONE)[:, :, None]


def gather_creators(snapshot: Snapshot, items: np.ndarray) -> np.ndarray:
    """Return (B, M) int32 primary creator, -1 for none and for item -1."""
    return np.where(items == NONE, NONE, snapshot.creator[np.maximum(items, 0)])


def _number_by_row(row: np.ndarray, tag: np.ndarray, rows: int) -> tuple[np.ndarray, int]:
    """Number the distinct tags of each row from 0; also return the greatest count of any row, at least 1."""
    if not len(tag):
        return np.zeros(0, np.int64), 1
    span = int(tag.max()) + 1
    unique, inverse = np.unique(row * span + tag.astype(np.int64), return_inverse=True)
    first = np.searchsorted(unique, np.arange(rows) * span)
    column = np.arange(len(unique)) - first[unique // span]
    return column[inverse], int(column.max()) + 1
