"""Find the files of a user's table."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from handsell.core.errors import DataError
from handsell.core.paths import is_uri
from handsell.data.config import TableSource
from handsell.data.readers.formats.file_access import (
    RemoteFile,
    TableFile,
    has_suffix,
    hide_secrets,
    list_remote,
)

PARQUET, CSV = (".parquet", ".pq"), (".csv", ".csv.gz")
EXPECTED = ", ".join(PARQUET + CSV)
FEW_BYTES = 64

Found = tuple[list[TableFile], list[tuple[TableFile, str]]]


def find_table_files(base: Path | str, source: TableSource, name: str) -> Found:
    """Return the files of a table sorted by name, and the skipped files of its folder with the reasons.

    Marker files such as _SUCCESS and .part.crc are neither. Raises DataError if there is no file to read.
    """
    path = Path(source.path).expanduser()
    if is_uri(source.path) or (isinstance(base, str) and not path.is_absolute()):
        uri = source.path if is_uri(source.path) else _join(str(base), source.path)
        return _find_remote(uri, f"data.tables.{name}.path ({hide_secrets(uri)})")
    path = base / path
    where = f"data.tables.{name}.path ({path})"
    if path.is_dir():
        return _select(sorted(p for p in path.rglob("*") if p.is_file()), where)
    if not path.is_file():
        raise DataError(
            f"{where} does not exist: expected a Parquet or CSV file, or a folder of them; correct the path"
        )
    return _require_suffix(path, where)


def _join(uri: str, path: str) -> str:
    """Return the URI of a path below that of a folder, with the same query."""
    folder, mark, query = uri.partition("?")
    return f"{folder.rstrip('/')}/{path.removeprefix('./')}{mark}{query}"


def _find_remote(uri: str, where: str) -> Found:
    found = list_remote(uri, where)
    if not found:
        raise DataError(f"{where} does not exist: expected a Parquet or CSV file, or a folder of them; correct the URI")
    if found == [RemoteFile(uri)]:
        return _require_suffix(found[0], where)
    return _select(found, where)


def _require_suffix(file: TableFile, where: str) -> Found:
    if not has_suffix(file, PARQUET + CSV):
        raise DataError(f"{where}: expected a name ending in {EXPECTED}, got {file.name}; rename or convert it")
    return [file], []


def _select(found: list, where: str) -> Found:
    files, skipped, empty = [], [], []
    for file in found:
        hidden = file.name.startswith((".", "_"))
        if not has_suffix(file, PARQUET + CSV):
            if not hidden:
                skipped.append((file, f"the name does not end in {EXPECTED}"))
        elif hidden:
            skipped.append((file, "the name starts with . or _"))
        elif _is_empty(file):
            empty.append(file)
        else:
            files.append(file)
    if not files:
        got = ", ".join(f.name for f in [*empty, *(f for f, _ in skipped)][:5]) or "an empty folder"
        raise DataError(f"{where}: expected files with rows, ending in {EXPECTED}; got {got}; correct the path")
    return files, sorted([*skipped, *((file, "the file is empty") for file in empty)])


def _is_empty(file: TableFile) -> bool:
    """Whether there is no content, not even a header line."""
    if isinstance(file, RemoteFile):
        return file.stat().st_size == 0
    if not has_suffix(file, (".gz",)):
        with file.open("rb") as opened:
            start = opened.read(FEW_BYTES)
    else:
        try:
            with gzip.open(file) as unpacked:
                start = unpacked.read(FEW_BYTES)
        except (OSError, EOFError, zlib.error):
            return file.stat().st_size == 0  # a corrupt file is reported when it is read
    for mark in (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"):
        start = start.removeprefix(mark)
    return len(start) < FEW_BYTES and not start.replace(b"\0", b"").strip()
