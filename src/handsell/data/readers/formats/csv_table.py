"""Read a CSV file with DuckDB in batches of text columns. Errors name file, line and column."""

from __future__ import annotations

import csv
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import duckdb
import pyarrow as pa

from handsell.core.errors import DataError
from handsell.data.config import CsvFormat
from handsell.data.readers.formats.dialect import Dialect, detect_dialect, open_text
from handsell.data.readers.formats.encoding import TextForm
from handsell.data.readers.formats.file_access import TableFile, has_suffix

LONGEST_LINE = 16 << 20  # bytes of a record
BUFFER = 32 << 20
GLOB = re.compile(r"[*?\[\]{}]")
COUNTED = 1 << 17  # rows per step
COPIED = 1 << 20  # characters per step


@dataclass(frozen=True)
class CsvTable:
    """A CSV file; `wanted` are columns that it should have, which helps to find the delimiter."""

    file: TableFile
    options: CsvFormat
    wanted: tuple[str, ...]

    @cached_property
    def dialect(self) -> Dialect:
        return detect_dialect(self.file, self.options, self.wanted)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns; columns without a name are left out."""
        return tuple(name for name in self.dialect.names if name.strip())

    def read(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the columns as text, `rows` rows at a time; empty values are null."""
        places = [self.dialect.names.index(name) for name in columns]
        try:
            with _open_for_duckdb(self.file, self.dialect) as (path, plain), _connect() as database:
                left = self.dialect.header
                for batch in _query(database, path, plain, places, rows):
                    part = batch.slice(1) if left else batch
                    left = left and not len(batch)
                    if len(part):
                        yield pa.RecordBatch.from_arrays(part.columns, names=list(columns))
        except (duckdb.Error, pa.ArrowInvalid, OSError, csv.Error) as error:
            raise self._explain(error) from None

    def count_rows(self) -> int:
        return sum(len(batch) for batch in self.read(self.names[:1], COUNTED))

    def find_lines(self, rows: Sequence[int]) -> dict[int, int]:
        """Return the lines on which rows begin; rows count from 1 without the header, lines from 1 with it."""
        wanted, lines = set(rows), dict[int, int]()
        try:
            for number, (line, _) in enumerate(read_records(self.file, self.dialect), start=not self.dialect.header):
                if number in wanted:
                    lines[number] = line
                if len(lines) == len(wanted):
                    break
        except csv.Error:
            pass  # lines of the rows before it are known
        return lines

    def _explain(self, error: Exception) -> DataError:
        """Return the error of a file that DuckDB cannot parse, with the first line that does not fit."""
        names = self.dialect.names
        expected = len(names) - (not names[-1].strip())
        line = 0
        try:
            for line, record in read_records(self.file, self.dialect):
                if len(record) != expected and not (len(record) == expected + 1 and not record[-1]):
                    hint = (
                        "quote values that contain the delimiter or line breaks"
                        if len(record) > expected
                        else ("add the missing values")
                    )
                    got = f"expected {expected} columns, got {len(record)}"
                    return self._error(line, f"after column {names[min(len(record), expected) - 1]}: {got}", hint)
        except csv.Error:
            return self._error(*self._find_open_quote(line))
        return DataError(f"{self.file} cannot be read: {str(error).splitlines()[0]}; correct or remove the file")

    def _find_open_quote(self, before: int) -> tuple[int, str, str]:
        """Return the place of the first quote after the line `before` that is not closed, or that text follows."""
        hint = "write quotes in values twice"
        with open_text(self.file, self.dialect.form) as text:
            for number, line in enumerate(text, start=1):
                if number > before and (problem := self._find_quote_problem(line)):
                    return number, problem, hint
        return before, "expected closing quotes, got none", hint

    def _find_quote_problem(self, line: str) -> str | None:
        try:
            list(self.dialect.read_records([line]))
            return None
        except csv.Error as error:
            follows, end = "expected after" in str(error), len(line)
        if follows:
            end = next(n for n in range(1, end + 1) if self._is_followed(line[:n]))
        place = len(next(self.dialect.read_records([line[:end]], strict=False)))
        name = self.dialect.names[min(place, len(self.dialect.names)) - 1]
        got = "text after a closing quote" if follows else "an open quote"
        return f"column {name}: expected a value in quotes, got {got}"

    def _is_followed(self, start: str) -> bool:
        try:
            list(self.dialect.read_records([start]))
        except csv.Error as error:
            return "expected after" in str(error)
        return False

    def _error(self, line: int, what: str, hint: str) -> DataError:
        d = self.dialect
        return DataError(
            f"{self.file}: line {line}, {what} (delimiter {d.delimiter!r}, quote {d.quote!r}, escape {d.escape!r}); "
            f"{hint}, or set csv = {{ delimiter = …, quote = …, escape = … }} in the section of the table"
        )


