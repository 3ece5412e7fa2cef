"""Quota: a share of the impressions, of each slate or of the day."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from handsell.reranking.rules.kind import RuleEffect, RuleKind, RuleMatch
from handsell.reranking.rules.schema import LONGEST_SLATE, Position, Rule, Share


class Quota(Rule):
    """Give the items a share of the impressions in the first `within` positions, of the day or of each slate."""

    share: Share | None = Field(None, description="both the least and the greatest share")
    min_share: Share | None = None
    max_share: Share | None = None
    per: Literal["day", "slate"] = "day"
    within: Position | None = Field(None, description="not set: the whole slate")

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        names = {name for name in ("share", "min_share", "max_share") if getattr(self, name) is not None}
        if not names or ("share" in names and len(names) > 1):
            got = ", ".join(sorted(names)) or "none"
            raise ValueError(f"expected share alone, or min_share, max_share or both; got {got}")
        if self.least > self.most:
            raise ValueError(f"expected min_share up to max_share; got {self.least} and {self.most}")
        return self

    @property
    def least(self) -> float:
        return next((value for value in (self.share, self.min_share) if value is not None), 0.0)

    @property
    def most(self) -> float:
        return next((value for value in (self.share, self.max_share) if value is not None), 1.0)

    def summary(self) -> str:
        share = f"{self.least:.0%} to {self.most:.0%}" if self.share is None else f"{self.share:.0%}"
        return f"{share} of each {self.per}"


class QuotaEffect(RuleEffect[Quota]):
    @property
    def within(self) -> int:
        return self.rule.within or LONGEST_SLATE

    @property
    def daily_share(self) -> tuple[float, float] | None:
        return (self.rule.least, self.rule.most) if self.rule.per == "day" else None

    def bounds(self, match: RuleMatch, width: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.ceil(self.rule.least * width - 1e-9), np.floor(self.rule.most * width + 1e-9)


QUOTA = RuleKind("quota", Quota, QuotaEffect, order=40, example={"share": 0.2, "per": "slate"})
