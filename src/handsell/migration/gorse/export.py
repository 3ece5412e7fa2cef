"""Read what Gorse exports: JSON lines, CSV of older versions, its binary dump, and SQL dumps of its database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from handsell.core.errors import DataError
from handsell.data.config import CsvFormat
from handsell.data.readers.formats.csv_table import CsvTable
from handsell.data.readers.formats.file_access import TableFile, has_suffix
from handsell.migration.gorse.binary_dump import is_dump, read_dump
from handsell.migration.gorse.fields import (
    FEEDBACK_FIELDS,
    ITEM_FIELDS,
    USER_FIELDS,
    build_event,
    build_item,
    build_user,
    rename,
)
from handsell.migration.gorse.sql_dump import looks_like_sql, read_sql
from handsell.migration.row_spool import RowSpool
from handsell.migration.source_files import find_files, read_objects, read_start
from handsell.migration.tables import ImportTables
from handsell.migration.tally import SourcePlace, Tally

CSV_ROWS = 50_000
Records = Iterator[tuple[dict[str, Any], SourcePlace]]


def import_gorse(source: str, tables: ImportTables) -> None:
    """Read all files of a source; records of users, items and feedback may be in any of them."""
    for file in find_files(source):
        for record, place in read_records(file, tables.tally):
            _add(tables, rename(record), place)


def read_records(file: TableFile, tally: Tally) -> Records:
    """Yield the records of a file, whose format its first bytes say."""
    start = read_start(file)
    if is_dump(start):
        return read_dump(file, tally)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        return read_objects(file, tally)
    if looks_like_sql(start):
        return read_sql(file, tally)
    if has_suffix(file, (".csv", ".csv.gz")):
        return _read_csv(file)
    if not start.strip():
        return iter(())
    raise DataError(
        f"{file}: expected JSON lines, a CSV export, a binary dump or an SQL dump of Gorse, got something else; "
        "remove the file from SOURCE, or export again"
    )


def _read_csv(file: TableFile) -> Records:
    table = CsvTable(file, CsvFormat(), ("user_id", "item_id", "feedback_type", "labels"))
    number = 0
    for batch in table.read(table.names, CSV_ROWS):
        for record in batch.to_pylist():
            number += 1
            labels = record.get("labels")
            yield {**record, **({"labels": labels.split("|")} if labels else {})}, SourcePlace(str(file), number, "row")


def _add(tables: ImportTables, record: dict[str, Any], place: SourcePlace) -> None:
    tally = tables.tally
    if "FeedbackType" in record:
        tally.read["events"] += 1
        _name_others(tally, "events", record, FEEDBACK_FIELDS)
        for name in ("Comment", "Updated"):
            if record.get(name):
                tally.drop("events", name)
        tables.events.add(build_event(record), place)
    elif "ItemId" in record:
        tally.read["items"] += 1
        _add_row(tables.items, record, ITEM_FIELDS, build_item, place, tally)
    elif "UserId" in record:
        tally.read["users"] += 1
        _add_row(tables.users, record, USER_FIELDS, build_user, place, tally)
    else:
        tally.read["other"] += 1
        tally.skip("other", "a record without FeedbackType, ItemId or UserId", place)


def _add_row(
    spool: RowSpool,
    record: dict[str, Any],
    known: tuple[str, ...],
    build: Callable[[dict[str, Any]], dict[str, Any]],
    place: SourcePlace,
    tally: Tally,
) -> None:
    try:
        fields = {**build(record), **_list_others(record, known)}
    except ValueError as error:
        tally.skip(spool.kind, str(error), place)
        return
    spool.add(record[known[0]], fields, place)


def _list_others(record: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """Return fields that Gorse's documentation does not name; they are kept as columns."""
    return {name: value for name, value in record.items() if name not in known}


def _name_others(tally: Tally, kind: str, record: dict[str, Any], known: tuple[str, ...]) -> None:
    for name in _list_others(record, known):
        tally.drop(kind, name)
