"""Search files of any kind for a person, and remove the person from them.

| file | search | removal |
|---|---|---|
| Parquet | values of all columns | the rows, in a new file that replaces the old one |
| SQLite | values of all tables | the rows; their place in the file is overwritten |
| Arrow, .npy, .npz | values | none: only bundles and catalogs have such files |
| .gz | text | stars in the place of the id, in a new file |
| any other | text | stars in the place of the id, in place: a process may be appending to the file |
"""

from __future__ import annotations

import gzip
import os
import sqlite3
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from handsell.jobs.erasure.person import Person

BLOCK, OVERLAP = 8 << 20, 4096  # bytes of text in memory; longest id with the words around it
ONLINE_KEY = "entity_key"  # column of Feast's online rows; a key ends with the length of the id and the id
DRAFT = ".erasing"  # suffix of a file that is being written
BUSY_S = 30.0
KINDS = ((b"PAR1", "parquet"), (b"SQLite format 3\0", "sqlite"), (b"ARROW1", "arrow"), (b"\x1f\x8b", "gzip"),
         (b"\x93NUMPY", "npy"), (b"PK\x03\x04", "npz"))  # fmt: skip


def find_kind(path: Path) -> str:
    """Return the kind of a file by its first bytes, `text` for any other."""
    with path.open("rb") as file:
        start = file.read(16)
    return next((kind for magic, kind in KINDS if start.startswith(magic)), "text")


def count_in_file(path: Path, person: Person) -> int:
    """Count the places in a file that name the person; raises OSError, ArrowInvalid or sqlite3.Error if unreadable."""
    return SEARCHES[find_kind(path)](path, person)


def remove_from_file(path: Path, person: Person) -> int:
    """Remove the person from a file; return the number of places. A file that cannot be rewritten is left as it is."""
    kind = find_kind(path)
    return REMOVALS[kind](path, person) if kind in REMOVALS else 0


# -- search ---------------------------------------------------------------------------------------------------


def _count_in_parquet(path: Path, person: Person) -> int:
    with pq.ParquetFile(path) as file:
        found = _count_in_metadata(file.schema_arrow, person)
        return found + sum(count_in_table(pa.Table.from_batches([batch]), person) for batch in file.iter_batches())


def count_in_table(table: pa.Table, person: Person) -> int:
    """Count the values of all columns that name the person."""
    names = table.column_names
    found = sum(_choose_ids(name, names, person).count_in_values(table[name]) for name in names)
    return found + int(np.count_nonzero(_mark_changes(table, person)))


def _choose_ids(name: str, names: Sequence[str], person: Person) -> Person:
    """Return the ids that count in a column. `id` of a catalog change may be an item's, that of a merge a visitor's."""
    if name == "id" and "kind" in names:
        return Person(())
    return person if name == "id" and "owner" in names else person.in_column(name)


def _mark_changes(table: pa.Table, person: Person) -> np.ndarray:
    """Mark the rows (N,) bool that are changes of the person's attributes."""
    if not {"id", "kind"} <= set(table.column_names):
        return np.zeros(len(table), bool)
    return person.mark(table["id"]) & np.asarray(pc.fill_null(pc.equal(table["kind"], "user"), False))


def _count_in_metadata(schema: pa.Schema, person: Person) -> int:
    texts = [schema.metadata or {}, *(field.metadata or {} for field in schema)]
    return sum(len(person.find_in_text(value)) for entries in texts for value in entries.values())


def _count_in_arrow(path: Path, person: Person) -> int:
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        tables = (pa.Table.from_batches([reader.get_batch(i)]) for i in range(reader.num_record_batches))
        names = reader.schema.names
        return sum(person.in_column(name).count_in_values(table[name]) for table in tables for name in names)


def _count_in_sqlite(path: Path, person: Person) -> int:
    with closing(_connect(path, person)) as database:
        return sum(
            database.execute(f"SELECT count(*) FROM {table} WHERE {where}", values).fetchone()[0]
            for table, where, values in _list_conditions(database, person)
        )


def _count_in_gzip(path: Path, person: Person) -> int:
    with gzip.open(path) as file:
        return sum(len(places) for _, places in _read_blocks(file, person))


def _count_in_text(path: Path, person: Person) -> int:
    with path.open("rb") as file:
        return sum(len(places) for _, places in _read_blocks(file, person))


def _count_in_npy(path: Path, person: Person) -> int:
    return _count_in_array(np.load(path, mmap_mode="r", allow_pickle=False), person)


def _count_in_npz(path: Path, person: Person) -> int:
    found = 0
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                if name.endswith(".npy"):
                    found += _count_in_array(np.load(member, allow_pickle=False), person)
                else:
                    found += sum(len(places) for _, places in _read_blocks(member, person))
    return found


def _count_in_array(array: np.ndarray, person: Person) -> int:
    if array.dtype.kind not in "US":
        return 0
    return person.distinctive.count_in_values(pa.array(array.ravel().astype(str).tolist(), pa.string()))


