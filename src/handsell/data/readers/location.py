"""The column that a value was read from, for error messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from handsell.core.errors import DataError


@dataclass(slots=True)
class ColumnLocation:
    """A column of a file; keeps the unit of its epoch times, so that all batches of the file use the same one."""

    path: str
    column: str  # name in the file
    canonical: str
    epoch_unit: str | None = None  # a key of times.UNITS; None: not decided
    rows: int = 0  # of the file before the current batch, without the header
    decimal: str | None = None  # decimal sign of numbers in text; None: not decided
    owners: Sequence[int] | None = None  # of the entries of lists: the row of each
    find_lines: Callable[[Sequence[int]], dict[int, int]] | None = None  # rows → lines of a text file

    def error(self, expected: str, got: object, row: int | None = None) -> DataError:
        """Return the error of a value; `row` is its place in the current batch."""
        where = "" if row is None else f" in {self.name_row(row)}"
        return DataError(
            f"{self.path}: column {self.column} ({self.canonical}): expected {expected}, got {got}{where}; correct the "
            f"values, or map {self.canonical} to another column in the TOML"
        )

    def name_row(self, row: int) -> str:
        """Return the number of a row of the current batch, counted from 1 without the header, and its line in CSV."""
        number = self.rows + int(row if self.owners is None else self.owners[row]) + 1
        line = self.find_lines([number]).get(number) if self.find_lines else None
        return f"row {number}" + (f" (line {line})" if line else "")


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
