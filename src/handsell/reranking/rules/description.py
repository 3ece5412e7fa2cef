"""What each rule of a file does, for tables of the command line and of the console."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from handsell.reranking.rules.ruleset import RuleSet
from handsell.reranking.rules.schema import Rule


@dataclass(frozen=True, slots=True)
class RuleDescription:
    rule: Rule
    items: int  # of the catalog, at the time of the description
    is_in_time: bool  # its dates, days and hours include that time


def describe_rules(ruleset: RuleSet, now: int) -> list[RuleDescription]:
    """Describe each enabled rule at now µs, in the order of the file."""
    in_time = ruleset.scope.find_in_time(np.array([now]))[:, 0]
    return [
        RuleDescription(rule, int(find_items(ruleset, r, now).sum()), bool(in_time[r]))
        for r, rule in enumerate(ruleset.rules.rules)
    ]


def find_items(ruleset: RuleSet, rule: int, now: int) -> np.ndarray:
    """Return (I,) bool, the items that a rule selects at now µs."""
    every = np.arange(len(ruleset.snapshot), dtype=np.int32)[None]
    return ruleset.matches(every, np.array([now]), [rule])[0, 0]


def find_rules_of_item(ruleset: RuleSet, item: int, now: int) -> list[RuleDescription]:
    """Return the rules that select an item at now µs, whether they apply at that time or not."""
    matching = ruleset.matches(np.array([[item]], np.int32), np.array([now]))[:, 0, 0]
    return [one for one, is_mine in zip(describe_rules(ruleset, now), matching, strict=True) if is_mine]
