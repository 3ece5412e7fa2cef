"""The user's own tables: Parquet or CSV files or folders, with columns mapped in the TOML.

Events are read in batches, so memory does not grow with their number. Items and users are read whole.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq

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
from handsell.data.readers.conversion import MISSING, clear_missing, convert
from handsell.data.readers.location import ColumnLocation, first_line
from handsell.data.readers.table_files import CSV, PARQUET, find_table_files, has_suffix
from handsell.data.readers.text_files import read_header
from handsell.data.schemas import ITEMS, USERS

ROWS_PER_PART = 2_000_000
BATCH_ROWS = 131_072
EVENT_NEEDS, ITEM_NEEDS, USER_NEEDS = ("user_id", "item_id", "time"), ("item_id",), ("user_id",)


@dataclass(frozen=True)
class Tables:
    """`base`: folder for relative paths; `types`: event types of the config."""

    base: Path
    tables: TablesConfig
    types: tuple[str, ...]
    ordered: ClassVar[bool] = True
    source: ClassVar[str] = "tables"  # without the path: moving the files does not change the ids

    def files(self) -> list[Path]:
        return [path for name, source in self._sources() for path in find_table_files(self.base, source, name)[0]]

    def skipped_files(self) -> list[tuple[Path, str]]:
        """Return the files of the tables' folders that are not read, each with the reason."""
        return [entry for name, source in self._sources() for entry in find_table_files(self.base, source, name)[1]]

    def _sources(self) -> list[tuple[str, TableSource]]:
        given = [("events", self.tables.events), ("items", self.tables.items), ("users", self.tables.users)]
        return [(name, source) for name, source in given if source]

    def parts(self) -> list[SourcePart]:
        """One part per file, in order of file names; large Parquet files are cut at row groups."""
        cuts = [cut for path in find_table_files(self.base, self.tables.events, "events")[0] for cut in _cut(path)]
        return [SourcePart(number, str(path), groups) for number, (path, groups) in enumerate(cuts)]

    def events(self, part: SourcePart) -> Iterator[pa.RecordBatch]:
        source, path = self.tables.events, Path(part.path)
        kinds = {field.name: field.type for field in NULLABLE_EVENTS}
        unknown = [name for name in source.columns if name not in kinds]
        if unknown:
            raise DataError(
                f"data.tables.events.columns: expected names among {', '.join(kinds)}; got {', '.join(unknown)}; "
                "write canonical names on the left side"
            )
        columns = _map_columns(path, source, kinds, EVENT_NEEDS, "events", extras=False)
        one_type = None if "type" in columns else self._get_only_type(path)
        before = _count_rows_before(path, part.row_groups)
        places = {name: ColumnLocation(str(path), column, name, rows=before) for name, column in columns.items()}
        for batch in _scan(path, columns, part.row_groups):
            found = {
                name: convert(batch[column], kinds[name], places[name], source.list_separator)
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

    def _get_only_type(self, path: Path) -> str:
        if len(self.types) == 1:
            return self.types[0]
        raise DataError(
            f"{path}: no column for `type`, and [events.types] names {len(self.types)}: {', '.join(self.types)}; "
            "map `type` to a column, or keep only the type of these events"
        )

    def _read_whole(self, source: TableSource, schema: pa.Schema, needs: tuple[str, ...], name: str) -> dict:
        """Read all files of an items or users table; canonical columns are converted, others kept."""
        kinds = {field.name: field.type for field in schema}
        _reject_near_misses(source, kinds, name)
        tables = []
        for path in find_table_files(self.base, source, name)[0]:
            columns = _map_columns(path, source, kinds, needs, name, extras=True)
            places = {n: ColumnLocation(str(path), c, n) for n, c in columns.items()}
            for batch in _scan(path, columns, None, [c for n, c in columns.items() if n in kinds]):
                arrays = {
                    n: convert(batch[c], kinds[n], places[n], source.list_separator)
                    if n in kinds
                    else clear_missing(batch[c])
                    for n, c in columns.items()
                }
                tables.append(pa.table(arrays))
        if not tables:
            raise DataError(f"data.tables.{name} ({self.base / source.path}) has no rows; leave it out, or fill it")
        try:
            whole = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(
                f"data.tables.{name} ({self.base / source.path}): a column has different types in its files "
                f"({first_line(error)}); give it one type, or leave it out of the files"
            ) from None
        return dict(zip(whole.column_names, whole.columns, strict=True))


def _reject_near_misses(source: TableSource, kinds: dict, name: str) -> None:
    """Raise DataError for an extra column whose name is almost a canonical one: probably a typo."""
    for given in source.columns:
        near = [] if given in kinds else difflib.get_close_matches(given, kinds, 1, cutoff=0.75)
        if near:
            raise DataError(
                f"data.tables.{name}.columns.{given}: expected one of {', '.join(kinds)}, or a clearly different "
                f"name for an extra column; got {given} (perhaps {near[0]}?)"
            )


def _cut(path: Path) -> list[tuple[Path, tuple[int, ...] | None]]:
    if has_suffix(path, CSV):
        return [(path, None)]
    about = _parquet(path).metadata
    cuts: list[tuple[Path, tuple[int, ...] | None]] = []
    rows, groups = 0, list[int]()
    for group in range(about.num_row_groups):
        groups.append(group)
        rows += about.row_group(group).num_rows
        if rows >= ROWS_PER_PART:
            cuts.append((path, tuple(groups)))
            rows, groups = 0, []
    return [*cuts, (path, tuple(groups))] if groups else cuts


def _count_rows_before(path: Path, row_groups: tuple[int, ...] | None) -> int:
    """Return the number of rows of a Parquet file before the row groups of a part."""
    return sum(_parquet(path).metadata.row_group(group).num_rows for group in range(row_groups[0] if row_groups else 0))


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is not readable Parquet: {error}; write it again, or remove it") from None


def _map_columns(
    path: Path, source: TableSource, kinds: dict, needs: tuple[str, ...], name: str, extras: bool
) -> dict[str, str]:
    """Map canonical (or extra) columns to columns of the file."""
    present = _parquet(path).schema_arrow.names if has_suffix(path, PARQUET) else _read_csv_names(path)
    for canonical in (*source.columns, *needs):
        column = source.columns.get(canonical, canonical)
        if column not in present:
            near = difflib.get_close_matches(column, present, 1) or difflib.get_close_matches(canonical, present, 1)
            hint = f' (perhaps {canonical} = "{near[0]}"?)' if near else ""
            raise DataError(
                f"{path}: expected a column {column!r} for {canonical}, got: {', '.join(present)}; "
                f"map it under [data.tables.{name}.columns]{hint}"
            )
    mapped = dict(source.columns)
    taken = set(mapped.values())
    for column in present:
        if column not in taken and column not in mapped and (extras or column in kinds):
            mapped[column] = column
    return mapped


def _read_csv_names(path: Path) -> tuple[str, ...]:
    if has_suffix(path, (".gz",)):
        try:
            with csv.open_csv(pa.input_stream(path, compression="gzip")) as file:
                return tuple(file.schema.names)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path} cannot be read: {first_line(error)}; correct or remove the file") from None
    return read_header(path, ",")


def _scan(
    path: Path, columns: dict[str, str], row_groups: tuple[int, ...] | None, as_text: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Read columns of a file in batches; CSV columns `as_text` (all by default) as text, so that id 007 stays 007."""
    wanted = list(dict.fromkeys(columns.values()))  # two canonical columns may be mapped to the same one
    try:
        if has_suffix(path, PARQUET):
            groups = list(row_groups) if row_groups is not None else None
            yield from _parquet(path).iter_batches(BATCH_ROWS, row_groups=groups, columns=wanted)
            return
        text = as_text if as_text is not None else list(columns.values())
        options = csv.ConvertOptions(
            column_types=dict.fromkeys(text, pa.string()), strings_can_be_null=True, null_values=list(MISSING)
        )
        if has_suffix(path, (".gz",)):  # a dataset does not know .GZ
            options.include_columns = wanted
            yield from csv.open_csv(pa.input_stream(path, compression="gzip"), convert_options=options)
            return
        source = ds.dataset(path, format=ds.CsvFileFormat(convert_options=options))
        yield from source.scanner(columns=wanted, batch_size=BATCH_ROWS, use_threads=False).to_batches()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read: {first_line(error)}; correct or remove the file") from None
