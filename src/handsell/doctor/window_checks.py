"""Checks of the windows of training: each needs requests that liked something which could be recommended."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from handsell.config import Config
from handsell.core.units import DAY_US
from handsell.data.config import SplitConfig
from handsell.data.splits import Bounds
from handsell.doctor.checks import EventChecks
from handsell.doctor.doctor_report import Finding
from handsell.doctor.setting_checks import list_seen_weights

FEW_WARM_USERS = 30
FEW_REQUESTS = 3.0  # expected number in a window of leave_last_k
LAST_K = 'set split.kind = "leave_last_k"'


def find_window_problems(config: Config, checks: EventChecks, warm_users: int) -> Iterator[Finding]:
    """Find windows of training that would be empty; `warm_users` have events before the test window."""
    by_user = checks.per_user.table()
    first, last = pc.min(by_user["first"]), pc.max(by_user["last"])
    if not last.is_valid:
        yield Finding("no events", "error", "no usable events: check the source and the column mapping")
    elif first.value == last.value and checks.ordered:
        message = "all events have the same time, so there is no past and no future: map the column with the real time"
        yield Finding("identical times", "error", message)
    elif not pc.sum(by_user["positive"]).as_py():
        if any(weight > 0 for each in list_seen_weights(config).values() for weight in each):
            yield _describe_nothing_positive(config, checks)
    elif config.split.kind == "leave_last_k":
        yield from _find_thin_users(config.split, by_user, warm_users)
    else:
        yield from _find_thin_windows(config, checks, (first.value, last.value), warm_users)


def _describe_nothing_positive(config: Config, checks: EventChecks) -> Finding:
    shown = ", ".join(
        f"{name} {checks.types.get(name, 0):,}" for name, kind in config.events.types.items() if kind.seen
    )
    message = (
        f"no event has a positive weight, so there is nothing to learn; events by type: {shown}. Give a type that "
        "shows a preference a weight above 0 in [events.types], or bring events of such a type"
    )
    return Finding("no positive event", "error", message, checks.interactions)


def _find_thin_users(split: SplitConfig, by_user: pa.Table, warm_users: int) -> Iterator[Finding]:
    """Find windows of leave_last_k with (almost) no user, or no positive event among the events of their users."""
    if warm_users == 0:
        message = "no user has more events than the windows take: lower split.ranker_k, validation_k or test_k"
        yield Finding("thin users", "error", message)
        return
    takes = {"ranker": split.ranker_k, "validation": split.validation_k, "test": split.test_k}
    count, positive = (by_user[name].to_numpy() for name in ("count", "positive"))
    warm = count > sum(takes.values())
    negative_share = 1 - positive[warm] / count[warm]
    for window, k in takes.items():
        if (1 - negative_share**k).sum() < min(FEW_REQUESTS, 0.9 * warm_users):
            message = f"almost no event of positive weight in the {window} window: raise split.{window}_k"
            yield Finding("empty window", "error", message)


def _find_thin_windows(
    config: Config, checks: EventChecks, span: tuple[int, int], warm_users: int
) -> Iterator[Finding]:
    split, days = config.split, (span[1] - span[0]) / DAY_US
    needs = split.ranker_days + split.validation_days + split.test_days
    if days <= needs:
        message = (
            f"the log spans {days:.1f} days, the windows need more than {needs:g}: shorten "
            f"split.ranker_days, validation_days and test_days, or {LAST_K}"
        )
        yield Finding("log too short", "error", message)
        return
    bounds = Bounds.of(split, span[1])
    if empty := _find_empty_windows(checks, bounds, span[1]):
        dials, where = " and ".join(f"split.{window}_days" for window in empty), " and ".join(empty)
        message = (
            f"no interactions of positive weight with items that were available in the {where} window: lengthen "
            f"{dials}, or {LAST_K}; if there are such events, check published_at, expires_at and available of the items"
        )
        yield Finding("empty window", "error", message)
    elif not checks.liked.touches(span[0], bounds.ranker):
        message = f"no interactions of positive weight before the windows: shorten them (split.*_days), or {LAST_K}"
        yield Finding("empty window", "error", message)
    elif warm_users < FEW_WARM_USERS:
        message = f"only {warm_users} users of the test window have earlier events: {LAST_K}"
        yield Finding("thin test window", "warning", message)


def _find_empty_windows(checks: EventChecks, bounds: Bounds, last_us: int) -> list[str]:
    """Return the names of the by_time windows without a positive event on an item that was available."""
    starts = {"ranker": bounds.ranker, "validation": bounds.validation, "test": bounds.test}
    ends = (bounds.validation, bounds.test, last_us + 1)
    return [
        name
        for (name, begin), end in zip(starts.items(), ends, strict=True)
        if not checks.available_liked.touches(begin, end)
    ]
