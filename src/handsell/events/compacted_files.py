"""Files of compacted ranges: immutable Parquet files by date, and one JSON file per range that lists them.

    compacted/events/date=2026-11-29/000000000001-000000200000.parquet
    compacted/ranges/events/000000000001-000000200000.json

A range counts only when its JSON file is in place, which is written last. Files that no range lists are left from an
interrupted run; `remove_unlisted` deletes them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from handsell.core.errors import DataError
from handsell.core.json_files import read_json
from handsell.core.units import DAY_US
from handsell.data.schemas import EVENTS, TIME

Kind = Literal["events", "impressions", "changes"]
BLOCK = 1 << 20
LOCK_WAIT_S = 600.0

_OFFSET = pa.field("offset", pa.int64(), nullable=False)
SCHEMAS: dict[Kind, pa.Schema] = {
    "events": pa.schema([*EVENTS, _OFFSET, pa.field("key", pa.int64())]),  # key of the store, see data/event_key.py
    "impressions": pa.schema(
        [
            pa.field("recommendation_id", pa.string(), nullable=False),
            pa.field("gateway", pa.string()),
            pa.field("sequence", pa.int64()),
            pa.field("time", TIME, nullable=False),
            pa.field("user_id", pa.string()),
            pa.field("surface", pa.string()),
            pa.field("bundle", pa.string()),
            pa.field("item_id", pa.string(), nullable=False),
            pa.field("position", pa.int16()),  # 1 = top
            pa.field("score", pa.float32()),
            pa.field("propensity", pa.float32()),
            pa.field("sources", pa.list_(pa.string())),
            pa.field("rules", pa.string()),
            pa.field("arms", pa.string()),  # JSON, like the next two: see events/store/rows.py
            pa.field("stopped", pa.string()),
            pa.field("units", pa.string()),
            pa.field("interleaved", pa.string()),
            pa.field("teams", pa.string()),  # the item's own
            _OFFSET,  # of the slate: its items share it
        ]
    ),
    "changes": pa.schema(
        [
            pa.field("kind", pa.string(), nullable=False),
            pa.field("id", pa.string(), nullable=False),
            pa.field("action", pa.string(), nullable=False),
            pa.field("fields", pa.string(), nullable=False),  # JSON object
            pa.field("time", TIME, nullable=False),
            _OFFSET,
        ]
    ),
}


@dataclass(frozen=True, slots=True)
class RangeFile:
    """A file of a range; `path` is relative to the folder of compacted data."""

    path: str
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CompactedRange:
    """Offsets `first` … `through` of the store, copied; gaps in the offsets stay."""

    kind: Kind
    first: int
    through: int
    files: tuple[RangeFile, ...]

    @property
    def name(self) -> str:
        return f"{self.first:012d}-{self.through:012d}"

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)


@contextmanager
def lock_compacted(folder: Path) -> Iterator[None]:
    """Hold the lock of whoever writes compacted files; raises DataError if another process keeps it for minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", mode=0o600).acquire(timeout=LOCK_WAIT_S):
            yield
    except Timeout:
        raise DataError(f"{folder} is locked by another process for {LOCK_WAIT_S:.0f} s: stop it, or wait") from None


def list_ranges(folder: Path, kind: Kind) -> list[CompactedRange]:
    """Return the ranges in order of offsets; raises DataError for a damaged list or a hole between ranges."""
    found: list[CompactedRange] = []
    for path in sorted((folder / "ranges" / kind).glob("*.json")):
        raw = read_json(path, "restore the folder from a backup")
        one = CompactedRange(kind, raw["first"], raw["through"], tuple(RangeFile(**file) for file in raw["files"]))
        if found and one.first != found[-1].through + 1:
            raise DataError(
                f"{path.parent}: expected a range from offset {found[-1].through + 1:,}, got {one.first:,} next: a "
                "file is missing; restore the folder from a backup"
            )
        found.append(one)
    return found


def read_position(folder: Path, kind: Kind) -> int:
    """Return the offset through which the store has been copied, 0 without ranges."""
    names = [path.stem for path in (folder / "ranges" / kind).glob("*.json")]
    return max((int(name.partition("-")[2]) for name in names), default=0)


