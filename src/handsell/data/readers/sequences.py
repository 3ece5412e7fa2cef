"""Sequence files: lines of `user item item …`, oldest first, without times.

Times are made up: each user's last item is at END_US, the one before a day earlier, and so on. Windows in whole days
then take the same number of last items from every user. Tags come from a file `*attributes*.json` in the same folder
(item → list of attribute ids).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from handsell.core.errors import DataError
from handsell.core.units import DAY_US
from handsell.data.readers.base import SourcePart, build_event_batch, build_items_table, empty_users, require_file
from handsell.data.schemas import STRINGS, TIME

END_US = 1_577_880_000_000_000  # 2020-01-01T12:00Z; noon, so that windows that begin at midnight fall between two items
LINES = 10_000  # lines per batch
TYPE = "click"


@dataclass(frozen=True)
class Sequences:
    path: Path
    attributes: Path | None = None
    ordered: ClassVar[bool] = False

    @property
    def source(self) -> str:
        return f"sequences:{self.path}"

    def files(self) -> list[Path]:
        return [self.path] + ([self.attributes] if self.attributes else [])

    def parts(self) -> list[SourcePart]:
        return [SourcePart(0, str(self.path))]

    def events(self, part: SourcePart) -> Iterator[pa.RecordBatch]:
        start = 0
        for users, items, lengths in _read_chunks(Path(part.path)):
            to_end = np.repeat(np.cumsum(lengths), lengths) - np.arange(1, lengths.sum() + 1)  # items after this one
            columns = {
                "user_id": pa.array(users).take(pa.array(np.repeat(np.arange(len(users)), lengths))),
                "item_id": pa.array(items, pa.string()),
                "type": pa.repeat(pa.scalar(TYPE), len(items)),
                "time": pa.array(END_US - to_end * DAY_US, TIME),
                "event_id": pa.array(np.arange(start, start + len(items))).cast(pa.string()),  # times are not real
            }
            yield build_event_batch(columns)
            start += len(items)

    def items(self) -> pa.Table:
        """Read the items in order of first appearance, then those with attributes only."""
        attributes = self._read_attributes()
        seen: dict[str, None] = {}
        for _, items, _ in _read_chunks(self.path):
            seen.update(dict.fromkeys(items))
        seen.update(dict.fromkeys(attributes))
        tags = [[f"attr_{a}" for a in attributes.get(item, ())] for item in seen]
        titles = [f"item {item}" for item in seen]
        return build_items_table(
            {"item_id": pa.array(seen, pa.string()), "title": pa.array(titles), "tags": pa.array(tags, STRINGS)}
        )

    def users(self) -> pa.Table:
        return empty_users()

    def _read_attributes(self) -> dict[str, list]:
        if self.attributes is None:
            return {}
        try:
            found = json.loads(self.attributes.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{self.attributes} is not readable JSON: {error}; correct or remove it") from None
        if not isinstance(found, dict) or not all(isinstance(v, list) for v in found.values()):
            raise DataError(
                f"{self.attributes}: expected an object of item → list of attribute ids; correct or remove it"
            )
        return found


def _read_chunks(path: Path) -> Iterator[tuple[list[str], list[str], np.ndarray]]:
    """Yield users, their items in sequence, and the number of items per user, LINES lines at a time."""
    with require_file(path, "lines of `user item item …`").open(encoding="utf8") as file:
        try:
            while lines := list(islice(file, LINES)):
                rows = [row for row in map(str.split, lines) if len(row) > 1]
                if rows:
                    items = [item for row in rows for item in row[1:]]
                    yield [row[0] for row in rows], items, np.array([len(row) - 1 for row in rows])
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: expected UTF-8 lines of `user item item …`, got {error}; convert the file"
            ) from None


def is_sequence_file(path: Path) -> bool:
    """Whether the first lines are words separated by white space, one of them with a user and two items or more."""
    try:
        with path.open(encoding="utf8") as file:
            head = list(islice(file, 20))
    except UnicodeDecodeError:
        return False
    return any(len(line.split()) > 2 for line in head) and all(_is_plain(line) for line in head)


def _is_plain(line: str) -> bool:
    return all(token.replace("_", "").replace("-", "").isalnum() for token in line.split())
