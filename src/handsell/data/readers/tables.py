"""The user's own tables: Parquet or CSV files or folders, with columns mapped in the TOML.

Events are read in batches, so memory does not grow with their number. Items and users are read whole.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from handsell.core.errors import DataError
from handsell.data.config import TablesConfig, TableSource
from handsell.data.readers.base import (
    NULLABLE_EVENTS,
    SourcePart,
    build_event_batch,
    build_items_table,
    build_users_table,
    empty_users,
)
from handsell.data.readers.conversion import clear_missing, convert
from handsell.data.readers.formats.column_mapping import TableReader, map_columns, reject_near_misses
from handsell.data.readers.formats.csv_table import CsvTable
from handsell.data.readers.formats.file_access import TableFile, get_address, has_suffix, hide_secrets, parse_file
from handsell.data.readers.formats.parquet_table import ParquetTable
from handsell.data.readers.lists import choose_separator
from handsell.data.readers.location import ColumnLocation, first_line
from handsell.data.readers.numbers import decide_decimal, has_commas, infer_type, normalize_numbers, show_decimal_commas
from handsell.data.readers.table_files import PARQUET, find_table_files
from handsell.data.schemas import ITEMS, STRINGS, USERS

ROWS_PER_PART = 2_000_000
BATCH_ROWS = 131_072
EVENT_NEEDS, ITEM_NEEDS, USER_NEEDS = ("user_id", "item_id", "time"), ("item_id",), ("user_id",)
KINDS = {"events": (NULLABLE_EVENTS.names, EVENT_NEEDS), "items": (ITEMS.names, ITEM_NEEDS), "users": ((), USER_NEEDS)}


@dataclass(frozen=True)
class Tables:
    """`base`: folder or URI for relative paths; `types`: event types of the config."""

    base: Path | str
    tables: TablesConfig
    types: tuple[str, ...]
    ordered: ClassVar[bool] = True
    source: ClassVar[str] = "tables"  # without the path: moving the files does not change the ids

    def files(self) -> list[TableFile]:
        return [path for name, source in self._sources() for path in find_table_files(self.base, source, name)[0]]

    def skipped_files(self) -> list[tuple[TableFile, str]]:
        """Return the files of the tables' folders that are not read, each with the reason."""
        return [entry for name, source in self._sources() for entry in find_table_files(self.base, source, name)[1]]

    def guessed_encodings(self) -> list[tuple[TableFile, str]]:
        """Return the CSV files that are read as Windows-1252 without a mark that says so, each with a word."""
        tables = [
            open_table(file, source, *KINDS[name])
            for name, source in self._sources()
            for file in find_table_files(self.base, source, name)[0]
        ]
        forms = [(table.file, table.dialect.form) for table in tables if isinstance(table, CsvTable)]
        return [(file, form.example) for file, form in forms if form.guessed]

    def _sources(self) -> list[tuple[str, TableSource]]:
        given = [("events", self.tables.events), ("items", self.tables.items), ("users", self.tables.users)]
        return [(name, source) for name, source in given if source]

    def parts(self) -> list[SourcePart]:
        """One part per file, in order of file names; large Parquet files are cut at row groups."""
        files = find_table_files(self.base, self.tables.events, "events")[0]
        cuts = [(get_address(file), *cut) for file in files for cut in _cut(file)]
        return [SourcePart(number, path, groups, rows) for number, (path, groups, rows) in enumerate(cuts)]

    def events(self, part: SourcePart) -> Iterator[pa.RecordBatch]:
        source = self.tables.events
        kinds = {field.name: field.type for field in NULLABLE_EVENTS}
        unknown = [name for name in source.columns if name not in kinds]
        if unknown:
            raise DataError(
                f"data.tables.events.columns: expected names among {', '.join(kinds)}; got {', '.join(unknown)}; "
                "write canonical names on the left side"
            )
        table = open_table(parse_file(part.path), source, kinds, EVENT_NEEDS, part.row_groups)
        columns = map_columns(table, source, kinds, EVENT_NEEDS, "events", extras=False)
        one_type = None if "type" in columns else self._get_only_type(str(table.file))
        places = _locate_columns(table, columns, source, part.first_row)
        wanted = list(dict.fromkeys(columns.values()))  # two canonical columns may be mapped to the same one
        numbers = {name: column for name, column in columns.items() if _is_number(kinds[name])}
        for batch in table.read(wanted, BATCH_ROWS):
            for name, column in numbers.items():
                _decide_decimal_sign(table, batch[column], places[name])
            found = {
                name: convert(batch[column], kinds[name], places[name], source.list_separator or "|")
                for name, column in columns.items()
            }
            if one_type:
                found["type"] = pa.repeat(pa.scalar(one_type), len(batch))
            yield build_event_batch(found)

    def items(self) -> pa.Table:
        if self.tables.items is None:
            return build_items_table({"item_id": pa.array([], pa.string())})
        return build_items_table(self._read_whole(self.tables.items, ITEMS, ITEM_NEEDS, "items"))

    def users(self) -> pa.Table:
        if self.tables.users is None:
            return empty_users()
        return build_users_table(self._read_whole(self.tables.users, USERS, USER_NEEDS, "users"))

    def locate_rows(self, table: str, rows: Sequence[int]) -> dict[int, tuple[str | None, int, int | None]]:
        """Return file (None if there is one only), row in the file from 1, and line in CSV, of rows of a table.

        `rows` count from 0 in all files of the table.
        """
        source, before = dict(self._sources())[table], 0
        files = find_table_files(self.base, source, table)[0]
        places: dict[int, tuple[str | None, int, int | None]] = {}
        for file in files:
            reader = open_table(file, source, *KINDS[table])
            size = reader.count_rows() if len(files) > 1 else sys.maxsize
            inside = [row for row in rows if before <= row < before + size]
            lines = reader.find_lines([row - before + 1 for row in inside]) if inside else {}
            for row in inside:
                number = row - before + 1
                places[row] = (file.name if len(files) > 1 else None, number, lines.get(number))
            before += size
            if len(places) == len(set(rows)):
                break
        return places

    def _get_only_type(self, path: str) -> str:
        if len(self.types) == 1:
            return self.types[0]
        raise DataError(
            f"{path}: no column for `type`, and [events.types] names {len(self.types)}: {', '.join(self.types)}; "
            "map `type` to a column, or keep only the type of these events"
        )

    def _read_whole(self, source: TableSource, schema: pa.Schema, needs: tuple[str, ...], name: str) -> dict:
        """Read all files of an items or users table; canonical columns are converted, others kept."""
        kinds = {field.name: field.type for field in schema}
        reject_near_misses(source, kinds, name)
        loaded = []
        for file in find_table_files(self.base, source, name)[0]:
            table = open_table(file, source, kinds, needs)
            columns = map_columns(table, source, kinds, needs, name, extras=True)
            loaded.append((table, columns, list(table.read(list(dict.fromkeys(columns.values())), BATCH_ROWS))))
        separators = {n: source.list_separator or _choose_separator(loaded, n) for n in kinds if kinds[n] == STRINGS}
        tables = []
        for table, columns, batches in loaded:
            places = _locate_columns(table, columns, source)
            for batch in batches:
                arrays = {
                    n: convert(batch[c], kinds[n], places[n], separators.get(n, "|"))
                    if n in kinds
                    else clear_missing(batch[c])
                    for n, c in columns.items()
                }
                tables.append((table, pa.table(arrays)))
        if not tables:
            raise DataError(f"data.tables.{name} ({hide_secrets(source.path)}) has no rows; leave it out, or fill it")
        whole = _concatenate(tables, kinds, source, name)
        return dict(zip(whole.column_names, whole.columns, strict=True))


