"""A rule that keeps items of one brand, series or shelf apart."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from handsell.catalog.snapshot import Snapshot
from handsell.reranking.rules.kind import RuleEffect, RuleKind, RuleMatch
from handsell.reranking.rules.schema import Rule
from handsell.reranking.spacing import ItemGap


class Apart(Rule):
    """Show at least `gap` other items between two of the items that have the same value in `column`."""

    column: str = Field("brand", description="a column of the items with one text or number each")
    gap: int = Field(1, ge=1, le=29, description="items between the two")

    def summary(self) -> str:
        return f"{self.gap} between equal {self.column}"


class ApartEffect(RuleEffect[Apart]):
    def __init__(self, rule: Apart, snapshot: Snapshot):
        super().__init__(rule, snapshot)
        columns = snapshot.metadata.column_names
        if rule.column not in columns:
            raise ValueError(f"column: expected a column of the items ({', '.join(columns)}); got {rule.column!r}")
        values = snapshot.metadata[rule.column].combine_chunks()
        if pa.types.is_nested(values.type):
            raise ValueError(f"column: expected one text or number for each item; {rule.column!r} holds {values.type}")
        self.code = pc.fill_null(values.dictionary_encode().indices, -1).to_numpy()  # (I,) -1 for null

    def constraint(self, match: RuleMatch) -> ItemGap:
        code = np.where(match.matching, self.code[np.maximum(match.items, 0)], -1)
        equal = (code[:, :, None] == code[:, None, :]) & (code >= 0)[:, :, None]
        return ItemGap(equal, self.rule.gap, self.label)


APART = RuleKind("apart", Apart, ApartEffect, example={"column": "brand", "gap": 2})
