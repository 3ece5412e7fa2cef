"""Sequence files: a line is `user item item …`, oldest first; no clock.

Every user's sequence is aligned at its end: the last item of each at END, the one before a day earlier, and
so on. Windows in time that are cut between the days then leave the same number of last items out for all.
A file `*attributes*.json` beside it (item → list of attribute ids) gives tags.
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
from handsell.data.readers.base import SourcePart, event_batch, items_table, need_file, no_users
from handsell.data.schemas import STRINGS, TIME

END_US = 1_577_880_000_000_000  # 2020-01-01T12:00Z; noon, so that midnight parts two positions
LINES = 10_000  # per batch
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
        for users, items, lengths in _chunks(Path(part.path)):
            to_end = np.repeat(np.cumsum(lengths), lengths) - np.arange(1, lengths.sum() + 1)  # items after this one
            columns = {
                "user_id": pa.array(users).take(pa.array(np.repeat(np.arange(len(users)), lengths))),
                "item_id": pa.array(items, pa.string()),
                "type": pa.repeat(pa.scalar(TYPE), len(items)),
                "time": pa.array(END_US - to_end * DAY_US, TIME),
            }
            yield event_batch(0, start, columns)
            start += len(items)

    def items(self) -> pa.Table:
        """Items in order of first appearance, then those that only have attributes."""
        attributes = self._attributes()
        seen: dict[str, None] = {}
        for _, items, _ in _chunks(self.path):
            seen.update(dict.fromkeys(items))
        seen.update(dict.fromkeys(attributes))
        tags = [[f"attr_{a}" for a in attributes.get(item, ())] for item in seen]
        titles = [f"item {item}" for item in seen]
        return items_table(
            {"item_id": pa.array(seen, pa.string()), "title": pa.array(titles), "tags": pa.array(tags, STRINGS)}
        )

    def users(self) -> pa.Table:
        return no_users()

    def _attributes(self) -> dict[str, list]:
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


def _chunks(path: Path) -> Iterator[tuple[list[str], list[str], np.ndarray]]:
    """Users, all their items in a row, and how many each has: LINES lines at a time."""
    with need_file(path, "lines of `user item item …`").open(encoding="utf8") as file:
        try:
            while lines := list(islice(file, LINES)):
                rows = [row for row in map(str.split, lines) if len(row) > 1]
                if rows:
                    items = [item for row in rows for item in row[1:]]
                    yield [row[0] for row in rows], items, np.array([len(row) - 1 for row in rows])
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not text: {error}; expected lines of `user item item …`") from None


def looks_like(path: Path) -> bool:
    """Whether one of the first lines has a user and at least two items, with no separator but white space."""
    try:
        with path.open(encoding="utf8") as file:
            head = list(islice(file, 20))
    except UnicodeDecodeError:
        return False
    return any(len(line.split()) > 2 for line in head) and all(_plain(line) for line in head)


def _plain(line: str) -> bool:
    return all(token.replace("_", "").replace("-", "").isalnum() for token in line.split())