def open_table(
    file: TableFile,
    source: TableSource,
    kinds: Iterable[str],
    needs: tuple[str, ...],
    row_groups: tuple[int, ...] | None = None,
) -> TableReader:
    """Return the reader of a file of a table."""
    if has_suffix(file, PARQUET):
        return ParquetTable(file, row_groups)
    wanted = {name: name for name in (*needs, *kinds)} | source.columns
    return CsvTable(file, source.csv, tuple(wanted.values()))


def _locate_columns(
    table: TableReader, columns: dict[str, str], source: TableSource, before: int = 0
) -> dict[str, ColumnLocation]:
    return {
        name: ColumnLocation(
            str(table.file), column, name, rows=before, decimal=source.csv.decimal, find_lines=table.find_lines
        )
        for name, column in columns.items()
    }


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _decide_decimal_sign(table: TableReader, values: pa.Array, place: ColumnLocation) -> None:
    """Decide the decimal sign over the whole column as soon as a number contains a comma."""
    if place.decimal or not pa.types.is_string(values.type) or not has_commas(values):
        return
    place.decimal = decide_decimal((batch[0] for batch in table.read([place.column], BATCH_ROWS)), place)
    if place.decimal == "," and place.rows:  # earlier rows were read with points
        raise place.error('csv = { decimal = "," } in the section of the table', "decimal commas late in the file", 0)