def read_records(file: TableFile, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yield the header and each row with the line on which it begins; slow, for errors and unusual files."""
    with open_text(file, dialect.form) as text:
        lines = _Lines(text, dialect)
        for record in dialect.read_records(lines):
            if record or len(dialect.names) == 1:
                yield lines.start, record
            lines.inside = False


class _Lines:
    """The lines of a file after those to skip, without comments between records."""

    def __init__(self, text: IO[str], dialect: Dialect) -> None:
        self._text, self._comment = text, dialect.comment
        self.number = self.start = dialect.skipped
        self.inside = False  # a record
        for _ in range(dialect.skipped):
            text.readline()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while line := self._text.readline():
            self.number += 1
            if self.inside:
                return line
            if not (self._comment and line.startswith(self._comment)):
                self.start, self.inside = self.number, True
                return line
        raise StopIteration


@contextmanager
def _open_for_duckdb(file: TableFile, dialect: Dialect) -> Iterator[tuple[Path, Dialect]]:
    """Return a file that DuckDB can read, and its dialect: the file itself, or a copy in UTF-8.

    DuckDB loses rows if it skips lines with quotes, or if records end in different ways; such files are written again.
    """
    form = dialect.form
    utf8 = form.encoding in ("utf-8", "utf-8-sig", "ascii")
    rewritten = dialect.skipped or dialect.comment or len(form.line_ends) > 1
    if isinstance(file, Path) and utf8 and not rewritten and not GLOB.search(str(file)):
        yield file, dialect
        return
    with tempfile.TemporaryDirectory(prefix="handsell-csv-") as folder:
        copy = Path(folder, "table.csv")
        with copy.open("w", encoding="utf-8", newline="") as out:
            if rewritten:
                csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(
                    record for _, record in read_records(file, dialect)
                )
            else:
                with open_text(file, form) as text:
                    while part := text.read(COPIED):
                        out.write(part)
        plain = Dialect(TextForm("utf-8", line_ends=frozenset("\n")), ",", '"', '"', dialect.names, 0, dialect.header)
        yield copy, plain if rewritten else dialect


def _connect() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(
        config={"threads": 1, "autoinstall_known_extensions": False, "autoload_known_extensions": False}
    )


def _query(
    database: duckdb.DuckDBPyConnection, path: Path, dialect: Dialect, places: list[int], rows: int
) -> Iterator[pa.RecordBatch]:
    # names, header and skip would make DuckDB rename columns or lose rows, so the header is read as a row
    columns = ", ".join(f"'c{k}': 'VARCHAR'" for k in range(len(dialect.names)))
    query = (
        f"SELECT {', '.join(f'c{k}' for k in places)} FROM read_csv(?, auto_detect = false, header = false, delim = ?, "
        f"quote = ?, escape = ?, columns = {{{columns}}}, compression = ?, max_line_size = {LONGEST_LINE}, "
        f"buffer_size = {BUFFER})"
    )
    # without new_line, DuckDB takes a line end in quotes for that of the file; with "\\r\\n", it loses rows
    if dialect.form.line_ends <= {"\n"}:
        query = query.replace(", header", r", new_line = '\n', header")
    packed = "gzip" if has_suffix(path, (".gz",)) else "none"
    values = [str(path), dialect.delimiter, dialect.quote, dialect.escape if dialect.quote else "", packed]
    yield from database.execute(query, values).to_arrow_reader(rows)