def read_range(folder: Path, one: CompactedRange) -> pa.Table:
    """Read a range in order of offsets; raises DataError for a file that is missing, truncated or damaged."""
    schema = SCHEMAS[one.kind]
    tables = [pq.read_table(pa.BufferReader(_read_file(folder, file)), schema=schema) for file in one.files]
    table = pa.concat_tables([schema.empty_table(), *tables])
    order = np.argsort(table["offset"].to_numpy(), kind="stable")
    return table.take(pa.array(order))


def write_range(folder: Path, kind: Kind, first: int, through: int, rows: pa.Table, revision: str = "") -> None:
    """Write the files of a range and then, atomically, the JSON file that makes it count.

    `rows` are in order of offsets and stay so within a date. `revision` tells rewritten files from those they replace.
    """
    one = CompactedRange(kind, first, through, ())
    days = rows["time"].cast(pa.int64()).to_numpy() // DAY_US
    files = []
    for day in np.unique(days).tolist():
        name = f"{one.name}{revision}.parquet"
        path = Path(kind) / f"date={np.datetime64(day, 'D')}" / name
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        own = rows.filter(pa.array(days == day))
        pq.write_table(own, folder / path)
        _flush(folder / path)
        _flush((folder / path).parent)
        files.append(RangeFile(path.as_posix(), len(own), (folder / path).stat().st_size, _digest(folder / path)))
    target = folder / "ranges" / kind / f"{one.name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(".new")
    fresh.write_text(json.dumps({"first": first, "through": through, "files": [asdict(file) for file in files]}))
    _flush(fresh)
    fresh.replace(target)
    _flush(target.parent)


def rewrite_ranges(folder: Path, kind: Kind, find_kept: Callable[[pa.Table], np.ndarray]) -> int:
    """Remove rows from all ranges and return how many; `find_kept` gets a range's rows, returns (N,) bool.

    A range is replaced atomically; files with the removed rows are deleted before this returns.
    """
    removed = 0
    with lock_compacted(folder):
        for one in list_ranges(folder, kind):
            rows = read_range(folder, one)
            kept = find_kept(rows)
            if not kept.all():
                removed += int(np.count_nonzero(~kept))
                revision = f".{_count_revisions(one) + 1}"
                write_range(folder, kind, one.first, one.through, rows.filter(pa.array(kept)), revision)
        remove_unlisted(folder, kind)
    return removed


def remove_unlisted(folder: Path, kind: Kind) -> None:
    """Delete the files of a kind that no range lists; the caller holds the lock."""
    listed = {file.path for one in list_ranges(folder, kind) for file in one.files}
    for path in sorted((folder / kind).glob("date=*/*")):
        if path.relative_to(folder).as_posix() not in listed:
            path.unlink()
    for path in sorted((folder / "ranges" / kind).glob("*.new")):
        path.unlink()


def count_rows(ranges: list[CompactedRange]) -> int:
    return sum(one.rows for one in ranges)


def _count_revisions(one: CompactedRange) -> int:
    """Return the highest revision in the names of a range's files."""
    found = [Path(file.path).name.removeprefix(one.name).split(".") for file in one.files]
    return max((int(parts[1]) for parts in found if len(parts) > 2), default=0)


def _read_file(folder: Path, file: RangeFile) -> bytes:
    """Read a file whose size and hash are those of its range."""
    path, remedy = folder / file.path, "restore it from a backup, or remove its range and compact again"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"compacted file {path} is missing: {remedy}") from None
    if len(content) != file.size:
        word = "truncated" if len(content) < file.size else "too long"
        raise DataError(f"compacted file {path} is {word}: expected {file.size} bytes, got {len(content)}: {remedy}")
    if (digest := hashlib.sha256(content).hexdigest()) != file.sha256:
        raise DataError(
            f"compacted file {path} is damaged: expected SHA-256 {file.sha256[:12]}…, got {digest[:12]}…: {remedy}"
        )
    return content


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def build_table(kind: Kind, columns: dict[str, list]) -> pa.Table:
    """Build the rows of a kind from columns of the store; times are µs, positions beyond int16 become null."""
    arrays = []
    for field in SCHEMAS[kind]:
        values = columns[field.name]
        if field.type == TIME:
            arrays.append(pa.array(values, pa.int64()).cast(TIME))
        elif field.type == pa.int16():
            wide = pa.array(values, pa.int64())
            arrays.append(pc.if_else(pc.less(pc.abs(wide), 2**15), wide, None).cast(pa.int16()))
        else:
            arrays.append(pa.array(values, field.type))
    return pa.table(arrays, schema=SCHEMAS[kind])