def _choose_separator(loaded: list[tuple[TableReader, dict[str, str], list[pa.RecordBatch]]], name: str) -> str:
    texts = (batch[columns[name]] for _, columns, batches in loaded if name in columns for batch in batches)
    return choose_separator((text for text in texts if pa.types.is_string(text.type)), name)


def _concatenate(tables: list[tuple[TableReader, pa.Table]], kinds: dict, source: TableSource, name: str) -> pa.Table:
    """Join the parts of a table; other columns of CSV files get a type if all their values have it."""
    typed = _infer_types([(table, part) for table, part in tables if isinstance(table, CsvTable)], kinds, source)
    parts = [next(typed) if isinstance(table, CsvTable) else part for table, part in tables]
    for attempt in (parts, [part for _, part in tables]):
        try:
            return pa.concat_tables(attempt, promote_options="permissive").combine_chunks()
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            reason = first_line(error)
    raise DataError(
        f"data.tables.{name} ({hide_secrets(source.path)}): a column has different types in its files "
        f"({reason}); give it one type, or leave it out of the files"
    )


def _infer_types(parts: list[tuple[CsvTable, pa.Table]], kinds: dict, source: TableSource) -> Iterator[pa.Table]:
    """Yield the parts of CSV files with a type for their other columns; with `;` or tabs, commas may be decimal."""
    if not parts:
        return
    european = {
        id(table): _find_european(table, parts, kinds, source) for table in {id(t): t for t, _ in parts}.values()
    }
    plain = [_normalize(part, european[id(table)]) for table, part in parts]
    whole, normalized = (
        pa.concat_tables(tables, promote_options="default").combine_chunks()
        for tables in ([part for _, part in parts], plain)
    )
    for place, name in enumerate(whole.column_names):
        if name not in kinds:
            text, numbers = (table[name].combine_chunks() for table in (whole, normalized))
            whole = whole.set_column(place, name, infer_type(text, numbers))
    start = 0
    for _, part in parts:
        yield whole.slice(start, len(part))
        start += len(part)


def _find_european(
    table: CsvTable, parts: list[tuple[CsvTable, pa.Table]], kinds: dict, source: TableSource
) -> set[str]:
    """Return the other columns of a file whose numbers have decimal commas."""
    if (source.csv.decimal or ("." if table.dialect.delimiter == "," else ",")) == ".":
        return set()
    own = [part for other, part in parts if other is table]
    others = [name for name in own[0].column_names if name not in kinds]
    return {name for name in others if source.csv.decimal or show_decimal_commas(part[name] for part in own)}


def _normalize(part: pa.Table, columns: set[str]) -> pa.Table:
    """Rewrite the numbers of columns with decimal commas as plain numbers."""
    for place, name in enumerate(part.column_names):
        if name in columns:
            part = part.set_column(place, name, normalize_numbers(part[name].combine_chunks(), ","))
    return part


def _cut(file: TableFile) -> Iterator[tuple[tuple[int, ...] | None, int]]:
    """Yield the row groups of each part of a file, and the number of rows before it."""
    if not has_suffix(file, PARQUET):
        yield None, 0
        return
    before, rows, groups = 0, 0, list[int]()
    for group, size in enumerate(ParquetTable(file).count_group_rows()):
        groups.append(group)
        rows += size
        if rows >= ROWS_PER_PART:
            yield tuple(groups), before
            before, rows, groups = before + rows, 0, []
    if groups:
        yield tuple(groups), before