def _read_blocks(file: IO[bytes] | gzip.GzipFile, person: Person) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield (offset of a block, places in it); blocks overlap, and every place is in one of them only."""
    text, start, last = file.read(BLOCK), 0, -1
    while text:
        more = file.read(BLOCK)
        limit = len(text) - OVERLAP if more else len(text)  # later places need the text after them
        places = [(begin, end) for begin, end in person.find_in_text(text) if start + begin > last and begin < limit]
        if places:
            last = start + places[-1][0]
        yield start, places
        cut = max(limit - OVERLAP, 0) if more else len(text)
        last = max(last, start + limit - 1)
        text, start = text[cut:] + more if more else b"", start + cut


# -- removal --------------------------------------------------------------------------------------------------


def _remove_from_parquet(path: Path, person: Person) -> int:
    """Write the rows without the person to a new file that replaces the old one."""
    if not _count_in_parquet(path, person):
        return 0
    removed, draft = 0, path.with_name(path.name + DRAFT)
    with pq.ParquetFile(path) as file:
        schema = _clean_metadata(file.schema_arrow, person)
        with pq.ParquetWriter(draft, schema) as out:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group).replace_schema_metadata(schema.metadata)
                kept = ~_mark_rows(table, person)
                removed += int(np.count_nonzero(~kept))
                out.write_table(table.filter(pa.array(kept)).cast(schema))
    replace_file(draft, path)
    return removed


def _mark_rows(table: pa.Table, person: Person) -> np.ndarray:
    """Mark the rows (N,) bool that name the person."""
    marked = _mark_changes(table, person)
    for name in table.column_names:
        ids, column = _choose_ids(name, table.column_names, person), table[name].combine_chunks()
        if ids.count_in_values(column):
            marked |= np.fromiter((ids.count_in_values(column.slice(r, 1)) > 0 for r in range(len(column))), bool)
    return marked


def _clean_metadata(schema: pa.Schema, person: Person) -> pa.Schema:
    entries = {name: person.mask(value)[0] for name, value in (schema.metadata or {}).items()}
    return schema.with_metadata(entries or None)


def _remove_from_sqlite(path: Path, person: Person) -> int:
    """Delete the rows; SQLite overwrites their places, and its log of writes is emptied."""
    removed = 0
    with closing(_connect(path, person)) as database:
        for table, where, values in _list_conditions(database, person):
            removed += database.execute(f"DELETE FROM {table} WHERE {where}", values).rowcount
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return removed


def _connect(path: Path, person: Person) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    database.execute("PRAGMA secure_delete=ON")
    find = person.find_in_text
    database.create_function("has_person", 1, lambda text: bool(find(text.encode(errors="surrogatepass"))))
    return database


def _list_conditions(database: sqlite3.Connection, person: Person) -> Iterator[tuple[str, str, list]]:
    """Yield (table, condition, its values) for every column that may hold the person."""
    sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    for (table,) in database.execute(sql).fetchall():
        for _, column, *_ in database.execute(f"PRAGMA table_info({_quote(table)})").fetchall():
            name = _quote(column)
            for one in person.in_column(column).ids:
                yield _quote(table), f"{name} = ? OR {name} = CAST(? AS BLOB)", [one, one]
            for one in person.distinctive.in_column(column).ids:
                yield _quote(table), f"typeof({name}) = 'text' AND {name} != ? AND has_person({name})", [one]
            for one in person.ids if column == ONLINE_KEY else ():
                key = len(one.encode()).to_bytes(4, "little") + one.encode()
                yield _quote(table), f"substr({name}, -{len(key)}) = ?", [key]


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _remove_from_gzip(path: Path, person: Person) -> int:
    with gzip.open(path) as file:
        masked, count = person.mask(file.read())
    if count:
        draft = path.with_name(path.name + DRAFT)
        draft.write_bytes(gzip.compress(masked))
        replace_file(draft, path)
    return count


def _remove_from_text(path: Path, person: Person) -> int:
    found = 0
    with path.open("r+b") as file:
        for start, places in list(_read_blocks(file, person)):
            for begin, end in places:
                file.seek(start + begin)
                file.write(b"*" * (end - begin))
            found += len(places)
    return found


def replace_file(draft: Path, path: Path) -> None:
    """Flush a new file and put it in the place of the old one."""
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.chmod(path.stat().st_mode & 0o777)
    draft.replace(path)


SEARCHES = {
    "parquet": _count_in_parquet, "sqlite": _count_in_sqlite, "arrow": _count_in_arrow, "gzip": _count_in_gzip,
    "npy": _count_in_npy, "npz": _count_in_npz, "text": _count_in_text,
}  # fmt: skip
REMOVALS = {
    "parquet": _remove_from_parquet, "sqlite": _remove_from_sqlite, "gzip": _remove_from_gzip,
    "text": _remove_from_text,
}  # fmt: skip
