"""Likeness of items by tags and creator, for diversity and for reasons."""

from __future__ import annotations

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import NONE

DECIMALS = 5  # of a likeness: float32 has seven, and the last two depend on the order of a sum


def cosines(tags: np.ndarray, k: int) -> np.ndarray:
    """(B, k, M) float32 cosines of the first k of unit tag vectors (B, M, U) to all of them, to DECIMALS places.

    Rounded, so that equal likenesses are equal numbers: the same two tags give 0.99999994 before and the
    same single tag 1, and of candidates with one score the earlier would not always come first.
    """
    alike = tags[:, :k] @ tags.transpose(0, 2, 1)
    return np.round(alike, DECIMALS, out=alike)


def tag_vectors(snapshot: Snapshot, items: np.ndarray) -> np.ndarray:
    """(B, M, U) float32 unit tag vectors of items (B, M), over the U tags that occur in their own row.

    A row's columns mean that row's tags only: compare within a row. Zeros for -1 and for items without tags.
    Numbering the tags row by row keeps the arrays small, however many tags the catalog has.
    """
    rows, width = items.shape
    cell, tag, count = tags_of(snapshot, items)
    column, columns = _local(cell // max(width, 1), tag, rows)
    vectors = np.zeros((rows * width, columns), np.float32)
    vectors[cell, column] = (1 / np.sqrt(np.maximum(count, 1)))[cell]
    return vectors.reshape(rows, width, columns)


def tags_of(snapshot: Snapshot, items: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All tags of items (B, M) in a row: (N,) flat cell b·M + m, (N,) tag; and (B·M,) how many each cell has."""
    flat = items.ravel()
    at = np.maximum(flat, 0)
    start = snapshot.item_tags.offsets[at]
    count = (snapshot.item_tags.offsets[at + 1] - start) * (flat != NONE)
    ends = count.cumsum()
    total = int(ends[-1]) if len(ends) else 0
    where = np.arange(total) + (start - ends + count).repeat(count)
    return np.arange(len(flat)).repeat(count), snapshot.item_tags.values[where], count


def same_creator(snapshot: Snapshot, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(B, M, N) bool for items (B, M) and (B, N): both have the same, known creator."""
    a, b = creators(snapshot, left), creators(snapshot, right)
    return (a[:, :, None] == b[:, None, :]) & (a != NONE)[:, :, None]


def creators(snapshot: Snapshot, items: np.ndarray) -> np.ndarray:
    """(B, M) int32 primary creator, -1 for none and for item -1."""
    return np.where(items == NONE, NONE, snapshot.creator[np.maximum(items, 0)])


def _local(row: np.ndarray, tag: np.ndarray, rows: int) -> tuple[np.ndarray, int]:
    """Number the distinct tags of each row from 0; also the largest count of any row (at least 1)."""
    if not len(tag):
        return np.zeros(0, np.int64), 1
    span = int(tag.max()) + 1
    unique, inverse = np.unique(row * span + tag.astype(np.int64), return_inverse=True)
    first = np.searchsorted(unique, np.arange(rows) * span)
    column = np.arange(len(unique)) - first[unique // span]
    return column[inverse], int(column.max()) + 1
