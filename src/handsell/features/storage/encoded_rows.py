"""Feature rows as the online store has them: a column is decoded when it is first read.

An answer that is given again needs two numbers of a row, and the rest only as bytes, of which its key is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

Cells = dict[str, list[bytes | None]]
"""Column name → encoded cells, None where there is none."""


class EncodedRows(Mapping[str, list[Any]]):
    """Column name → B decoded cells, None where there is none.

    `cells` has the columns of `fields` and may have more; `decode` returns the values of a column by its field of
    Feast's Value.
    """

    def __init__(
        self, cells: Cells, fields: Mapping[str, str], decode: Callable[[Sequence[bytes | None], str], list[Any]]
    ):
        self._cells, self._fields, self._decode = cells, fields, decode
        self._decoded: dict[str, list[Any]] = {}

    def __getitem__(self, name: str) -> list[Any]:
        found = self._decoded.get(name)
        if found is None:
            found = self._decoded[name] = self._decode(self._cells[name], self._fields[name])
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def has(self, columns: Set[str]) -> bool:
        """Return whether there are these columns."""
        return self._fields.keys() >= columns

    def take(self, places: Sequence[int | None]) -> EncodedRows:
        """Return the rows at places (P,), an empty one for None."""
        cells = {
            name: [None if place is None else column[place] for place in places] for name, column in self._cells.items()
        }
        return EncodedRows(cells, self._fields, self._decode)

    def list_bytes(self, row: int) -> list[bytes | None]:
        """Return the encoded cells of one row, in the order of the columns: equal bytes are equal values."""
        cells = self._cells
        return [cells[name][row] for name in self._fields]
