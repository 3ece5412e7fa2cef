"""Include: at least one item in the slate."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from handsell.reranking.rules.kind import RuleEffect, RuleKind, RuleMatch
from handsell.reranking.rules.schema import LONGEST_SLATE, Position, Rule


class Include(Rule):
    """Show at least one of the items in the first `within` positions."""

    within: Position | None = Field(None, description="not set: the whole slate")

    def summary(self) -> str:
        return "–" if self.within is None else f"in the first {self.within}"


class IncludeEffect(RuleEffect[Include]):
    @property
    def within(self) -> int:
        return self.rule.within or LONGEST_SLATE

    def bounds(self, match: RuleMatch, width: np.ndarray) -> tuple[int, np.ndarray]:
        return 1, width


INCLUDE = RuleKind("include", Include, IncludeEffect, order=30, example={"within": 3})
