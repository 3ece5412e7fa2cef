"""Find out how a CSV file is written: encoding, delimiter, quotes, and the columns of its header."""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import duckdb

from handsell.core.errors import DataError
from handsell.data.config import CsvFormat
from handsell.data.readers.formats.encoding import CodingError, TextForm, examine_text
from handsell.data.readers.formats.file_access import TableFile, open_binary

DELIMITERS = (",", ";", "\t", "|", "\x01")
HEAD_LINES = 100
SAMPLE_LINES = 20_000
SAMPLE_CHARACTERS = 8 << 20
LONGEST_VALUE = 1 << 30
SEPARATOR_LINE = re.compile(r"^\ufeff?\"?sep=(.)\"?\s*$", re.IGNORECASE)  # as Excel writes it


@dataclass(frozen=True)
class Dialect:
    """How one file is written."""

    form: TextForm
    delimiter: str
    quote: str  # "": no quotes
    escape: str  # the quote itself, or a backslash
    names: tuple[str, ...]  # of the columns, in order
    skipped: int = 0  # lines before the header
    header: bool = True
    comment: str | None = None

    def read_records(self, lines: Iterable[str], strict: bool = True) -> Any:
        """Parse lines with the standard library."""
        csv.field_size_limit(LONGEST_VALUE)
        double = self.escape == self.quote
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quote or None,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            doublequote=double,
            escapechar=None if double or not self.quote else self.escape,
            strict=strict,
        )


def detect_dialect(file: TableFile, options: CsvFormat, wanted: Sequence[str]) -> Dialect:
    """Detect what the options leave open; `wanted` are columns that the table should have.

    Raises DataError for a file that cannot be decoded.
    """
    status = file.stat() if isinstance(file, Path) else None
    try:
        form = examine_text(file, _key(status), options.encoding)
    except CodingError as error:
        raise _explain(file, options, wanted, error) from None
    return _detect(file, form, options, wanted)


def _key(status) -> tuple[int, int] | None:
    return None if status is None else (status.st_size, status.st_mtime_ns)


def _detect(file: TableFile, form: TextForm, options: CsvFormat, wanted: Sequence[str], strict: bool = True) -> Dialect:
    with open_text(file, form) as text:
        lines = list(islice(text, HEAD_LINES))
    first, delimiter = _find_header(lines, options, wanted)
    rest = lines[first:]
    if options.names and not rest:
        rest = [options.delimiter or ","]
    if not "".join(rest).strip():
        raise DataError(f"{file} is empty: expected a header line and rows; correct the path or the file")
    delimiter = options.delimiter or delimiter or _choose_delimiter(rest, options.names or wanted)
    quote, escape = _detect_quotes(file, form, options, delimiter, first)
    names = options.names or tuple(_split(rest, delimiter, quote, escape))
    dialect = Dialect(form, delimiter, quote, escape, names, first, not options.names, options.comment)
    if strict:
        _require_unique(file, dialect)
    return dialect


def _find_header(lines: list[str], options: CsvFormat, wanted: Sequence[str]) -> tuple[int, str | None]:
    """Return the number of lines before the header, and the delimiter that a line `sep=;` names."""
    delimiter, first = None, options.skip_lines
    comments = []
    for number in range(first, len(lines)):
        line = lines[number]
        if found := SEPARATOR_LINE.match(line):
            delimiter, first = found[1], number + 1
        elif not line.strip() or (options.comment and line.startswith(options.comment)):
            first = number + 1
        elif line.startswith("#") and not options.names and not options.comment:
            comments.append(number)
            first = number + 1
        else:
            break
    if comments and _count_wanted(lines[first:], wanted) <= _count_wanted(lines[comments[-1] :], wanted):
        first = comments[-1]  # the line that begins with # is the header
    return first, delimiter


def _count_wanted(lines: list[str], wanted: Sequence[str]) -> int:
    return max(_score(lines, delimiter, wanted)[0] for delimiter in DELIMITERS) if lines else 0


