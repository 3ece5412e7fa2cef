"""Arrays whose versions share memory: appended rows lie behind those that earlier versions show."""

from __future__ import annotations

import numpy as np

from handsell.core.batches import Ragged

SPARE = 1_024  # rows of room for later ones, at least
SPARE_SHARE = 16  # at least 1/16 of the rows


class GrowingArray:
    """The newest version of an array. Appending copies nothing while there is room; replacing rows copies once."""

    def __init__(self, base: np.ndarray):
        self._buffer, self._size, self._own = base, len(base), False

    @property
    def view(self) -> np.ndarray:
        """The present rows, read only: later changes do not show in it."""
        view = self._buffer[: self._size]
        view.flags.writeable = False
        return view

    def append(self, rows: np.ndarray) -> None:
        if not len(rows):
            return
        if not self._own or self._size + len(rows) > len(self._buffer):
            self._copy(len(rows))
        self._buffer[self._size : self._size + len(rows)] = rows
        self._size += len(rows)

    def replace(self, at: tuple[np.ndarray, ...] | np.ndarray, values: np.ndarray) -> None:
        """Set values at an index of existing rows."""
        if values.size:
            self._copy()
            self._buffer[at] = values

    def set(self, rows: np.ndarray) -> None:
        """Replace all rows by a new array."""
        self._buffer, self._size, self._own = rows, len(rows), False

    def _copy(self, more: int = 0) -> None:
        need = self._size + more
        fresh = np.empty((need + max(SPARE, need // SPARE_SHARE), *self._buffer.shape[1:]), self._buffer.dtype)
        fresh[: self._size] = self._buffer[: self._size]
        self._buffer, self._own = fresh, True


class GrowingRagged:
    """The newest version of rows of different length."""

    def __init__(self, base: Ragged):
        self._values, self._offsets = GrowingArray(base.values), GrowingArray(base.offsets)

    @property
    def view(self) -> Ragged:
        return Ragged(self._values.view, self._offsets.view)

    def append(self, rows: Ragged) -> None:
        self._offsets.append(rows.offsets[1:] + self._offsets.view[-1])
        self._values.append(rows.values)

    def replace(self, at: np.ndarray, rows: Ragged) -> None:
        """Replace existing rows `at` (R,) ascending."""
        if not len(at):
            return
        old = self.view
        ends, parts, before = old.offsets[at + 1], [], 0
        for r, (start, end) in enumerate(zip(old.offsets[at].tolist(), ends.tolist(), strict=True)):
            parts += [old.values[before:start], rows.row(r)]
            before = end
        offsets, shift = old.offsets.copy(), np.cumsum(rows.lengths - (ends - old.offsets[at]))
        for place, until, by in zip(at.tolist(), [*at[1:].tolist(), len(offsets) - 1], shift.tolist(), strict=True):
            offsets[place + 1 : until + 1] += by
        self._values.set(np.concatenate([*parts, old.values[before:]]))
        self._offsets.set(offsets)
