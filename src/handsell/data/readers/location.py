"""The column that a value was read from, for error messages."""

from __future__ import annotations

from dataclasses import dataclass

from handsell.core.errors import DataError


@dataclass(slots=True)
class ColumnLocation:
    """A column of a file; keeps the unit of its epoch times, so that all batches of the file use the same one."""

    path: str
    column: str  # name in the file
    canonical: str
    epoch_unit: str | None = None  # a key of times.UNITS; None: not decided

    def error(self, expected: str, got: object) -> DataError:
        return DataError(
            f"{self.path}: column {self.column} ({self.canonical}): expected {expected}, got {got}; correct the "
            f"values, or map {self.canonical} to another column in the TOML"
        )


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
