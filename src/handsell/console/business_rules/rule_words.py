"""Business rules in words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from handsell.reranking.rules.description import RuleDescription
from handsell.reranking.rules.kind import rule_kinds
from handsell.reranking.rules.kinds.boost import Boost
from handsell.reranking.rules.kinds.bury import Bury
from handsell.reranking.rules.kinds.exclude import Exclude
from handsell.reranking.rules.kinds.include import Include
from handsell.reranking.rules.kinds.pin import Pin
from handsell.reranking.rules.kinds.quota import Quota
from handsell.reranking.rules.schema import Rule

DAY_WORDS = {
    "mon": "Monday", "tue": "Tuesday", "wed": "Wednesday", "thu": "Thursday", "fri": "Friday", "sat": "Saturday",
    "sun": "Sunday",
}  # fmt: skip
KIND_WORDS = {
    "exclude": "Never show", "pin": "Show at a fixed position", "include": "Show at least one",
    "quota": "Give a share of what is shown", "boost": "Rank higher", "bury": "Rank lower",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RuleInWords:
    name: str
    effect: str
    items: str  # which ones
    item_count: int
    where: str
    when: str
    state: str  # applies now, or why it does not
    is_active: bool
    keeps_out: tuple[str, ...] | None  # surfaces on which it removes its items now, empty: all; None: it removes none


def put_in_words(one: RuleDescription) -> RuleInWords:
    rule = one.rule
    arm = f"for people in the arm {rule.arm}" + (f" of {rule.experiment}" if rule.experiment else "")
    keeps_out = rule.surfaces if isinstance(rule, Exclude) and one.is_in_time and not rule.arm else None
    state = "applies now" if one.is_in_time else "not at this time"
    return RuleInWords(
        rule.name, describe_effect(rule), describe_selection(rule), one.items,
        ", ".join(rule.surfaces) or "everywhere", describe_times(rule),
        f"{state}, {arm}" if rule.arm else state, one.is_in_time, keeps_out,
    )  # fmt: skip


def name_kind(kind: str) -> str:
    """Return what a kind of rules does, in a few words; that of a plug-in says it in its own."""
    if kind in KIND_WORDS:
        return KIND_WORDS[kind]
    doc = rule_kinds()[kind].schema.__doc__ or kind
    return doc.strip().splitlines()[0].rstrip(".")


def describe_effect(rule: Rule) -> str:
    match rule:
        case Exclude():
            return "Never show them"
        case Pin():
            return f"Show the best of them at position {rule.position}"
        case Include():
            place = f"in the first {rule.within} positions" if rule.within else "in each list"
            return f"Show at least one of them {place}"
        case Quota():
            return _describe_quota(rule)
        case Boost():
            return "Rank them higher" + _describe_weight(rule.factor, rule.add, "+")
        case Bury():
            return "Rank them lower" + _describe_weight(rule.factor, rule.subtract, "−")
    return f"{name_kind(rule.kind)} ({rule.summary()})"


def _describe_quota(rule: Quota) -> str:
    of = "of what is shown in a day" if rule.per == "day" else "of each list"
    first = f", in the first {rule.within} positions" if rule.within else ""
    if rule.share is not None:
        return f"Give them {rule.share:.0%} {of}{first}"
    bounds = [f"at least {rule.least:.0%}"] if rule.min_share is not None else []
    bounds += [f"at most {rule.most:.0%}"] if rule.max_share is not None else []
    return f"Give them {' and '.join(bounds)} {of}{first}"


def _describe_weight(factor: float, added: float, sign: str) -> str:
    parts = ([f"× {factor:g}"] if factor != 1 else []) + ([f"{sign} {added:g}"] if added else [])
    return f" (relevance {' '.join(parts)})"


def describe_selection(rule: Rule) -> str:
    parts = [f"items with {rule.items}"] if rule.items else []
    if rule.newer_than_days is not None:
        parts.append(f"published in the last {rule.newer_than_days:g} days")
    if rule.creator_items_at_most is not None:
        parts.append(f"by creators with at most {rule.creator_items_at_most} items")
    text = ", ".join(parts)
    return text if rule.items else f"items {text}"


def describe_times(rule: Rule) -> str:
    """Return when a rule applies, in its time zone."""
    parts = [f"from {_format(rule.from_)}"] if rule.from_ else []
    parts += [f"until {_format(rule.until)}"] if rule.until else []
    if rule.days:
        parts.append("on " + ", ".join(DAY_WORDS[day] for day in rule.days))
    if rule.hours:
        parts.append(f"at {rule.hours.replace('-', ' to ')}")
    return f"{' '.join(parts)} ({rule.time_zone})" if parts else "always"


def _format(time: datetime) -> str:
    return f"{time:%Y-%m-%d}" if time.time() == datetime.min.time() else f"{time:%Y-%m-%d %H:%M}"
