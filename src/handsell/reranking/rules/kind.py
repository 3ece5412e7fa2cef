"""Rule kinds are plug-ins: the keys that a kind reads from the rules file, and what its rules do to slates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from pydantic import create_model

from handsell.catalog.snapshot import Snapshot
from handsell.core.batches import Requests
from handsell.core.plugins import Plugin, find_plugins
from handsell.reranking.rules.schema import LONGEST_SLATE, Rule
from handsell.reranking.selection import Constraint

R = TypeVar("R", bound=Rule)


@dataclass(frozen=True, slots=True)
class RuleMatch:
    """One rule on B requests with K items each."""

    requests: Requests
    items: np.ndarray  # (B, K) int32, -1 padded
    matching: np.ndarray  # (B, K) bool, the rule's items, in requests for which the rule is active
    active: np.ndarray  # (B,) bool, requests for which the rule is active


class RuleEffect(Generic[R]):
    """What one rule does to slates. Built once for each version of the rules and of the catalog; holds no other state.

    A kind overrides the members that it needs. They are applied in this order: `remove`; `position` and `bounds`, in
    the order of the kinds; `weigh`, which orders the other candidates; `constraint`, while the slate is selected.
    An item that a position or a lower bound needs and that is no candidate is taken from the catalog.
    """

    def __init__(self, rule: R, snapshot: Snapshot):
        """Raise ValueError if the catalog lacks what the rule needs."""
        self.rule, self.snapshot = rule, snapshot

    @property
    def position(self) -> int | None:
        """Position (1 = top) of the rule's best item."""
        return None

    @property
    def within(self) -> int:
        """Positions from the top to which `bounds` and `daily_share` refer."""
        return LONGEST_SLATE

    @property
    def daily_share(self) -> tuple[float, float] | None:
        """Least and greatest share of a day's impressions for the rule's items, kept by pacing (pacing.py)."""
        return None

    def remove(self, match: RuleMatch) -> np.ndarray:
        """Return (B, K) bool, items that are not shown."""
        return np.zeros_like(match.matching)

    def bounds(self, match: RuleMatch, width: np.ndarray) -> tuple[Any, Any]:
        """Return the least and greatest number of the rule's items in the first `width` (B,) positions: int or (B,).

        `width` is `within`, or the number of positions that the caller sees if that is less.
        """
        return 0, width

    def weigh(self, match: RuleMatch) -> tuple[Any, Any]:
        """Return factor and addend of the relevance of matching items: float or (B, K).

        Relevance is 0 to 1 within the request. Factors of several rules are multiplied, addends are added after that.
        """
        return 1.0, 0.0

    def constraint(self, match: RuleMatch) -> Constraint | None:
        """Return a constraint on the order of the slate, such as a distance; it is relaxed if it cannot be satisfied.

        Its name is `self.label`.
        """
        return None

    @property
    def label(self) -> str:
        """Name of the rule in `Slates.constraints`."""
        return f"rule:{self.rule.name}"

    def overrides(self, member: str) -> bool:
        """Return whether the kind overrides this member."""
        return getattr(type(self), member) is not getattr(RuleEffect, member)


@dataclass(frozen=True)
class RuleKind(Plugin):
    """One kind of business rule."""

    package: ClassVar[str] = "handsell.reranking.rules.kinds"
    config: type[Rule]  # its keys; the first sentence of the docstring says what it does, for docs/rules.md
    effect: type[RuleEffect[Any]]
    order: int = 1_000  # precedence of positions and bounds, lowest first; of one kind the earlier rule in the file
    example: Mapping[str, Any] = field(default_factory=dict)  # own keys of a valid rule, for the contract tests

    @cached_property
    def schema(self) -> type[Rule]:
        """The config class with `kind` fixed to this kind's name."""
        kind: Any = Literal[self.name]
        fields: dict[str, Any] = {"kind": (kind, ...)}
        return create_model(self.config.__name__, __base__=self.config, __doc__=self.config.__doc__, **fields)


@cache
def rule_kinds() -> dict[str, RuleKind]:
    """Return every registered kind by name, in order of precedence."""
    return dict(sorted(find_plugins(RuleKind).items(), key=lambda found: found[1].order))
