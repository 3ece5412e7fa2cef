"""Checks of a whole deployment: its settings against its data, and what is left to recommend."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.data.splits import Bounds
from handsell.doctor.availability_checks import (
    RecommendableItems,
    find_availability_problems,
    find_clock_problems,
    find_filter_problems,
)
from handsell.doctor.catalog_preview import preview_catalog
from handsell.doctor.checks import EventChecks
from handsell.doctor.column_checks import find_column_problems
from handsell.doctor.doctor_report import Finding
from handsell.doctor.id_checks import show_row
from handsell.doctor.setting_checks import find_setting_problems


def find_fixed_problems(config: Config, items: pa.Table, users: pa.Table, snapshot: Snapshot) -> Iterator[Finding]:
    """Find problems that do not depend on events: of the settings, and of the columns, filters and rules."""
    yield from find_setting_problems(config)
    yield from find_column_problems(config, items, users)
    yield from find_filter_problems(config, snapshot)


def find_deployment_problems(
    config: Config, items: pa.Table, users: pa.Table, checks: EventChecks
) -> Iterator[Finding]:
    """Find problems of the settings, and of what they name in the data or leave to recommend."""
    by_item, last = checks.per_item.table(), pc.max(checks.per_user.table()["last"])
    snapshot = preview_catalog(items, by_item["id"], config.data.recommend_deleted_items)
    fixed = list(find_fixed_problems(config, items, users, snapshot))
    yield from fixed
    yield from _find_missing_values(config, checks)
    yield from find_clock_problems(config, last.value if last.is_valid else None, checks.ordered)
    liked = np.zeros(len(snapshot), bool)
    liked[snapshot.items.number(by_item["id"].filter(pc.greater(by_item["positive"], 0)).to_pylist())] = True
    if liked.any() and not any(problem.severity == "error" for problem in fixed):
        pairs = len(by_item) * len(checks.per_user.table())
        about = RecommendableItems(snapshot, liked, checks.pairs.count / pairs, users, last.value, checks.ordered)
        yield from find_availability_problems(config, about)
        if config.split.kind == "by_time" and not about.has_content.any():
            yield from _find_new_items(Bounds.of(config.split, last.value).ranker, by_item)
    for name, table in (("user", checks.per_user.table()), ("item", by_item)):
        liking = table.filter(pc.greater(table["positive"], 0))
        if len(liking) == 1:
            message = f"all events of positive weight are of one {name}: check the mapping of {name}_id"
            examples = [show_row(liking, 0, ("id", "count"))]
            yield Finding(f"one {name}", "error", message, liking["positive"][0].as_py(), examples)


def _find_new_items(ranker_us: int, by_item: pa.Table) -> Iterator[Finding]:
    """Find a log in which no item without content has events both before and in the windows."""
    first, latest = (by_item[name].cast(pa.int64()).to_numpy() for name in ("first", "last"))
    if not ((first < ranker_us) & (latest >= ranker_us) & (by_item["positive"].to_numpy() > 0)).any():
        message = (
            "no item of the windows has earlier events, and items have no creators, tags, title or text, so nothing "
            "can be known about them: bring such columns, or shorten split.ranker_days, validation_days and test_days"
        )
        yield Finding("new items in the windows", "error", message)


def _find_missing_values(config: Config, checks: EventChecks) -> Iterator[Finding]:
    """Find types with `weight_by_value` of which (some) events have no value."""
    for name, count in checks.without_value.items():
        if count:
            kind = config.events.types[name]
            message = (
                f"events of type {name} without a value count {kind.weight:g} (events.types.{name}.weight), not by "
                "weight_by_value: map the column `value`, or ignore this"
            )
            yield Finding(f"no value of {name}", "warning", message, count)
