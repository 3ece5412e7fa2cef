"""Boost: raise items in the slate."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from handsell.reranking.rules.kind import RuleEffect, RuleKind, RuleMatch
from handsell.reranking.rules.schema import Rule


class Boost(Rule):
    """Rank the items by relevance · factor + add; relevance is 0 to 1 within the request."""

    factor: float = Field(1.0, ge=1, le=20)
    add: float = Field(0.0, ge=0, le=2)

    @model_validator(mode="after")
    def _check_effect(self) -> Self:
        if self.factor == 1 and self.add == 0:
            raise ValueError("expected a factor above 1 or an add above 0; got neither")
        return self

    def summary(self) -> str:
        parts = (f"× {self.factor:g}" if self.factor != 1 else "", f"+ {self.add:g}" if self.add else "")
        return " ".join(part for part in parts if part)


class BoostEffect(RuleEffect[Boost]):
    def weigh(self, match: RuleMatch) -> tuple[float, float]:
        return self.rule.factor, self.rule.add


BOOST = RuleKind("boost", Boost, BoostEffect, order=50, example={"factor": 1.5})
