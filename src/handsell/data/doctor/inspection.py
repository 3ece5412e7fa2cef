"""The data doctor: reads the source once, before anything is trained, and says what it is good for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.config import Config
from handsell.core.units import DAY_US, HOUR_US
from handsell.data.doctor.checks import Symptoms
from handsell.data.doctor.doctor_report import EXAMPLES, DoctorReport, Finding, Spread, TypeCount
from handsell.data.doctor.view import render
from handsell.data.readers.base import Reader, read_all_events
from handsell.data.readers.detect import open_reader
from handsell.data.splits import Bounds

FEW_ITEMS = 50
FEW_INTERACTIONS = 2_000
FEW_WARM_USERS = 30
THIN_ITEM = 4


def examine(config: Config, progress: Callable[[str], None] = lambda text: None) -> DoctorReport:
    """Examine the deployment's source data, streamed; raises DataError where it cannot be read at all."""
    reader = open_reader(config, progress)
    items, users = reader.items(), reader.users()
    ids = (items["item_id"].combine_chunks().drop_null(), users["user_id"].combine_chunks().drop_null())
    symptoms = Symptoms(config.events, *ids, reader.ordered)
    for batch in read_all_events(reader):
        symptoms.add(batch)
    return conclude(config, reader, items, users, symptoms)


def conclude(config: Config, reader: Reader, items: pa.Table, users: pa.Table, symptoms: Symptoms) -> DoctorReport:
    by_user, by_item = symptoms.per_user.table(), symptoms.per_item.table()
    first, last = pc.min(by_user["first"]), pc.max(by_user["last"])
    span_us = last.value - first.value if last.is_valid else 0
    described, touched = symptoms.items, by_item["id"].combine_chunks()
    idle = pc.sum(pc.invert(pc.is_in(pc.unique(described), touched))).as_py() or 0
    split = config.split
    cold_users, warm_users = _cold(config, by_user, last, split.ranker_k + split.validation_k + split.test_k)
    pairs = symptoms.pairs.count
    found = [*symptoms.problems.values(), *_repeats(symptoms), *_of_items(items, by_item)]
    found += _of_windows(config, symptoms.hours, last, span_us, warm_users, reader.ordered)
    return DoctorReport(
        source=reader.source.partition(":{")[0],
        ordered=reader.ordered,
        events=symptoms.events,
        interactions=symptoms.interactions,
        users=len(by_user),
        items=len(by_item),
        described_items=len(items),
        described_users=len(users),
        first=_iso(first),
        last=_iso(last),
        days=span_us / DAY_US,
        pairs=pairs,
        density=pairs / max(len(by_user) * len(by_item), 1),
        types=_types(config, symptoms),
        split=split.kind,
        per_user=_spread(by_user),
        per_item=_spread(by_item),
        cold_users=cold_users,
        cold_items=_cold(config, by_item, last, THIN_ITEM)[0],
        untouched_items=idle / max(len(pc.unique(described)), 1),
        problems=sorted(found, key=lambda p: ("error", "warning", "note").index(p.severity)),
        verdicts=verdicts(config, symptoms, len(by_user), max(len(by_item), len(described))),
    )


def verdicts(config: Config, symptoms: Symptoms, users: int, items: int) -> list[str]:
    """In sentences: what this data can carry, and where a recommender is the wrong tool."""
    said = []
    if not symptoms.interactions:
        return ["There is nothing to learn from: no event of a type with seen = true."]
    if users == 1:
        said.append("One user: there is nobody to compare with. Sort by popularity or write rules.")
    if items == 1:
        said.append("One item: there is nothing to choose. No recommender is needed.")
    elif items < FEW_ITEMS:
        said.append(f"{items} items: a recommender is the wrong tool for a few dozen. Write rules, or sort by sales.")
    if symptoms.interactions < FEW_INTERACTIONS:
        said.append(
            f"{symptoms.interactions:,} interactions are too few for the learned models to beat simple ones: expect "
            "slates that fall back on popularity and on content (tags, text) until there are more."
        )
    if not any(symptoms.types.get(n) for n, kind in config.events.types.items() if not kind.seen):
        said.append(
            "No impressions: untouched candidates stand in as negatives, and position bias cannot be corrected."
        )
    if not symptoms.ordered:
        said.append("No clock: only the order within a user is known; ages, hours and trends say nothing here.")
    if not said:
        said.append("Enough to train every model.")
    return said


def _repeats(symptoms: Symptoms) -> list[Finding]:
    about = "" if symptoms.event_ids.exact else " (estimated from a sample)"
    found = []
    if same := symptoms.event_ids.repeats:
        says = f"events whose event_id came before{about}: the first of a user's is kept, the others are left out"
        found.append(Finding("duplicate event_id", "warning", says, same))
    if (rows := symptoms.rows.repeats) > same:
        says = (
            f"events equal to an earlier one in user, item, type and time{about}, under another event_id or none: they "
            "are kept; map event_id if they are deliveries of the same event"
        )
        found.append(Finding("equal events", "note", says, rows - same))
    return found


