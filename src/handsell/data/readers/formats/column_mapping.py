"""Map canonical columns to the columns of a file."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from handsell.core.errors import DataError
from handsell.data.config import TableSource
from handsell.data.readers.formats.csv_table import CsvTable
from handsell.data.readers.formats.parquet_table import ParquetTable

TableReader = CsvTable | ParquetTable


def reject_near_misses(source: TableSource, kinds: dict, name: str) -> None:
    """Raise DataError for an extra column whose name is almost a canonical one: probably a typo."""
    for given in source.columns:
        near = [] if given in kinds else difflib.get_close_matches(given, kinds, 1, cutoff=0.75)
        if near:
            raise DataError(
                f"data.tables.{name}.columns.{given}: expected one of {', '.join(kinds)}, or a clearly different "
                f"name for an extra column; got {given} (perhaps {near[0]}?)"
            )


def map_columns(
    table: TableReader, source: TableSource, kinds: dict, needs: tuple[str, ...], name: str, extras: bool
) -> dict[str, str]:
    """Map canonical (or extra) columns to columns of the file."""
    present, mapped = table.names, dict[str, str]()
    for canonical in (*source.columns, *needs):
        column = source.columns.get(canonical, canonical)
        found = _find_column(column, present)
        if found is None:
            near = difflib.get_close_matches(column, present, 1) or difflib.get_close_matches(canonical, present, 1)
            hint = f' (perhaps {canonical} = "{near[0]}"?)' if near else ""
            if isinstance(table, CsvTable) and not any(_find_column(wanted, present) for wanted in table.wanted):
                hint = "; if the file has no header, name its columns: csv = { names = [ … ] } in that section"
            raise DataError(
                f"{table.file}: expected a column {column!r} for {canonical}, got: {', '.join(present)}; "
                f"map it under [data.tables.{name}.columns]{hint}"
            )
        mapped[canonical] = found
    taken = set(mapped.values())
    for column in present:
        own = column.strip().casefold()
        canonical = own if own in kinds and _find_column(own, present) == column else column
        if column not in taken and canonical not in mapped and (extras or canonical in kinds):
            mapped[canonical] = column
    return mapped


def _find_column(name: str, present: Sequence[str]) -> str | None:
    """Return the column of a name; spaces around it and case matter only if they distinguish columns."""
    if name in present:
        return name
    alike = [column for column in present if column.strip().casefold() == name.strip().casefold()]
    return alike[0] if len(alike) == 1 else None