def _choose_delimiter(lines: list[str], wanted: Sequence[str]) -> str:
    """Return the delimiter that splits the header into most wanted columns, then into most columns."""
    return max(DELIMITERS, key=lambda delimiter: _score(lines, delimiter, wanted))


def _score(lines: list[str], delimiter: str, wanted: Sequence[str]) -> tuple[int, int]:
    names = _split(lines, delimiter, '"', '"')
    known = {name.strip().casefold() for name in wanted}
    return len({name.strip().casefold() for name in names} & known), len(names)


def _split(lines: Sequence[str], delimiter: str, quote: str, escape: str) -> list[str]:
    """Return the fields of the first record."""
    try:
        return next(Dialect(TextForm(""), delimiter, quote, escape, ()).read_records(lines), [])
    except csv.Error:
        return lines[0].rstrip("\r\n").split(delimiter)


def _detect_quotes(
    file: TableFile, form: TextForm, options: CsvFormat, delimiter: str, skipped: int
) -> tuple[str, str]:
    """Return quote and escape. DuckDB decides between " and ' on the first lines, backslashes on all."""
    quote = options.quote
    if quote is None:
        quote = "'" if _sniff_quote(file, form, delimiter, skipped) == "'" else '"'
    if options.escape:
        return quote, options.escape
    return quote, "\\" if form.backslashes and quote == '"' else quote


def _sniff_quote(file: TableFile, form: TextForm, delimiter: str, skipped: int) -> str:
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as database:
        sample = Path(folder, "sample.csv")
        with open_text(file, form) as text, sample.open("w", encoding="utf-8", newline="") as out:
            size, apostrophe = 0, False
            for line in islice(text, skipped, SAMPLE_LINES):
                out.write(line)
                apostrophe = apostrophe or f"{delimiter}'" in line or line.startswith("'")
                if (size := size + len(line)) > SAMPLE_CHARACTERS:
                    break
        if not apostrophe:
            return '"'
        try:
            found = database.execute(
                "SELECT Quote FROM sniff_csv(?, delim = ?, header = true, all_varchar = true)", [str(sample), delimiter]
            ).fetchone()
        except duckdb.Error:
            return '"'
    return found[0] if found else '"'


def _require_unique(file: TableFile, dialect: Dialect) -> None:
    named = [name.strip() for name in dialect.names if name.strip()]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise DataError(f"{file}: expected one column of each name, got several named {', '.join(twice)}; rename them")


@contextmanager
def open_text(file: TableFile, form: TextForm, end: int | None = None) -> Iterator[IO[str]]:
    """Open a file as text with its line ends; `end`: read only so many bytes."""
    encoding = "utf-8-sig" if form.encoding == "utf-8" else form.encoding
    with open_binary(file) as raw:
        source = cast(IO[bytes], io.BufferedReader(_Start(raw, end))) if end is not None else raw
        with io.TextIOWrapper(source, encoding=encoding, errors=form.errors, newline="") as text:
            yield text


class _Start(io.RawIOBase):
    """The first bytes of a file."""

    def __init__(self, raw: IO[bytes], size: int) -> None:
        self._raw, self._left = raw, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self._raw.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def _explain(file: TableFile, options: CsvFormat, wanted: Sequence[str], error: CodingError) -> DataError:
    """Return the error of text that cannot be decoded, with line and column."""
    if error.offset < 0:
        return DataError(f"{file}: expected CSV text, got {error.got}; export it as CSV, or correct its name")
    form = TextForm(error.encoding, errors="replace")
    dialect = _detect(file, form, options, wanted, strict=False)
    record, line = [""], 1
    with open_text(file, form, error.offset + 1) as text:
        records = dialect.read_records(text, strict=False)
        for record in records:  # noqa: B007
            line = records.line_num
    place = len(record) - 1
    name = dialect.names[place] if place < len(dialect.names) else f"number {place + 1}"
    return DataError(
        f"{file}: line {line}, column {name}: expected text in UTF-8, UTF-16 or Windows-1252, got {error.got}; save "
        'the file as UTF-8, or name its encoding: csv = { encoding = "…" } in the section of the table'
    )
