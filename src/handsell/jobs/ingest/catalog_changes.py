"""Items and users with the changes that came over HTTP.

A change wins over the source tables, whichever is newer, until another change: a put replaces the row, a patch some of
its columns, a delete removes it. An item or user that exists over HTTP only gets a row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from handsell.catalog.metadata_values import build_array
from handsell.events.compacted_files import CompactedRange, read_range

Kind = Literal["item", "user"]
SCHEMA = pa.schema(
    [("kind", pa.string()), ("id", pa.string()), ("whole", pa.bool_()), ("deleted", pa.bool_()),
     ("fields", pa.string()), ("time", pa.int64())]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ChangedRow:
    """All changes of an item or user, folded."""

    whole: bool  # replaces the source's row; False: only the columns in `fields`
    deleted: bool
    fields: dict[str, Any]
    time: int  # of the last change, µs


@dataclass
class CatalogChanges:
    """Changed rows by kind and id, in order of their first change."""

    rows: dict[tuple[str, str], ChangedRow]

    @classmethod
    def load(cls, path: Path) -> CatalogChanges:
        rows = pq.read_table(path).to_pylist() if path.is_file() else []
        return cls(
            {
                (row["kind"], row["id"]): ChangedRow(
                    row["whole"], row["deleted"], json.loads(row["fields"]), row["time"]
                )
                for row in rows
            }
        )

    def save(self, path: Path) -> None:
        cells = [
            (*key, row.whole, row.deleted, json.dumps(row.fields, ensure_ascii=False), row.time)
            for key, row in self.rows.items()
        ]
        columns: Sequence[Sequence] = list(zip(*cells, strict=True)) if cells else [()] * len(SCHEMA)
        arrays = [pa.array(values, kind.type) for values, kind in zip(columns, SCHEMA, strict=True)]
        pq.write_table(pa.table(arrays, schema=SCHEMA), path)

    def fold(self, compacted: Path, ranges: Iterable[CompactedRange]) -> None:
        """Add the changes of ranges in order of offsets."""
        for one in ranges:
            rows = read_range(compacted, one)
            times = rows["time"].cast(pa.int64()).to_pylist()
            for change, time in zip(rows.to_pylist(), times, strict=True):
                key = (change["kind"], change["id"])
                self.rows[key] = _fold(self.rows.get(key), change["action"], json.loads(change["fields"]), time)

    def forget_users(self, is_erased: Callable[[str, int], bool]) -> None:
        """Drop the changes of users who were erased after them."""
        self.rows = {
            key: row for key, row in self.rows.items() if not (key[0] == "user" and is_erased(key[1], row.time))
        }

    def list_ids(self, kind: Kind, deleted: bool) -> list[str]:
        """Return the ids that have been deleted, or else those that a put has described."""
        return [id for (of, id), row in self.rows.items() if of == kind and row.whole and row.deleted == deleted]

    def apply(self, table: pa.Table, kind: Kind, key: str) -> pa.Table:
        """Return the table of the source with the changes; a column that only changes have is added.

        A patch of an item that an items table no longer has does not bring it back.
        """
        changed = {id: row for (of, id), row in self.rows.items() if of == kind}
        if not changed:
            return table
        replaced = pa.array([id for id, row in changed.items() if row.whole], pa.string())
        kept = table.filter(pc.invert(pc.is_in(table[key], replaced))).combine_chunks()
        known = set(kept[key].to_pylist())
        patched = {id: row.fields for id, row in changed.items() if not row.whole and id in known}
        revives = kind == "user" or not len(table)
        added = {
            id: row.fields
            for id, row in changed.items()
            if id not in known and not row.deleted and (row.whole or revives)
        }
        rows = [*patched.values(), *added.values()]
        fields = [*(_widen(field, rows) for field in table.schema), *_list_new_columns(table, rows)]
        columns = []
        for field in fields:
            if field.name == key:
                columns.append(pa.concat_arrays([kept[key].combine_chunks(), pa.array(list(added), field.type)]))
                continue
            old = field.name in table.column_names
            before = kept[field.name].combine_chunks().cast(field.type) if old else pa.nulls(len(kept), field.type)
            changes = {id: row[field.name] for id, row in patched.items() if field.name in row}
            fresh = build_array((row.get(field.name) for row in added.values()), field.type)
            columns.append(pa.concat_arrays([_overwrite(before, kept[key], changes), fresh]))
        return pa.table(columns, schema=pa.schema(fields))


def _fold(before: ChangedRow | None, action: str, fields: dict[str, Any], time: int) -> ChangedRow:
    if action == "delete":
        return ChangedRow(True, True, {}, time)
    if action == "put" or before is None:
        return ChangedRow(action == "put", False, fields, time)
    if before.deleted:
        return before
    return replace(before, fields={**before.fields, **fields}, time=time)


def _list_new_columns(table: pa.Table, rows: Sequence[dict[str, Any]]) -> list[pa.Field]:
    """Return the columns that the table lacks, with the type of all their values, or text.

    A column without any content, such as one of empty objects, is left out: Parquet has no type for it.
    """
    names = dict.fromkeys(name for row in rows for name in row if name not in table.column_names)
    kinds = {name: _leave_out_empty(_infer_type(row.get(name) for row in rows)) for name in names}
    return [pa.field(name, kind) for name, kind in kinds.items() if kind is not None]


def _widen(field: pa.Field, rows: Sequence[dict[str, Any]]) -> pa.Field:
    """Return a column of whole numbers as one of doubles where a change has a fraction."""
    if not pa.types.is_integer(field.type):
        return field
    given = (row.get(field.name) for row in rows)
    return field.with_type(pa.float64()) if any(isinstance(n, float) and n != int(n) for n in given) else field


def _infer_type(values: Iterable[Any]) -> pa.DataType:
    try:
        return pa.array([value for value in values if value is not None]).type
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.string()


def _leave_out_empty(kind: pa.DataType) -> pa.DataType | None:
    """Return the type without the parts of it that have no values; None if nothing is left."""
    if pa.types.is_null(kind):
        return None
    if pa.types.is_list(kind):
        entry = _leave_out_empty(kind.value_type)
        return None if entry is None else pa.list_(entry)
    if pa.types.is_struct(kind):
        found = [(field.name, _leave_out_empty(field.type)) for field in kind]
        return pa.struct(named) if (named := [(name, one) for name, one in found if one is not None]) else None
    return kind


def _overwrite(column: pa.Array, ids: pa.ChunkedArray, values: dict[str, Any]) -> pa.Array:
    """Replace the values of some ids."""
    if not values:
        return column
    place = pc.index_in(ids.combine_chunks(), pa.array(list(values), pa.string()))
    changed = np.asarray(pc.is_valid(place))
    at = np.arange(len(column))
    at[changed] = len(column) + np.asarray(place.drop_null())
    return pa.concat_arrays([column, build_array(values.values(), column.type)]).take(pa.array(at))
