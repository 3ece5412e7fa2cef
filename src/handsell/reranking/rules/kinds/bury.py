"""Bury: lower items in the slate."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from handsell.reranking.rules.kind import RuleEffect, RuleKind, RuleMatch
from handsell.reranking.rules.schema import Rule


class Bury(Rule):
    """Rank the items by relevance · factor - subtract; relevance is 0 to 1 within the request."""

    factor: float = Field(1.0, ge=0, le=1)
    subtract: float = Field(0.0, ge=0, le=2)

    @model_validator(mode="after")
    def _check_effect(self) -> Self:
        if self.factor == 1 and self.subtract == 0:
            raise ValueError("expected a factor below 1 or a subtract above 0; got neither")
        return self

    def summary(self) -> str:
        parts = (f"× {self.factor:g}" if self.factor != 1 else "", f"- {self.subtract:g}" if self.subtract else "")
        return " ".join(part for part in parts if part)


class BuryEffect(RuleEffect[Bury]):
    def weigh(self, match: RuleMatch) -> tuple[float, float]:
        return self.rule.factor, -self.rule.subtract


BURY = RuleKind("bury", Bury, BuryEffect, order=50, example={"factor": 0.5})
