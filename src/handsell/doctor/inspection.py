"""Examine the source data before training: counts, problems and advice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.config import Config
from handsell.core.units import DAY_US
from handsell.data.readers.base import Reader, read_all_events
from handsell.data.readers.detect import open_reader
from handsell.data.splits import Bounds
from handsell.doctor.catalog_preview import preview_catalog
from handsell.doctor.checks import EventChecks, ItemSpans
from handsell.doctor.deployment_checks import find_deployment_problems, find_fixed_problems
from handsell.doctor.doctor_report import EXAMPLES, DoctorReport, Finding, Spread, TypeCount, sort_problems
from handsell.doctor.id_checks import find_table_problems, show_row
from handsell.doctor.row_numbers import number_rows
from handsell.doctor.view import render
from handsell.doctor.window_checks import find_window_problems

FEW_ITEMS = 50
FEW_INTERACTIONS = 2_000
COLD_ITEM = 4  # events; leave_last_k: items with at most this many are cold


def examine(config: Config, progress: Callable[[str], None] = lambda text: None) -> DoctorReport:
    """Examine the config and the source data in batches; raises DataError if the data cannot be read."""
    reader = open_reader(config, progress)
    items, users = reader.items(), reader.users()
    described = users["user_id"].combine_chunks().drop_null()
    spans = ItemSpans.of(items, config.data.recommend_deleted_items)
    checks = EventChecks(config.events, spans, described, reader.ordered)
    for batch in read_all_events(reader):
        checks.add(batch)
    checks.finish()
    return build_report(config, reader, items, users, checks)


def find_problems(config: Config, progress: Callable[[str], None] = lambda text: None) -> list[Finding]:
    """Return the problems of a deployment, worst first; generated events are not examined.

    Raises DataError if the data cannot be read.
    """
    if config.data.format != "world":
        return examine(config, progress).problems
    reader = open_reader(config, progress)
    items, users = reader.items(), reader.users()
    snapshot = preview_catalog(items, items["item_id"].combine_chunks())
    return sort_problems(find_fixed_problems(config, items, users, snapshot))


def build_report(config: Config, reader: Reader, items: pa.Table, users: pa.Table, checks: EventChecks) -> DoctorReport:
    by_user, by_item = checks.per_user.table(), checks.per_item.table()
    first, last = pc.min(by_user["first"]), pc.max(by_user["last"])
    span_us = last.value - first.value if last.is_valid else 0
    described, touched = checks.items.ids, by_item["id"].combine_chunks()
    untouched = pc.sum(pc.invert(pc.is_in(pc.unique(described), touched))).as_py() or 0
    split = config.split
    cold_users, warm_users = _measure_cold(config, by_user, last, split.ranker_k + split.validation_k + split.test_k)
    pairs = checks.pairs.count
    found = [*checks.problems.values(), *checks.repeats.find(), *_find_item_problems(config, items, by_item)]
    tables = {"items": items["item_id"].combine_chunks(), "users": users["user_id"].combine_chunks()}
    seen = {"items": touched, "users": by_user["id"].combine_chunks()}
    found += find_table_problems(reader, tables, seen)
    found += find_window_problems(config, checks, warm_users)
    found += find_deployment_problems(config, items, users, checks)
    number_rows(reader, found)
    return DoctorReport(
        source=reader.source.partition(":{")[0],
        ordered=reader.ordered,
        events=checks.events,
        interactions=checks.interactions,
        users=len(by_user),
        items=len(by_item),
        described_items=len(items),
        described_users=len(users),
        first=_format_time(first),
        last=_format_time(last),
        days=span_us / DAY_US,
        pairs=pairs,
        density=pairs / max(len(by_user) * len(by_item), 1),
        types=_count_types(config, checks),
        split=split.kind,
        per_user=_measure_spread(by_user),
        per_item=_measure_spread(by_item),
        cold_users=cold_users,
        cold_items=_measure_cold(config, by_item, last, COLD_ITEM)[0],
        untouched_items=untouched / max(len(pc.unique(described)), 1),
        problems=sort_problems(found),
        advice=give_advice(config, checks, len(by_user), max(len(by_item), len(described))),
    )


def give_advice(config: Config, checks: EventChecks, users: int, items: int) -> list[str]:
    """Say in sentences whether a recommender fits this data, and what limits it."""
    lines: list[str] = []
    if not checks.interactions:
        return ["No interactions: there is nothing to learn from. Add events of a type with seen = true."]
    if users == 1:
        lines.append("One user: a recommender needs several. Sort by popularity, or write rules.")
    if items == 1:
        lines.append("One item: there is nothing to recommend.")
    elif items < FEW_ITEMS:
        lines.append(f"{items} items: too few for a recommender. Write rules, or sort by sales.")
    if checks.interactions < FEW_INTERACTIONS:
        lines.append(
            f"{checks.interactions:,} interactions: too few for learned models to beat simple ones. Expect slates from "
            "popularity and content (tags, text) until there are more."
        )
    if not any(checks.types.get(n) for n, kind in config.events.types.items() if not kind.seen):
        lines.append(
            "No impressions: candidates without interaction are used as negatives; position bias cannot be corrected."
        )
    if not checks.ordered:
        lines.append("No times: only the order of events per user is known, so ages, hours and trends mean nothing.")
    if not lines:
        lines.append("Enough data to train all models.")
    return lines


def _find_item_problems(config: Config, items: pa.Table, by_item: pa.Table) -> list[Finding]:
    """Find problems of the items table."""
    if not len(items):
        message = "no items table: items have no titles, and items without events cannot be recommended; add one"
        return [Finding("no items", "note", message)]
    ids = items["item_id"].combine_chunks()
    found = []
    if ids.null_count:
        message = "items without an id are dropped: fill the column"
        found.append(Finding("null item_id in items", "warning", message, ids.null_count))
    counts = pc.value_counts(ids.drop_null())
    twice = counts.filter(pc.greater(pc.struct_field(counts, "counts"), 1))
    if len(twice):
        extra = pc.sum(pc.struct_field(twice, "counts")).as_py() - len(twice)
        examples = [{"item_id": e["values"], "rows": e["counts"]} for e in twice.slice(0, EXAMPLES).to_pylist()]
        message = "items with more than one row: the first row is used; remove the others"
        found.append(Finding("duplicate item_id", "warning", message, extra, examples))
    if not config.data.recommend_deleted_items:
        found += _find_deleted_items(ids, by_item)
    found += _find_early_events(items, by_item)
    bare = np.ones(len(items), bool)
    for name in ("creators", "tags"):
        bare &= ~np.asarray(pc.fill_null(pc.greater(pc.list_value_length(items[name]), 0), False))
    bare &= ~np.asarray(pc.fill_null(pc.greater(pc.utf8_length(items["text"]), 0), False))
    if bare.any():
        message = "items without creators, tags and text: not recommended until they have events; fill a column"
        rows = items.select(["item_id", "title"]).take(np.flatnonzero(bare)[:EXAMPLES]).to_pylist()
        found.append(Finding("bare items", "note", message, int(bare.sum()), rows))
    return found


def _find_deleted_items(listed: pa.Array, by_item: pa.Table) -> list[Finding]:
    """Find items that have events, but no row in the items table."""
    deleted = by_item.filter(pc.invert(pc.is_in(by_item["id"], listed)))
    if not len(deleted):
        return []
    message = (
        f"of {len(by_item):,} items with events have no row in the items table: they count as deleted and are not "
        "recommended, but stay in histories and training; add their rows, or set data.recommend_deleted_items = true"
    )
    named = deleted.select(["id", "count"]).rename_columns(["item_id", "events"])
    examples = [show_row(named, row, named.column_names) for row in range(min(EXAMPLES, len(named)))]
    return [Finding("deleted items", "warning", message, len(deleted), examples)]


def _find_early_events(items: pa.Table, by_item: pa.Table) -> list[Finding]:
    """Find items with events before published_at."""
    place = pc.index_in(items["item_id"].combine_chunks(), by_item["id"].combine_chunks())
    first = by_item["first"].combine_chunks().take(place)
    rows = np.flatnonzero(np.asarray(pc.fill_null(pc.greater(items["published_at"].combine_chunks(), first), False)))
    if not len(rows):
        return []
    message = "items with events before their published_at, until which they are not recommended: correct or drop it"
    examples = [
        {"item_id": items["item_id"][r].as_py(), "published_at": str(items["published_at"][r]), "first": str(first[r])}
        for r in rows[:EXAMPLES].tolist()
    ]
    return [Finding("used before published", "warning", message, len(rows), examples)]


def _measure_cold(config: Config, statistics: pa.Table, last: pa.Scalar, few: int) -> tuple[float, int]:
    """Return the share of cold users (or items) and the number of warm ones.

    by_time: of those in the test window, the cold ones have no earlier event. leave_last_k: of all, the cold ones have
    at most `few` events.
    """
    if not last.is_valid or not len(statistics):
        return 0.0, 0
    if config.split.kind == "leave_last_k":
        warm = int(np.sum(statistics["count"].to_numpy() > few))
        return 1 - warm / len(statistics), warm
    cut = Bounds.of(config.split, last.value).test
    first, latest = (statistics[name].cast(pa.int64()).to_numpy() for name in ("first", "last"))
    there = latest >= cut
    warm = int(np.sum(there & (first < cut)))
    return float(1 - warm / max(there.sum(), 1)), warm


def _count_types(config: Config, checks: EventChecks) -> dict[str, TypeCount]:
    """Count events by type: configured types, then others."""
    found = {}
    for name, kind in config.events.types.items():
        steps = ", ".join(f"{weight:g} from {value:g}" for value, weight in kind.weight_by_value)
        found[name] = TypeCount(checks.types.get(name, 0), f"by value: {steps}" if steps else f"{kind.weight:g}")
    return found | {name: TypeCount(n, None) for name, n in checks.types.items() if name not in found}


def _measure_spread(statistics: pa.Table) -> Spread:
    counts = statistics["count"].to_numpy()
    if not len(counts):
        return Spread(0.0, 0.0, 0)
    return Spread(float(np.median(counts)), float(np.quantile(counts, 0.9)), int(counts.max()))


def _format_time(time: pa.Scalar) -> str | None:
    if not time.is_valid:
        return None
    return datetime.fromtimestamp(time.value / 1e6, UTC).isoformat(timespec="seconds")


__all__ = ["build_report", "examine", "give_advice", "render"]
