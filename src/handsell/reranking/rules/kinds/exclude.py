"""Exclude: remove items from slates."""

from __future__ import annotations

import numpy as np

from handsell.reranking.rules.kind import RuleEffect, RuleKind, RuleMatch
from handsell.reranking.rules.schema import Rule


class Exclude(Rule):
    """Never show the items."""

    def summary(self) -> str:
        return "–"


class ExcludeEffect(RuleEffect[Exclude]):
    def remove(self, match: RuleMatch) -> np.ndarray:
        return match.matching


EXCLUDE = RuleKind("exclude", Exclude, ExcludeEffect, order=10)
