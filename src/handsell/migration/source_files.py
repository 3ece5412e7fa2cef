"""The files of a foreign source: one file, a folder or a URI; lines of JSON in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from handsell.core.errors import DataError
from handsell.core.paths import is_uri
from handsell.data.readers.formats.file_access import TableFile, list_remote, open_binary
from handsell.migration.tally import SourcePlace, Tally

LONGEST_LINE = 64 << 20  # bytes


def find_files(source: str) -> list[TableFile]:
    """Return the file, or the files of a folder in order of names; raises DataError without one.

    Hidden files, and those whose names begin with _, are left out.
    """
    if is_uri(source):
        found: list[TableFile] = [*list_remote(source, source)]
    else:
        path = Path(source).expanduser()
        if not path.exists():
            raise DataError(f"SOURCE is {source}: expected a file, a folder or a URI, got none there; correct the path")
        found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    files = [file for file in found if not file.name.startswith((".", "_")) or len(found) == 1]
    if not files:
        raise DataError(f"SOURCE is {source}: expected a folder with files, got an empty one; correct the path")
    return files


def read_start(file: TableFile, size: int = 65_536) -> bytes:
    """Return the first bytes of a file, unpacked."""
    with open_binary(file) as opened:
        return opened.read(size)


def read_lines(file: TableFile, tally: Tally) -> Iterator[tuple[bytes, SourcePlace]]:
    """Yield the lines that are not empty, without their ends; a line that is too long is skipped."""
    with open_binary(file) as opened:
        number = 0
        while line := opened.readline(LONGEST_LINE + 1):
            number += 1
            place = SourcePlace(str(file), number)
            if len(line) > LONGEST_LINE and not line.endswith(b"\n"):
                while (rest := opened.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                    pass
                tally.read["other"] += 1
                tally.skip("other", f"a line of more than {LONGEST_LINE >> 20} MiB", place)
                continue
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if line.strip():
                yield line.rstrip(b"\r\n"), place


def read_objects(file: TableFile, tally: Tally) -> Iterator[tuple[dict[str, Any], SourcePlace]]:
    """Yield the JSON objects of a file with one on each line; other lines are skipped and counted."""
    for line, place in read_lines(file, tally):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            value = None
        if isinstance(value, dict):
            yield value, place
            continue
        if place.number == 1 and line.lstrip().startswith(b"["):
            raise DataError(
                f"{file}: expected one JSON object on each line, got a JSON array; convert it: jq -c '.[]' {file}"
            )
        tally.read["other"] += 1
        tally.skip("other", "a line that is no JSON object", place)
