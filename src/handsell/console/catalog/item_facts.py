"""What the page of an item shows beside its columns: where it may appear, and how it has been shown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handsell.console.business_rules.rule_words import RuleInWords
from handsell.console.catalog.catalog_search import describe_state
from handsell.console.catalog.shown_catalog import CatalogView
from handsell.console.figures.metric_words import name_model
from handsell.core.batches import NONE
from handsell.core.errors import FilterError
from handsell.eligibility.filters import find_user_attributes, get_filters
from handsell.events.item_exposure import ItemExposure

DAY_S = 86_400
LISTED_EVENTS = 4  # event types with a line of their own in the chart
NOWHERE = "It is available, but filters or rules keep it out of every list."
STATE_WORDS = {
    "available": "It can appear in recommendations.",
    "switched off": "It is switched off: it appears nowhere.",
    "not published yet": "Its time of publication is still to come: it appears from then on.",
    "expired": "It has expired: it no longer appears.",
    "deleted": "It is deleted: it appears nowhere, until it is added again.",
}


@dataclass(frozen=True, slots=True)
class ItemPlaces:
    """Whether an item can be recommended now, and on which surfaces a filter keeps it out."""

    number: int | None  # None: the catalog of the live bundle does not have it yet
    state: str
    words: str
    is_available: bool
    surfaces: tuple[tuple[str, str, bool], ...]  # name, what its filter says of this item, whether it may appear


@dataclass(frozen=True, slots=True)
class ExposureInWords:
    """`days` are epoch seconds; `series` has a value for each of them."""

    days: list[int]
    series: dict[str, list[int]]
    figures: list[tuple[str, str, str]]  # label, value, note
    surfaces: list[tuple[str, int, str]]  # name, impressions, share
    sources: list[tuple[str, int, str]]
    is_partial: bool


def find_places(view: CatalogView, item_id: str, rules: Sequence[RuleInWords] = ()) -> ItemPlaces:
    """`rules` are the served ones that select the item."""
    number = int(view.snapshot.items.number([item_id])[0])
    if number == NONE:
        return ItemPlaces(None, "new", "It is stored, and will appear within about a second.", False, ())
    state, is_available = describe_state(view.snapshot, number, view.now)
    places = []
    for name, surface in view.config.surfaces.items():
        if not is_available:
            places.append((name, state, False))
            continue
        verdict, may_appear = _judge(view, number, surface.filter)
        out = [rule.name for rule in rules if rule.keeps_out is not None and name in (rule.keeps_out or [name])]
        if out:
            verdict, may_appear = f"kept out by the rule {out[0]}", False
        places.append((name, verdict, may_appear))
    if is_available and places and not any(may_appear for _, _, may_appear in places):
        return ItemPlaces(number, state, NOWHERE, False, tuple(places))
    return ItemPlaces(number, state, STATE_WORDS[state], is_available, tuple(places))


def _judge(view: CatalogView, number: int, expression: str | None) -> tuple[str, bool]:
    if expression is None:
        return "no filter", True
    try:
        if find_user_attributes(expression):
            return f"its filter depends on the person: {expression}", True
        passes = bool(get_filters(view.snapshot).mask(expression)[number])
    except FilterError as error:
        return f"its filter cannot be used: {error}", False
    return (f"passes its filter: {expression}" if passes else f"kept out by its filter: {expression}"), passes


def describe_exposure(found: ItemExposure) -> ExposureInWords:
    days = [(found.first_day + day) * DAY_S for day in range(len(found.shown))]
    events = found.count_events()
    series = {"times shown": found.shown.tolist()}
    series |= {kind: found.events[kind].tolist() for kind in list(events)[:LISTED_EVENTS]}
    figures = [("Times shown", f"{found.impressions:,}", f"in {len(days)} days")]
    if found.position is not None:
        figures.append(("Average position", f"{found.position:.1f}", "1 is the top"))
    for kind, count in events.items():
        recommended = found.recommended.get(kind, 0)
        rate = f", {recommended / found.impressions:.1%} of times shown" if found.impressions and recommended else ""
        note = f"{recommended:,} from a recommendation{rate}"
        figures.append((kind.replace("_", " ").capitalize(), f"{count:,}", note))
    sources = {name_model(name): count for name, count in found.sources.items()}
    return ExposureInWords(
        days, series, figures, _share(found.surfaces, found.impressions), _share(sources, found.impressions),
        found.is_partial,
    )  # fmt: skip


def _share(counts: Mapping[str, int], of: int) -> list[tuple[str, int, str]]:
    return [(name, count, f"{count / of:.0%}" if of else "–") for name, count in counts.items()]


def list_columns(item: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the columns of an item as text, without those that its heading shows."""
    shown = ("item_id", "title", "creators", "tags", "available")
    return [(name.replace("_", " "), format_value(value)) for name, value in item.items() if name not in shown]


def format_value(value: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            return "yes" if value else "no"
        case int():
            return str(value)
        case float():
            return f"{value:g}" if abs(value) < 1e6 else f"{value:,.0f}"
        case list() if all(isinstance(one, str) for one in value):
            return ", ".join(value)
    return json.dumps(value, ensure_ascii=False)


def split_lines(text: str) -> list[str]:
    """Return the lines of a text that are not empty, each once."""
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def find_edits(before: Mapping[str, Sequence[str]], form: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the fields that a form changes, so that what somebody else has changed meanwhile stays."""
    changes: dict[str, Any] = {}
    if (tags := split_lines(_last(form, "tags"))) != split_lines(_last(before, "tags_before")):
        changes["tags"] = tags
    if (available := _last(form, "available")) != _last(before, "available_before"):
        changes["available"] = available == "on"
    return changes


def _last(form: Mapping[str, Sequence[str]], name: str) -> str:
    return (form.get(name) or [""])[-1]
