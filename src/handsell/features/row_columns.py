"""Feature store columns as arrays. The online store returns Python lists, the offline store Arrow arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.catalog.vocabulary import Numbering
from handsell.config import Config
from handsell.core.batches import NONE, to_object_array
from handsell.core.errors import FeatureError
from handsell.data.numbering import look_up
from handsell.events.live_catalog import Users
from handsell.features.storage.encoded_rows import EncodedRows

Rows = Mapping[str, Sequence[Any] | pa.Array]
"""Column name → B cells; None or NaN if the store has no row (a new user)."""


def get_column(rows: Rows, name: str) -> Sequence[Any] | pa.Array:
    """Return one column; raises FeatureError if the store did not return it."""
    try:
        return rows[name]
    except KeyError:
        raise FeatureError(
            f"expected column {name} in the user's row, got {', '.join(sorted(rows))} from the feature store: "
            "restore it in its view and run feast apply, or train a bundle without it"
        ) from None


def change_attributes(rows: Rows, user_ids: Sequence[str | None], users: Users) -> Rows:
    """Return feature rows (B) with the attributes that catalog changes have given to their users since."""
    changed = [(b, users[one]) for b, one in enumerate(user_ids) if one is not None and one in users] if users else []
    if not changed:
        return rows
    found = {name: list(rows[name]) for name in {name for _, fields in changed for name in fields} & set(rows)}
    for b, fields in changed:
        for name, value in fields.items():
            if name in found:
                found[name][b] = value
    return rows.change(found) if isinstance(rows, EncodedRows) else {**rows, **found}


def read_floats(rows: Rows, names: Sequence[str], missing: float = np.nan) -> np.ndarray:
    """Return (B, len(names)) float64, with `missing` for missing values."""
    out = rows.read_floats(names) if isinstance(rows, EncodedRows) else None
    if out is None:
        columns = [get_column(rows, name) for name in names]
        cells = [c.to_numpy(zero_copy_only=False) if isinstance(c, pa.Array) else c for c in columns]
        out = np.ascontiguousarray(np.array(cells, np.float64).T)  # None becomes NaN
    if missing == missing:
        out[np.isnan(out)] = missing
    return out


def read_integers(rows: Rows, names: Sequence[str], missing: int = 0) -> np.ndarray:
    """Return (B, len(names)) int64; exact below 2^53, which µs since the epoch reach in the year 2255."""
    return read_floats(rows, names, float(missing)).astype(np.int64)


def read_lists(rows: Rows, name: str) -> tuple[Sequence[Any] | pa.Array, np.ndarray]:
    """Return all values of a list column, concatenated, and the row of each (N,); null is an empty list."""
    column = get_column(rows, name)
    if isinstance(column, pa.Array):
        lengths = pc.fill_null(column.value_lengths(), 0).to_numpy()
        return column.flatten(), np.repeat(np.arange(len(lengths)), lengths)
    cells = [() if cell is None or isinstance(cell, float) else cell for cell in column]
    if len(cells) == 1:
        return list(cells[0]), np.zeros(len(cells[0]), np.int64)
    return list(chain.from_iterable(cells)), np.repeat(np.arange(len(cells)), [len(cell) for cell in cells])


def concat_values(one: Sequence[Any] | pa.Array, other: Sequence[Any] | pa.Array) -> Sequence[Any] | pa.Array:
    """Concatenate two columns of values."""
    if isinstance(one, pa.Array) and isinstance(other, pa.Array):
        return pa.concat_arrays([one, other])
    return [*one, *other]


def look_up_ids(ids: Sequence[str] | pa.Array, vocabulary: Numbering) -> np.ndarray:
    """Return numbers (N,) int32, -1 for unknown ids. In an Arrow array, each distinct id is looked up once."""
    if not isinstance(ids, pa.Array):
        return vocabulary.number(ids)
    return look_up(ids, vocabulary) if len(ids) else np.zeros(0, np.int32)


def encode_values(values: Sequence[str] | pa.Array, names: Sequence[str]) -> np.ndarray:
    """Return the index (N,) int64 of each value in names, -1 for others."""
    if isinstance(values, pa.Array):
        return pc.fill_null(pc.index_in(values, pa.array(names, pa.string())), NONE).to_numpy()
    code = {name: c for c, name in enumerate(names)}
    return np.array([code.get(value, NONE) for value in values], np.int64)


def read_attributes(rows: Rows, config: Config) -> np.ndarray | None:
    """Return the user attributes that filters may read, (B, A) object; None where A is 0.

    Lists are tuples, unknown values None.
    """
    names = tuple(config.features.filter_attributes)
    if not names:
        return None
    columns = [get_column(rows, name) for name in names]
    cells = [column.to_pylist() if isinstance(column, pa.Array) else column for column in columns]
    return to_object_array([[_cell(value) for value in row] for row in zip(*cells, strict=True)], len(names))


def _cell(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return None
    return tuple(value) if isinstance(value, list) else value
