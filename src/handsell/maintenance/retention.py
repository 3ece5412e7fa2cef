"""Through which offset each table of the event store may be trimmed, from the positions of everything that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from handsell.config import Config
from handsell.core.units import DAY_US
from handsell.eligibility.config import Surface

COUNTED_EVENTS = 2_000_000  # newest events whose likes are counted for popular and trending items after a start
QUOTA_DAYS = 2.0  # rules with daily quotas count the impressions of today, in any time zone
NEVER = 2**63 - 1  # an offset above every other


@dataclass(frozen=True, slots=True)
class Included:
    """Through which offsets events and catalog changes are part of a bundle, or of the tables of the data job."""

    events: int
    changes: int


@dataclass(frozen=True, slots=True)
class Positions:
    """How far everything that reads the store has come. Offsets; 0 = nothing read yet."""

    compacted_events: int  # end of the last finished range
    compacted_slates: int
    compacted_changes: int
    processor: int  # the stream processor, and the batch rows to which it goes back after `materialize`
    data: Included  # the tables of the data job, from which the features are computed
    served: Sequence[Included]  # the live bundle and the ones before it, to which a rollback returns
    bundles: Sequence[Included]  # every bundle that is kept
    uncounted: int  # newest offset before the COUNTED_EVENTS newest ones
    old_events: int  # newest offset of events that were compacted `events_days` ago
    old_keys: int  # … `keys_days` ago
    old_slates: int


@dataclass(frozen=True, slots=True)
class TrimLimits:
    """Offsets through which the rows of each table may be deleted; 0 = none."""

    events: int
    slates: int
    catalog_changes: int
    trimmed_keys: int  # of events that have been trimmed


def compute_limits(positions: Positions) -> TrimLimits:
    """Return the highest offsets that nobody needs any more.

    An event is needed until it is compacted, in the tables of the data job, and read by the stream processor: a request
    reads a user's events after the offset of the user's row. The newest ones are needed, too, until they are part of
    the served bundles, whose popularity they are added to. A catalog change is needed by replicas of any kept bundle
    that does not include it.
    """
    kept = (positions.data, *positions.served, *positions.bundles)
    counted = min((part.events for part in positions.served), default=NEVER)
    events = min(
        positions.compacted_events,
        positions.processor,
        positions.old_events,
        positions.data.events,
        max(counted, positions.uncounted),
    )
    return TrimLimits(
        events=events,
        slates=min(positions.compacted_slates, positions.old_slates),
        catalog_changes=min(positions.compacted_changes, *(part.changes for part in kept)),
        trimmed_keys=min(events, positions.old_keys),
    )


def compute_impressions_window_us(config: Config) -> int:
    """Return for how long impressions are needed, µs: by `[retention]`, the caps of any surface, and daily quotas."""
    days = [config.retention.impressions_days, *(_find_longest_days(surface) for surface in config.surfaces.values())]
    if config.reranking.rules is not None:
        days.append(QUOTA_DAYS)
    return int(max(days) * DAY_US)


def _find_longest_days(surface: Surface) -> float:
    days = [surface.shown_days] if surface.seen_on else []
    days += [cap.days for cap in (surface.item_cap, surface.cap) if cap is not None]
    return max(days, default=0.0)
