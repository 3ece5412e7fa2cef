"""Pin: put an item at a fixed position."""

from __future__ import annotations

from handsell.reranking.rules.kind import RuleEffect, RuleKind
from handsell.reranking.rules.schema import Position, Rule


class Pin(Rule):
    """Show the best of the items at this position."""

    position: Position

    def summary(self) -> str:
        return f"at {self.position}"


class PinEffect(RuleEffect[Pin]):
    @property
    def position(self) -> int:
        return self.rule.position


PIN = RuleKind("pin", Pin, PinEffect, order=20, example={"position": 2})
