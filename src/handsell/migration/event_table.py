"""Write events of any source to one Parquet file, a batch at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from handsell.core.units import DAY_US
from handsell.data.readers.base import NULLABLE_EVENTS
from handsell.data.schemas import EVENTS
from handsell.migration.tally import SourcePlace, Tally
from handsell.migration.values import read_id, read_number, read_times

BATCH = 50_000
LONGEST_TYPE = 64  # characters, as in the HTTP API
FIELDS = ("event_id", "user_id", "item_id", "type", "time", "value", "surface", "recommendation_id", "position")
MOST_POSITION = 10_000
OPTIONAL_IDS = ("event_id", "surface", "recommendation_id")


class EventTable:
    """The events of an import; its counts by type and day say how the config should be written."""

    def __init__(self, path: Path, tally: Tally):
        self._path, self._tally = path, tally
        self._rows: list[dict[str, Any]] = []
        self._places: list[SourcePlace] = []
        self._writer: pq.ParquetWriter | None = None
        self.types, self.days = Counter[str](), Counter[int]()
        self.most: dict[str, float] = {}  # highest value by type
        self.last_us = -(2**63)

    def add(self, fields: Mapping[str, Any], place: SourcePlace) -> None:
        """Add an event with FIELDS, in any notation; one that cannot be an event is counted as skipped."""
        try:
            row = self._check(fields)
        except ValueError as error:
            self._tally.skip("events", str(error), place)
            return
        self._rows.append(row)
        self._places.append(place)
        if len(self._rows) >= BATCH:
            self._flush()

    def _check(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the row, with the time as it is; raises ValueError with the reason to skip the event."""
        user, item, kind = (_read_named_id(fields, name) for name in ("user_id", "item_id", "type"))
        if user is None:
            raise ValueError("no user")
        if item is None:
            raise ValueError("no item")
        if kind is None:
            raise ValueError("no type")
        if len(kind) > LONGEST_TYPE:
            raise ValueError(f"a type of more than {LONGEST_TYPE} characters")
        row: dict[str, Any] = {"user_id": user, "item_id": item, "type": kind, "time": fields.get("time")}
        for name in OPTIONAL_IDS:
            row[name] = _read_named_id(fields, name)
        row["value"] = self._read_number("value", fields)
        position = self._read_number("position", fields)
        if position is not None and not (1 <= position <= MOST_POSITION and position == int(position)):
            self._tally.drop("events", f"position that is not 1 to {MOST_POSITION}")
            position = None
        row["position"] = None if position is None else int(position)
        return row

    def _read_number(self, name: str, fields: Mapping[str, Any]) -> float | None:
        given = fields.get(name)
        number = read_number(given)
        if number is None and given is not None and str(given).strip():
            self._tally.drop("events", f"{name} that is no number")
        return number

    def _flush(self) -> None:
        if not self._rows:
            return
        times = read_times(
            [row["time"] for row in self._rows],
            str(self._path),
            lambda index, reason: self._tally.skip("events", reason, self._places[index]),
        )
        kept = [{**row, "time": time} for row, time in zip(self._rows, times, strict=True) if time is not None]
        self._rows, self._places = [], []
        if not kept:
            return
        columns = [pa.array([row.get(f.name) for row in kept], _storage(f.type)).cast(f.type) for f in NULLABLE_EVENTS]
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, EVENTS, compression="zstd")
        self._writer.write_table(pa.Table.from_arrays(columns, schema=EVENTS))
        self._tally.written["events"] += len(kept)
        self.types.update(row["type"] for row in kept)
        self.days.update(row["time"] // DAY_US for row in kept)
        self.last_us = max(self.last_us, *(row["time"] for row in kept))
        for row in kept:
            if row["value"] is not None:
                self.most[row["type"]] = max(row["value"], self.most.get(row["type"], row["value"]))

    def close(self) -> bool:
        """Write what is left; returns whether there is a file."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
        return self._writer is not None


def _read_named_id(fields: Mapping[str, Any], name: str) -> str | None:
    try:
        return read_id(fields.get(name))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _storage(kind: pa.DataType) -> pa.DataType:
    return pa.int64() if pa.types.is_timestamp(kind) else kind
