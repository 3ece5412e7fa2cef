"""Checks of what could be recommended at request time: availability, filters of surfaces, and rules."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, to_object_array
from handsell.core.errors import ConfigError, FilterError, HandsellError
from handsell.core.units import DAY_US
from handsell.doctor.catalog_preview import build_new_user_requests
from handsell.doctor.doctor_report import EXAMPLES, Finding
from handsell.doctor.id_checks import show_row
from handsell.eligibility.filters import get_filters
from handsell.eligibility.mask import Eligibility
from handsell.features.views import ATTRIBUTES
from handsell.reranking.rules.reading import read_rules
from handsell.reranking.rules.ruleset import RuleSet

OLD_LOG_DAYS, AGING_LOG_DAYS = 90, 14  # by which the wall clock may be after the last event: error, warning
FEW_SHARE = 0.1  # of the items with positive events
SAMPLED_USERS = 1_000  # whose attributes are tried with filters that read them
MAX_MASK_CELLS = 50_000_000


@dataclass(frozen=True)
class RecommendableItems:
    """The preview of a catalog, which of its items have positive events, and what its users have seen."""

    snapshot: Snapshot
    liked: np.ndarray  # (I,) bool
    seen_share: float  # mean share of the items with events that a user has interacted with
    users: pa.Table
    last_us: int | None  # time of the last event
    ordered: bool

    @property
    def usable(self) -> np.ndarray:
        """(I,) bool, items that a source can find."""
        return self.liked | self.has_content

    @cached_property
    def has_content(self) -> np.ndarray:
        """(I,) bool, items with a creator, tags, title or text."""
        found = (self.snapshot.item_tags.lengths > 0) | (self.snapshot.creator != NONE)
        for name in ("title", "text"):
            found = found | np.asarray(pc.greater(pc.fill_null(pc.utf8_length(self.snapshot.metadata[name]), 0), 0))
        return found


def find_filter_problems(config: Config, snapshot: Snapshot) -> Iterator[Finding]:
    """Find filters of surfaces, and rules, that do not fit the items."""
    for name, surface in config.surfaces.items():
        try:
            if surface.filter is not None:
                get_filters(snapshot).check(surface.filter, config.features.filter_attributes)
        except FilterError as error:
            message = f"surfaces.{name}.filter ({surface.filter}): {error}. Correct the filter, or add the column"
            yield Finding(f"filter of {name}", "error", message)
    try:
        load_rules(config, snapshot)
    except ConfigError as error:
        yield Finding("rules", "error", f"{error}. Correct the file that reranking.rules names")


def load_rules(config: Config, snapshot: Snapshot) -> RuleSet | None:
    """Return the rules of a config for a catalog, or None; raises ConfigError."""
    path = config.rules_path
    arms = {name: tuple(experiment.arms) for name, experiment in config.experiments.items()}
    return None if path is None else RuleSet.of(read_rules(path), snapshot, config.surface_names, arms)


def find_clock_problems(config: Config, last_us: int | None, ordered: bool) -> Iterator[Finding]:
    """Find a log that ended long before the time that requests have."""
    if config.serving.clock != "wall" or last_us is None or not ordered:
        return
    days = (now_us() - last_us) / DAY_US
    if days <= AGING_LOG_DAYS:
        return
    message = (
        f'the last event is {days:,.0f} days old, and requests happen now (serving.clock = "wall"), so ages, trends '
        'and expired items do not fit the log: bring newer events, or set serving.clock = "data" to replay an old log'
    )
    yield Finding("old log", "error" if days > OLD_LOG_DAYS else "warning", message)


def find_availability_problems(config: Config, items: RecommendableItems) -> Iterator[Finding]:
    """Find surfaces on which nothing, or nearly nothing, could be recommended at request time."""
    snapshot, times = items.snapshot, find_request_times(config, items)
    at = np.array(times, np.int64)
    available = (snapshot.published <= at[:1]) & (at[1:] < snapshot.expires) & snapshot.available
    usable, liked = available & items.usable, available & items.liked
    name, when = "nothing to recommend", _describe_time(config, times)
    if not available.any():
        message = f"no item is available {when}: {_explain(items, times, config)}"
        yield Finding(name, "error", message, len(snapshot), _show(items, ~available))
    elif not usable.any():
        message = (
            f"none of the {available.sum():,} items that are available {when} has an event of positive weight, or "
            f"creators, tags or text by which it could be found: {_explain(items, times, config)}"
        )
        yield Finding(name, "error", message, int(items.liked.sum()), _show(items, items.liked))
    elif usable.sum() <= _count_few(config, int(items.usable.sum())):
        message = (
            f"only {usable.sum():,} of {items.usable.sum():,} items with positive events, creators, tags or text are "
            f"available {when}: {_explain(items, times, config)}"
        )
        yield Finding("nearly nothing to recommend", "error", message, 0, _show(items, items.usable & ~available))
    else:
        if not liked.any():
            message = (
                f"none of the {available.sum():,} items that are available {when} has an event of positive weight: "
                "users without a history get nothing, others what resembles their history"
            )
            yield Finding("nothing for new users", "warning", message, 0, _show(items, items.liked))
        yield from _find_empty_surfaces(config, items, times[0], available)


def _count_few(config: Config, liked: int) -> int:
    """Return the largest number of items that is nearly nothing of so many: less than a slate, and than a tenth."""
    return min(config.surfaces["home"].count - 1, int(FEW_SHARE * liked))


def find_request_times(config: Config, items: RecommendableItems) -> tuple[int, int]:
    """Return the earliest and latest time of the first requests: now, or from the end of the log to the next day's."""
    if config.serving.clock == "data" and items.last_us is not None:
        return items.last_us, (items.last_us // DAY_US + 2) * DAY_US
    return now_us(), now_us()


def now_us() -> int:
    return time.time_ns() // 1_000


def _find_empty_surfaces(
    config: Config, items: RecommendableItems, at: int, available: np.ndarray
) -> Iterator[Finding]:
    try:
        eligibility = Eligibility.of(items.snapshot, config)
        rules = load_rules(config, items.snapshot)
    except HandsellError:
        return  # reported with the filter or the rule
    attributes = _sample_attributes(config, items.users, max(1, MAX_MASK_CELLS // max(len(items.snapshot), 1)))
    everything = np.arange(len(items.snapshot), dtype=np.int32)
    for code, (name, surface) in enumerate(config.surfaces.items()):
        rows = 1 if attributes is None else len(attributes)
        requests = build_new_user_requests(np.full(rows, code), at, attributes)
        allowed = eligibility.mask(requests) & available
        filtered = allowed.any(axis=0)
        if rules is not None:
            removed = rules.removed(requests, np.broadcast_to(everything, allowed.shape))
            allowed &= True if removed is None else ~removed
        shown = allowed.any(axis=0) if surface.filter else allowed.any(axis=0) & items.usable  # filters are backfilled
        left = int(shown.sum())
        unseen = left * (1 - items.seen_share) if surface.repeat == "exclude" else left
        if left == 0:
            causes = [f"surfaces.{name}.filter ({surface.filter})"] if surface.filter else []
            causes += [f"the rules of {config.rules_path}"] if rules is not None and filtered.any() else []
            message = (
                f"on the surface {name}, {' and '.join(causes) or 'eligibility'} leave none of the "
                f"{(available & items.usable).sum():,} available items: loosen them"
            )
            yield Finding(f"nothing to recommend on {name}", "error", message)
        elif unseen < 1:
            message = (
                f"on the surface {name}, which excludes what a user has seen (surfaces.{name}.repeat), users have seen "
                f'nearly all of the {left:,} items, so nothing is left: set repeat = "allow" or "after_days"'
            )
            yield Finding(f"everything seen on {name}", "error", message)
        elif unseen < surface.count:
            message = (
                f"surfaces.{name}.count is {surface.count}, and a user can be shown about {unseen:,.0f} there, apart "
                "from seen ones: slates are shorter; lower the count, or loosen the filters or the repeat policy"
            )
            yield Finding(f"short slates on {name}", "warning", message)


def _sample_attributes(config: Config, users: pa.Table, most: int) -> np.ndarray | None:
    """Return the distinct attributes (B, A) of the first users that filters may read; None where there are none."""
    names = tuple(config.features.filter_attributes)
    if not names or not len(users):
        return None
    kinds = config.features.filter_attributes
    columns = [users[name].slice(0, SAMPLED_USERS).cast(ATTRIBUTES[kinds[name]]).to_pylist() for name in names]
    cells = ([tuple(value) if isinstance(value, list) else value for value in column] for column in columns)
    rows = list(dict.fromkeys(zip(*cells, strict=True)))
    return to_object_array(rows[:most], len(names))


def _describe_time(config: Config, times: tuple[int, int]) -> str:
    if config.serving.clock == "data":
        return f'at the end of the log ({_format(times[0])} to {_format(times[1])}, serving.clock = "data")'
    return 'now (serving.clock = "wall")'


def _explain(items: RecommendableItems, times: tuple[int, int], config: Config) -> str:
    """Count why items are not available, and say what to do."""
    s = items.snapshot
    expired, early, off = s.expires <= times[1], s.published > times[0], ~s.available
    counts = {"have expired (expires_at)": expired, "are published later (published_at)": early,
              "are not available (available = false, or no longer in the items table)": off}  # fmt: skip
    causes = "; ".join(f"{mask.sum():,} of {len(s):,} {what}" for what, mask in counts.items() if mask.any())
    old = items.ordered and config.serving.clock == "wall" and items.last_us is not None
    clock = (
        f'; the log ended {_format(items.last_us or 0)}: set serving.clock = "data" to replay an old log'
        if old and times[0] - (items.last_us or 0) > AGING_LOG_DAYS * DAY_US
        else ""
    )
    return f"{causes or 'the available items have no positive events'}. Correct these columns of the items table{clock}"


def _show(items: RecommendableItems, rows: np.ndarray) -> list[dict]:
    """Return examples of items (I,) bool with the columns that decide whether they are available."""
    columns = ("item_id", "published_at", "expires_at", "available")
    return [show_row(items.snapshot.metadata, i, columns) for i in np.flatnonzero(rows)[:EXAMPLES].tolist()]


def _format(at: int) -> str:
    try:
        return datetime.fromtimestamp(at / 1e6, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{at / 1e6:.0f} s since 1970"
