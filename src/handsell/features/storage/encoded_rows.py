"""Feature rows as the online store has them: a column is decoded when it is first read.

An answer that is given again needs two numbers of a row, and the rest only as bytes, of which its key is made. Kernels
read the cells themselves (`encoded_states`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from types import MappingProxyType
from typing import Any

import numpy as np
import orjson

from handsell.core.kernels import compiled

NOTHING: Mapping[str, list[Any]] = MappingProxyType({})
Cells = dict[str, list[bytes | None]]
"""Column name → encoded cells, None where there is none."""


class EncodedRows(Mapping[str, list[Any]]):
    """Column name → B decoded cells, None where there is none.

    `cells` has the columns of `fields` and may have more; `decode` returns the values of a column by its field of
    Feast's Value. `changed` has the values of columns whose cells do not count.
    """

    def __init__(
        self, cells: Cells, fields: Mapping[str, str], decode: Callable[[Sequence[bytes | None], str], list[Any]],
        changed: Mapping[str, list[Any]] = NOTHING,
    ):  # fmt: skip
        self._cells, self._fields, self._decode, self._changed = cells, fields, decode, changed
        self._decoded: dict[str, list[Any]] = dict(changed)

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
        changed = {
            name: [None if place is None else values[place] for place in places]
            for name, values in self._changed.items()
        }
        return EncodedRows(cells, self._fields, self._decode, changed)

    def change(self, columns: Mapping[str, list[Any]]) -> EncodedRows:
        """Return the rows with other values (B,) of some columns."""
        return EncodedRows(self._cells, self._fields, self._decode, {**self._changed, **columns})

    def find_cells(self, name: str, field: str) -> list[bytes | None] | None:
        """Return the encoded cells (B,) of a column; None where it is not of this field."""
        return self._cells[name] if self._fields.get(name) == field and name not in self._changed else None

    def read_floats(self, names: Sequence[str]) -> np.ndarray | None:
        """Return columns of numbers as (B, F) float64, NaN where there is none; None where the kernel cannot."""
        if compiled is None or not names or not self.has(set(names)) or not self._changed.keys().isdisjoint(names):
            return None
        columns = [self._cells[name] for name in names]
        out = np.empty((len(columns[0]), len(names)))
        return out if compiled.read_cells(columns, out) else None

    def list_bytes(self, row: int) -> list[bytes | None]:
        """Return the encoded cells of one row, in the order of the columns: equal bytes are equal values.

        Raises orjson.JSONEncodeError for a changed value that JSON does not have.
        """
        cells, changed = self._cells, self._changed
        found = [None if name in changed else cells[name][row] for name in self._fields]
        return [*found, orjson.dumps({name: values[row] for name, values in changed.items()})] if changed else found
