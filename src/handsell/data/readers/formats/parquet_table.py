"""Read a Parquet file in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from handsell.core.errors import DataError
from handsell.data.readers.formats.file_access import TableFile, open_random_access


@dataclass(frozen=True)
class ParquetTable:
    file: TableFile
    row_groups: tuple[int, ...] | None = None  # None: all

    @property
    def names(self) -> tuple[str, ...]:
        with self._open() as file:
            return tuple(file.schema_arrow.names)

    def read(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        groups = list(self.row_groups) if self.row_groups is not None else None
        with self._open() as file:
            yield from file.iter_batches(rows, row_groups=groups, columns=list(columns))

    def count_rows(self) -> int:
        return sum(self.count_group_rows())

    def count_group_rows(self) -> list[int]:
        """Return the number of rows of each row group of the file."""
        with self._open() as file:
            return [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]

    def find_lines(self, rows: Sequence[int]) -> dict[int, int]:
        """Return {}: the rows of a Parquet file have no lines."""
        return {}

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        with open_random_access(self.file) as source:
            try:
                yield pq.ParquetFile(source)
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{self.file} is not readable Parquet: {error}; write it again, or remove it") from None
