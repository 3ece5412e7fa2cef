"""Align items and users tables with their vocabularies: row i describes number i."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.catalog.vocabulary import Vocabulary


def align_rows(table: pa.Table, key: str, vocabulary: Vocabulary) -> pa.Table:
    """Return one row per id of the vocabulary, in its order; nulls where the table has no row.

    The first of several rows with the same id is used.
    """
    ids = pa.array(vocabulary.ids(np.arange(len(vocabulary))), pa.string())
    found = table.take(pc.index_in(ids, table[key].combine_chunks()))
    return found.set_column(found.column_names.index(key), table.schema.field(key), ids)


def find_present(listed: np.ndarray, used: np.ndarray, recommend_deleted: bool) -> np.ndarray:
    """Return which items (I,) bool the source still has.

    Those with a row in the items table, `listed`; also those with events, `used`, where there is no items table or
    deleted items are recommended.
    """
    return listed | used if recommend_deleted or not listed.any() else listed


def mark_unavailable(items: pa.Table, present: np.ndarray) -> pa.Table:
    """Set available = false for items where present (I,) is False: those that the source no longer has."""
    available = pc.if_else(pa.array(present), items["available"].combine_chunks(), pa.scalar(False))
    return items.set_column(items.column_names.index("available"), "available", available)
