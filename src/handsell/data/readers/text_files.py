"""Read delimited text as Arrow batches; errors name file, column, expected and received value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv

from handsell.core.errors import DataError
from handsell.data.readers.base import require_file

BLOCK_BYTES = 8 << 20
KINDS = {"string": "text", "float": "a number", "double": "a number", "int64": "a whole number"}


def read_batches(
    path: Path,
    columns: dict[str, pa.DataType],
    *,
    delimiter: str = ",",
    names: Sequence[str] | None = None,
    encoding: str = "utf8",
    quotes: bool = True,
) -> Iterator[pa.RecordBatch]:
    """Stream columns of a file, in the order of `columns`; `names` are the columns of a file without a header.

    Raises DataError for a missing or empty file, a missing column, or a value of another type.
    """
    header = tuple(names) if names else read_header(path, delimiter, encoding)
    require_columns(path, header, columns)
    try:
        reader = csv.open_csv(
            path,
            read_options=csv.ReadOptions(
                block_size=BLOCK_BYTES, column_names=header, skip_rows=0 if names else 1, encoding=encoding
            ),
            parse_options=csv.ParseOptions(delimiter=delimiter, quote_char='"' if quotes else False),
            convert_options=csv.ConvertOptions(
                column_types=columns, include_columns=list(columns), strings_can_be_null=True, null_values=[""]
            ),
        )
        yield from reader
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise build_parse_error(path, header, columns, error) from None


def read_table(path: Path, columns: dict[str, pa.DataType], **options) -> pa.Table:
    """Read a small file whole; options as for `read_batches`."""
    schema = pa.schema(list(columns.items()))
    return pa.Table.from_batches(read_batches(path, columns, **options), schema=schema)


def read_header(path: Path, delimiter: str, encoding: str = "utf8") -> tuple[str, ...]:
    """Return the column names of the first line."""
    with require_file(path, "a table with a header line").open(encoding=encoding, errors="replace") as file:
        line = file.readline().lstrip("\ufeff").rstrip("\r\n")
    if not line:
        raise DataError(f"{path} is empty: expected a header line and rows; correct the path or the file")
    return tuple(name.strip().strip('"') for name in line.split(delimiter))


def require_columns(path: Path, header: Sequence[str], columns: dict[str, pa.DataType]) -> None:
    missing = [name for name in columns if name not in header]
    if missing:
        raise DataError(
            f"{path}: expected columns {', '.join(columns)}; missing: {', '.join(missing)}; "
            f'got: {", ".join(header)}. Correct the header, or read it as your own table (data.format = "tables")'
        )


def build_parse_error(
    path: Path, header: Sequence[str], columns: dict[str, pa.DataType], error: Exception
) -> DataError:
    """Convert an Arrow error to a DataError that names column, row and value."""
    text = str(error)
    if "Empty CSV" in text:
        return DataError(f"{path} is empty: expected rows of {', '.join(columns)}; correct the path or the file")
    at = re.search(r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to (\w+).*?invalid value '(.*)'", text)
    if not at:
        return DataError(f"{path} is not readable as text with columns {', '.join(header)}: {text}; correct the file")
    name = header[int(at[1])] if int(at[1]) < len(header) else f"number {at[1]}"
    row = f" in row {at[2]}" if at[2] else ""
    return DataError(
        f"{path}: column {name}: expected {KINDS.get(at[3], at[3])}, got {at[4]!r}{row}; correct or remove that row"
    )
