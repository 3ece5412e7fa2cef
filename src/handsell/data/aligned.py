"""Items and users with row i = number i: the tables beside the vocabularies."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.catalog.vocabulary import Vocabulary


def aligned(table: pa.Table, key: str, vocabulary: Vocabulary) -> pa.Table:
    """A row for every id of the vocabulary, in its order; null columns where the source describes nothing.

    Of several rows with one id the first counts.
    """
    ids = pa.array(vocabulary.ids(np.arange(len(vocabulary))), pa.string())
    found = table.take(pc.index_in(ids, table[key].combine_chunks()))
    return found.set_column(found.column_names.index(key), table.schema.field(key), ids)


def without_gone(items: pa.Table, alive: np.ndarray) -> pa.Table:
    """Items (I rows) that are neither described nor touched any more, alive (I,) False, become unavailable."""
    available = pc.if_else(pa.array(alive), items["available"].combine_chunks(), pa.scalar(False))
    return items.set_column(items.column_names.index("available"), "available", available)
