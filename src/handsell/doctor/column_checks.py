"""Checks of the columns of items and users that `features` names."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.config import Config
from handsell.doctor.doctor_report import EXAMPLES, Finding
from handsell.doctor.id_checks import shorten
from handsell.features.views import ATTRIBUTES


def find_column_problems(config: Config, items: pa.Table, users: pa.Table) -> Iterator[Finding]:
    """Find feature columns that a table lacks, and those whose values are not of the kind that they must have."""
    features = config.features
    numbers = pa.float32()
    for name in features.item_columns:
        yield from _check_column(items, "items", name, "features.item_columns", "numbers", numbers)
    for name in features.user_columns:
        yield from _check_column(users, "users", name, "features.user_columns", "numbers", numbers)
    for name, kind in features.user_attributes.items():
        yield from _check_column(users, "users", name, "features.user_attributes", kind, ATTRIBUTES[kind])


def _check_column(
    table: pa.Table, which: str, name: str, setting: str, expected: str, kind: pa.DataType
) -> Iterator[Finding]:
    if name not in table.column_names:
        message = (
            f"{setting} names {name}, which the {which} table does not have; there are: "
            f"{', '.join(table.column_names)}. Correct the name, or add the column"
        )
        yield Finding(f"missing column {name}", "error", message)
        return
    column = table[name].combine_chunks()
    if _can_cast(column, kind):
        if len(column) and column.null_count == len(column):
            message = f"{setting}: the column {name} of the {which} table has no value, so it tells nothing: fill it"
            yield Finding(f"empty column {name}", "warning", message, len(column))
        return
    bad = _find_bad_rows(column, kind)
    key = table.column_names[0]
    examples = [
        {"row": r + 1, key: shorten(table[key][r].as_py()), name: shorten(column[r].as_py())} for r in bad[:EXAMPLES]
    ]
    message = (
        f"{setting}: expected {expected} in {name} of the {which} table, got {column.type}: correct the values, or "
        "take the column out of this setting"
    )
    yield Finding(f"values of {name}", "error", message, len(bad), examples, which)


def _can_cast(column: pa.Array, kind: pa.DataType) -> bool:
    """Return whether the features step can read the column: the same cast as there."""
    try:
        cast = column.cast(kind, safe=not pa.types.is_float32(kind))
        if pa.types.is_float32(kind):
            cast.to_numpy(zero_copy_only=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True


def _find_bad_rows(column: pa.Array, kind: pa.DataType) -> list[int]:
    """Return the rows whose value cannot be cast; of a type that cannot be cast at all, the rows with a value."""
    there = np.flatnonzero(np.asarray(pc.is_valid(column)))
    if not pa.types.is_string(column.type) or pa.types.is_nested(kind):
        return there.tolist()
    distinct = pc.unique(column.drop_null())
    bad = [value for value in distinct if not _can_cast(pa.array([value.as_py()]), kind)]
    rows = np.asarray(pc.is_in(column, pa.array([value.as_py() for value in bad], column.type)))
    return np.flatnonzero(rows).tolist() or there.tolist()
