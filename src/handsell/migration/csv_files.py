"""Read CSV files of any dialect: the columns say which of them hold events, items and users."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from handsell.core.errors import DataError
from handsell.data.config import CsvFormat
from handsell.data.readers.conversion import clear_missing
from handsell.data.readers.formats.csv_table import CsvTable
from handsell.data.readers.formats.file_access import TableFile, has_suffix
from handsell.data.readers.location import ColumnLocation
from handsell.data.readers.numbers import decide_decimal, has_commas, infer_type, normalize_numbers
from handsell.data.readers.table_files import CSV
from handsell.migration.column_names import COLUMNS, find_kind, map_columns, require_known
from handsell.migration.source_files import find_files
from handsell.migration.tables import ImportTables
from handsell.migration.tally import Kind, SourcePlace

ROWS = 50_000
RATING = re.compile(r"rating|stars|overall|score", re.IGNORECASE)
NUMBERS = ("value", "position")


def import_csv(source: str, tables: ImportTables, given: Mapping[str, str]) -> None:
    """Read all CSV files of a source; `given`: canonical column → column of the files."""
    require_known(given)
    files = [file for file in find_files(source) if has_suffix(file, CSV)]
    if not files:
        raise DataError(f"SOURCE is {source}: expected files whose names end in {' or '.join(CSV)}, got none")
    opened = [_open(file, given) for file in files]
    if not any(kind == "events" for _, kind, _ in opened):
        table = opened[0][0]
        mapped = map_columns(table.names, given)
        missing = [name for name in ("user_id", "item_id", "time") if name not in mapped]
        raise DataError(
            f"{table.file}: expected columns with user, item and time of events, found none for {', '.join(missing)} "
            f"among {', '.join(table.names)[:300]}; name them: --column {missing[0]}=COLUMN"
        )
    for table, kind, mapped in opened:
        if kind is None:
            rows = table.count_rows()
            tables.tally.read["other"] += rows
            for number in range(1, rows + 1):
                tables.tally.skip(
                    "other", "a table without ids of users or items", SourcePlace(str(table.file), number, "row")
                )
            continue
        _add_table(tables, table, kind, mapped)


def _open(file: TableFile, given: Mapping[str, str]) -> tuple[CsvTable, Kind | None, dict[str, str]]:
    """Return a file's table, what it holds, and its columns by canonical name."""
    usual = ("user_id", "item_id", "time", "timestamp", "type", "rating", "title", *given.values())
    table = CsvTable(file, CsvFormat(), usual)
    mapped = map_columns(table.names, given)
    kind = find_kind(table.names, mapped, file.name)
    allowed = COLUMNS[kind] if kind else ()
    return table, kind, {name: column for name, column in mapped.items() if name in allowed}


def _add_table(tables: ImportTables, table: CsvTable, kind: Kind, mapped: Mapping[str, str]) -> None:
    tally, rows = tables.tally, 0
    shown = ", ".join(f"{name} = {column}" for name, column in mapped.items())
    tally.notes.append(f"{table.file}: {kind}, with {shown}")
    others = [name for name in table.names if name not in mapped.values()]
    only_type = "rating" if RATING.search(mapped.get("value", "")) else "interaction"  # where there is no column
    for row, place in _read_rows(table, mapped, others if kind != "events" else []):
        tally.read[kind] += 1
        rows += 1
        if kind == "events":
            tables.events.add({"type": only_type, **row}, place)
        else:
            spool = tables.items if kind == "items" else tables.users
            spool.add(row.pop(spool.key, None), row, place)
    if kind == "events":
        for name in others:
            tally.dropped[f"events: column {name}"] += rows


def _read_rows(
    table: CsvTable, mapped: Mapping[str, str], others: list[str]
) -> Iterator[tuple[dict[str, Any], SourcePlace]]:
    names = {**mapped, **{name: name for name in others}}
    decimals = {name: _find_decimal(table, column) for name, column in mapped.items() if name in NUMBERS}
    types = _infer_types(table, others)
    number = 0
    for batch in table.read(list(dict.fromkeys(names.values())), ROWS):
        columns: dict[str, list[Any]] = {}
        for name, column in names.items():
            values = clear_missing(batch[column])
            if decimals.get(name) == ",":
                values = normalize_numbers(values, ",")
            if name in types:
                values = infer_type(values, values).cast(types[name])
            columns[name] = values.to_pylist()
        for row in zip(*columns.values(), strict=True):
            number += 1
            yield dict(zip(columns, row, strict=True)), SourcePlace(str(table.file), number, "row")


def _infer_types(table: CsvTable, columns: list[str]) -> dict[str, pa.DataType]:
    """Return the type of the columns whose values all have one: numbers, or true and false."""
    found: dict[str, set[pa.DataType]] = {name: set() for name in columns}
    if not columns:
        return {}
    for batch in table.read(columns, ROWS):
        for name in columns:
            values = clear_missing(batch[name])
            if values.null_count < len(values):
                found[name].add(infer_type(values, values).type)
    numbers = {pa.int64(), pa.float64()}
    return {
        name: types.pop() if len(types) == 1 else pa.float64()
        for name, types in found.items()
        if types and pa.string() not in types and (len(types) == 1 or types == numbers)
    }


def _find_decimal(table: CsvTable, column: str) -> str:
    """Return the decimal sign of a column of numbers."""
    for batch in table.read([column], ROWS):
        if has_commas(batch[0]):
            place = ColumnLocation(str(table.file), column, column)
            return decide_decimal((other[0] for other in table.read([column], ROWS)), place)
    return "."
