"""Items or users of any source, by id: kept in a file while the source is read, then written as Parquet.

Sources repeat ids, and send parts of a row in several records. A row's columns, and the type of each, are known when
all records have been read; memory does not grow with their number.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from handsell.core.errors import DataError
from handsell.data.catalog_fields import CANONICAL, convert_value
from handsell.data.schemas import STRINGS, TIME
from handsell.migration.tally import Kind, SourcePlace, Tally
from handsell.migration.values import read_id, to_json

BATCH = 5_000  # rows
MOST_COLUMNS = 300  # other columns; what is beyond them is kept as JSON in one column
OTHER = "other_fields"
EXACT = 2**53
LONGEST_NAME = 256
TYPES = {
    frozenset({"integer"}): pa.int64(),
    frozenset({"integer", "number"}): pa.float64(),
    frozenset({"number"}): pa.float64(),
    frozenset({"flag"}): pa.bool_(),
    frozenset({"texts"}): STRINGS,
    frozenset({"text"}): pa.string(),
}  # any other mixture is JSON text


class RowSpool:
    """Rows of one kind; a later record of an id changes the fields that it names, or replaces the row."""

    def __init__(self, kind: Kind, path: Path, tally: Tally):
        self.kind, self.key, self._path, self._tally = kind, kind.removesuffix("s") + "_id", path, tally
        self._canonical: Mapping[str, pa.DataType] = CANONICAL if kind == "items" else {}
        self._kinds: dict[str, set[str]] = defaultdict(set)
        self._waiting: dict[str, tuple[float, bytes]] = {}
        self._spool = path.with_suffix(".spool")
        self._database = sqlite3.connect(self._spool, isolation_level=None)
        for statement in ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", "PRAGMA cache_size=-16000"):
            self._database.execute(statement)
        self._database.execute("CREATE TABLE rows (id TEXT PRIMARY KEY, time REAL, fields BLOB) WITHOUT ROWID")

    def add(
        self, row_id: Any, fields: Mapping[str, Any], place: SourcePlace, time: float = 0, replace: bool = True
    ) -> None:
        """Add a record; `time` orders the records of an id, and a later one wins."""
        try:
            known = read_id(row_id)
            if known is None:
                raise ValueError(f"no {self.key}")
        except ValueError as error:
            self._tally.skip(self.kind, str(error), place)
            return
        before = self._find(known)
        found = self._convert(fields)
        try:
            to_json(found)
        except ValueError as error:
            self._tally.skip(self.kind, str(error), place)
            return
        if before is not None:
            self._tally.merged[self.kind] += 1
            old_time, old = before[0], orjson.loads(before[1])
            older = time < old_time
            found = (old if older else found) if replace else ({**found, **old} if older else {**old, **found})
            time = max(time, old_time)
        else:
            self._tally.written[self.kind] += 1
        self._waiting[known] = (time, orjson.dumps(found))
        if len(self._waiting) >= BATCH:
            self._flush()

    def _find(self, row_id: str) -> tuple[float, bytes] | None:
        return (
            self._waiting.get(row_id)
            or self._database.execute("SELECT time, fields FROM rows WHERE id = ?", (row_id,)).fetchone()
        )

    def _convert(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields as they are stored: canonical ones converted, others as JSON values."""
        found: dict[str, Any] = {}
        for name, value in fields.items():
            if value is None:
                continue
            own = name.strip().casefold()
            if own in self._canonical:
                try:
                    found[own] = convert_value(own, value, self._canonical[own])
                except DataError as error:
                    self._tally.drop(self.kind, f"{name} ({error})"[:200])
                continue
            column = self._name_column(name)
            self._kinds[column].add(_describe(value))
            found[column] = value
        return found

    def _name_column(self, name: str) -> str:
        """Return the name of the column of a field: not that of the id, printable, and not too long."""
        clean = "".join(c if ord(c) >= 32 and ord(c) != 127 else "_" for c in name.strip())[:LONGEST_NAME]
        return f"{clean}_" if clean.casefold() in ("", "item_id", "user_id", OTHER) else clean

    def _flush(self) -> None:
        rows = ((row_id, time, fields) for row_id, (time, fields) in self._waiting.items())
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", rows)
        self._database.execute("COMMIT")
        self._waiting = {}

    def __len__(self) -> int:
        return self._tally.written[self.kind]

    def write(self) -> pa.Schema | None:
        """Write the rows in order of ids, and return their schema; None without rows."""
        self._flush()
        if not len(self):
            return None
        schema, rest = self._build_schema()
        with pq.ParquetWriter(self._path, schema, compression="zstd") as writer:
            for rows in self._read():
                writer.write_table(_build_table(rows, schema, rest, self.key))
        return schema

    def close(self) -> None:
        """Remove the spooled rows."""
        self._database.close()
        self._spool.unlink(missing_ok=True)

    def _read(self) -> Iterator[list[tuple[str, dict[str, Any]]]]:
        found = self._database.execute("SELECT id, fields FROM rows ORDER BY id")
        while rows := found.fetchmany(BATCH):
            yield [(row_id, orjson.loads(fields)) for row_id, fields in rows]

    def _build_schema(self) -> tuple[pa.Schema, frozenset[str]]:
        """Return the schema, and the names of the fields that go to the column of other fields."""
        names = list(self._kinds)
        kept, rest = names[:MOST_COLUMNS], frozenset(names[MOST_COLUMNS:])
        fields = [pa.field(self.key, pa.string(), nullable=False)]
        fields += [pa.field(name, kind) for name, kind in self._canonical.items()]
        fields += [pa.field(name, TYPES.get(frozenset(self._kinds[name]), pa.string())) for name in kept]
        if rest:
            fields.append(pa.field(OTHER, pa.string()))
            self._tally.notes.append(f"{len(rest):,} rare fields of {self.kind} are kept as JSON in the column {OTHER}")
        return pa.schema(fields), rest


def _describe(value: Any) -> str:
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int):
        return "integer" if abs(value) < EXACT else "text"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
        return "texts"
    return "other"


def _build_table(rows: list[tuple[str, dict[str, Any]]], schema: pa.Schema, rest: frozenset[str], key: str) -> pa.Table:
    columns = []
    for field in schema:
        if field.name == key:
            values: list[Any] = [row_id for row_id, _ in rows]
        elif field.name == OTHER:
            values = [_pack({n: v for n, v in fields.items() if n in rest}) for _, fields in rows]
        elif field.type == pa.string():
            values = [_to_text(fields.get(field.name)) for _, fields in rows]
        else:
            values = [fields.get(field.name) for _, fields in rows]
        columns.append(pa.array(values, pa.int64() if field.type == TIME else field.type).cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _to_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def _pack(fields: dict[str, Any]) -> str | None:
    return orjson.dumps(fields).decode() if fields else None
