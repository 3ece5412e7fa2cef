"""Find the files of a user's table."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from handsell.core.errors import DataError
from handsell.data.config import TableSource

PARQUET, CSV = (".parquet", ".pq"), (".csv", ".csv.gz")
EXPECTED = ", ".join(PARQUET + CSV)
FEW_BYTES = 64


def find_table_files(base: Path, source: TableSource, name: str) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return the files of a table sorted by name, and the skipped files of its folder with the reasons.

    Marker files such as _SUCCESS and .part.crc are neither. Raises DataError if there is no file to read.
    """
    path = base / Path(source.path).expanduser()
    where = f"data.tables.{name}.path ({path})"
    if path.is_dir():
        return _search_folder(path, where)
    if not path.is_file():
        raise DataError(
            f"{where} does not exist: expected a Parquet or CSV file, or a folder of them; correct the path"
        )
    if not has_suffix(path, PARQUET + CSV):
        raise DataError(f"{where}: expected a name ending in {EXPECTED}, got {path.name}; rename or convert it")
    return [path], []


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether the name ends with a suffix, in upper or lower case."""
    return path.name.lower().endswith(suffixes)


def _search_folder(folder: Path, where: str) -> tuple[list[Path], list[tuple[Path, str]]]:
    files, skipped, empty = [], [], []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        hidden = path.name.startswith((".", "_"))
        if not has_suffix(path, PARQUET + CSV):
            if not hidden:
                skipped.append((path, f"the name does not end in {EXPECTED}"))
        elif hidden:
            skipped.append((path, "the name starts with . or _"))
        elif _is_empty(path):
            empty.append(path)
        else:
            files.append(path)
    if not files:
        got = ", ".join(p.name for p in [*empty, *(p for p, _ in skipped)][:5]) or "an empty folder"
        raise DataError(f"{where}: expected files with rows, ending in {EXPECTED}; got {got}; correct the path")
    return files, sorted([*skipped, *((path, "the file is empty") for path in empty)])


def _is_empty(path: Path) -> bool:
    """Whether there is no content, not even a header line."""
    if not has_suffix(path, (".gz",)):
        with path.open("rb") as file:
            start = file.read(FEW_BYTES)
    else:
        try:
            with gzip.open(path) as unpacked:
                start = unpacked.read(FEW_BYTES)
        except (OSError, EOFError, zlib.error):
            return path.stat().st_size == 0  # a corrupt file is reported when it is read
    return len(start) < FEW_BYTES and not start.removeprefix(b"\xef\xbb\xbf").strip()