def _of_items(items: pa.Table, by_item: pa.Table) -> list[Finding]:
    """What is wrong with the items table."""
    if not len(items):
        says = "no items table: titles are missing, and an item that nobody has touched cannot be recommended"
        return [Finding("no items", "note", says)]
    ids = items["item_id"].combine_chunks()
    found = []
    if ids.null_count:
        found.append(
            Finding("null item_id in items", "warning", "items without an id: they are left out", ids.null_count)
        )
    counts = pc.value_counts(ids.drop_null())
    twice = counts.filter(pc.greater(pc.struct_field(counts, "counts"), 1))
    if len(twice):
        extra = pc.sum(pc.struct_field(twice, "counts")).as_py() - len(twice)
        examples = [{"item_id": e["values"], "rows": e["counts"]} for e in twice.slice(0, EXAMPLES).to_pylist()]
        says = "items described more than once: the first row of each counts"
        found.append(Finding("duplicate item_id", "warning", says, extra, examples))
    found += _early(items, by_item)
    bare = np.ones(len(items), bool)
    for name in ("creators", "tags"):
        bare &= ~np.asarray(pc.fill_null(pc.greater(pc.list_value_length(items[name]), 0), False))
    bare &= ~np.asarray(pc.fill_null(pc.greater(pc.utf8_length(items["text"]), 0), False))
    if bare.any():
        says = "items without creators, tags and text: new ones among them cannot be recommended by content"
        rows = items.select(["item_id", "title"]).take(np.flatnonzero(bare)[:EXAMPLES]).to_pylist()
        found.append(Finding("bare items", "note", says, int(bare.sum()), rows))
    return found


def _early(items: pa.Table, by_item: pa.Table) -> list[Finding]:
    """Items with events before they were published."""
    place = pc.index_in(items["item_id"].combine_chunks(), by_item["id"].combine_chunks())
    first = by_item["first"].combine_chunks().take(place)
    rows = np.flatnonzero(np.asarray(pc.fill_null(pc.greater(items["published_at"].combine_chunks(), first), False)))
    if not len(rows):
        return []
    says = "items used before their published_at: until then they are not recommended; correct or drop the column"
    examples = [
        {"item_id": items["item_id"][r].as_py(), "published_at": str(items["published_at"][r]), "first": str(first[r])}
        for r in rows[:EXAMPLES].tolist()
    ]
    return [Finding("used before published", "warning", says, len(rows), examples)]


def _of_windows(
    config: Config, hours: set[int], last: pa.Scalar, span_us: int, warm_users: int, ordered: bool
) -> list[Finding]:
    split, found = config.split, []
    if not last.is_valid:
        return [Finding("no events", "error", "no usable event came; look at the source and at the column mapping")]
    if span_us == 0 and ordered:
        says = (
            "all events carry the same time: nothing is before anything else. Map the column that holds the real time"
        )
        return [Finding("identical times", "error", says)]
    if split.kind == "leave_last_k":
        if warm_users == 0:
            says = "no user has more events than the windows take (ranker_k + validation_k + test_k): lower them"
            found.append(Finding("thin users", "error", says))
        return found
    needs = split.ranker_days + split.validation_days + split.test_days
    if span_us <= needs * DAY_US:
        says = (
            f"the log spans {span_us / DAY_US:.1f} days and the windows need more than {needs:g}: shorten ranker_days, "
            'validation_days and test_days, or set split.kind = "leave_last_k"'
        )
        found.append(Finding("log too short", "error", says))
    elif empty := _empty_windows(config, hours, last.value):
        dials = " and ".join(f"split.{window}_days" for window in empty)
        says = f'nobody acted in the {" and ".join(empty)} window: lengthen {dials}, or set split.kind = "leave_last_k"'
        found.append(Finding("empty window", "error", says))
    elif warm_users < FEW_WARM_USERS:
        says = f'{warm_users} users of the test window were there before: use split.kind = "leave_last_k"'
        found.append(Finding("thin test window", "warning", says))
    return found


def _empty_windows(config: Config, hours: set[int], last_us: int) -> list[str]:
    """Names of the by_time windows in none of whose hours anybody acted."""
    bounds = Bounds.of(config.split, last_us)
    cuts = {"ranker": (bounds.ranker, bounds.validation), "validation": (bounds.validation, bounds.test)}
    return [
        name
        for name, (first, end) in cuts.items()
        if hours.isdisjoint(range(first // HOUR_US, (end - 1) // HOUR_US + 1))
    ]  # the test window holds the last event


def _cold(config: Config, tally: pa.Table, last: pa.Scalar, thin: int) -> tuple[float, int]:
    """Share of cold users (or items) and the number of warm ones.

    by_time: of those in the test window, cold are the ones without an earlier event. leave_last_k: of all,
    cold are those with at most `thin` events.
    """
    if not last.is_valid or not len(tally):
        return 0.0, 0
    if config.split.kind == "leave_last_k":
        warm = int(np.sum(tally["count"].to_numpy() > thin))
        return 1 - warm / len(tally), warm
    cut = Bounds.of(config.split, last.value).test
    first, latest = (tally[name].cast(pa.int64()).to_numpy() for name in ("first", "last"))
    there = latest >= cut
    warm = int(np.sum(there & (first < cut)))
    return float(1 - warm / max(there.sum(), 1)), warm


def _types(config: Config, symptoms: Symptoms) -> dict[str, TypeCount]:
    """Those that the config names, then those that came besides."""
    found = {}
    for name, kind in config.events.types.items():
        steps = ", ".join(f"{weight:g} from {value:g}" for value, weight in kind.weight_by_value)
        found[name] = TypeCount(symptoms.types.get(name, 0), f"by value: {steps}" if steps else f"{kind.weight:g}")
    return found | {name: TypeCount(n, None) for name, n in symptoms.types.items() if name not in found}


def _spread(tally: pa.Table) -> Spread:
    counts = tally["count"].to_numpy()
    if not len(counts):
        return Spread(0.0, 0.0, 0)
    return Spread(float(np.median(counts)), float(np.quantile(counts, 0.9)), int(counts.max()))


def _iso(time: pa.Scalar) -> str | None:
    if not time.is_valid:
        return None
    return datetime.fromtimestamp(time.value / 1e6, UTC).isoformat(timespec="seconds")


__all__ = ["conclude", "examine", "render", "verdicts"]
