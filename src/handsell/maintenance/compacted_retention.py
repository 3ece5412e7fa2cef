"""Remove compacted events and impressions that are older than training wants them."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from pathlib import PurePosixPath

from handsell.config import Config
from handsell.core.paths import Layout
from handsell.events.compacted_files import CompactedRange, Kind, list_ranges, lock_compacted, remove_unlisted
from handsell.maintenance.files import DAY_S

KINDS: tuple[Kind, ...] = ("events", "impressions")  # catalog changes are the catalog: they stay


def remove_old_ranges(config: Config, now: float | None = None) -> int:
    """Remove the oldest ranges, all of whose rows are from before `retention.compacted_days`; return their number.

    The newest range of each kind stays: it says how far the store is compacted. An interrupted run is continued by the
    next one.
    """
    days, folder, removed = config.retention.compacted_days, Layout(config.state).compacted, 0
    if days is None or not folder.exists():
        return 0
    first_day = datetime.fromtimestamp((time.time() if now is None else now) - days * DAY_S, UTC).date()
    with lock_compacted(folder):
        for kind in KINDS:
            for one in list_ranges(folder, kind)[:-1]:
                if _find_last_day(one) >= first_day:
                    break
                (folder / "ranges" / kind / f"{one.name}.json").unlink()
                removed += 1
            remove_unlisted(folder, kind)
    return removed


def _find_last_day(one: CompactedRange) -> date:
    """Return the day of a range's newest rows; the first of all days if it has no rows."""
    days = (PurePosixPath(file.path).parent.name.removeprefix("date=") for file in one.files)
    return max(map(date.fromisoformat, days), default=date.min)
