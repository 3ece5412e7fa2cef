"""Attributes of items, as tags for content vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from handsell.catalog.snapshot import ALWAYS, NEVER, Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.core.batches import NONE, Ragged
from handsell.retrieval.content_vectors import Content, fit_content_vectors


@dataclass(frozen=True, slots=True)
class Attributes:
    """Ids and tags of I items, by item number."""

    items: Sequence[str]
    tags: Sequence[Sequence[str]]

    @classmethod
    def of(cls, items: Sequence[str], attributes: Mapping[str, Sequence[str]]) -> Attributes:
        return cls(items, [attributes.get(item, ()) for item in items])

    def fit_content(self, size: int) -> Content:
        """Fit content vectors of `size` dimensions as training does."""
        return fit_content_vectors(self._build_snapshot(), size, before=NEVER)

    def _build_snapshot(self) -> Snapshot:
        count = len(self.items)
        tags = Vocabulary.of(tag for row in self.tags for tag in row)
        return Snapshot(
            version=0, as_of=0, items=Vocabulary.of(self.items), creators=Vocabulary.of([]), tags=tags,
            creator=np.full(count, NONE, np.int32), item_tags=Ragged.from_rows([tags.number(row) for row in self.tags]),
            published=np.full(count, ALWAYS), expires=np.full(count, NEVER), available=np.ones(count, bool),
            values=np.zeros((count, 0), np.float32), value_names=(),
            metadata=pa.table({"item_id": pa.array(self.items, pa.string())}),
        )  # fmt: skip
