"""Where the data of a training comes from: events by origin, shown items as examples, and what is new."""

from __future__ import annotations

from pathlib import Path

from handsell.bundles.store import BundleStore
from handsell.config import Config
from handsell.core.errors import HandsellError
from handsell.core.json_files import read_json
from handsell.core.paths import Layout
from handsell.ranking.shards import read_coverage


def count_origins(config: Config, run: Path) -> dict[str, int]:
    """Return counts for the report: of users and items, of events by origin, and of shown items used as negatives.

    `source_events` and `stored_events` are those of the source tables and of the event store; `events_in_both` are
    counted once in `events`. `duplicates` were read more often than they count.
    """
    layout = Layout(config.state)
    meta = read_json(layout.data_meta, f"run `handsell data {config.source}` again")
    origins = meta.get("origins", {"source": meta["events"], "event_store": 0, "both": 0})
    counts = {
        "events": meta["events"],
        "source_events": origins["source"],
        "stored_events": origins["event_store"],
        "events_in_both": origins["both"],
        "duplicates": meta.get("duplicates", 0),
        "users": meta["users"],
        "items": meta["items"],
    }
    if config.ranking.enabled:
        counts["ignored_items_as_negatives"] = read_coverage(run / "examples" / "ranker").ignored
    return counts | _count_new(counts, BundleStore(layout.bundles))


def _count_new(counts: dict[str, int], store: BundleStore) -> dict[str, int]:
    """Count the users and items since the live bundle; numbers are never taken back, so the totals tell them."""
    live = store.live()
    try:
        before = None if live is None else read_json(store.local_path(live) / "report.json", "")["data"]
        return {} if before is None else {f"new_{n}": max(counts[n] - before[n], 0) for n in ("users", "items")}
    except (HandsellError, KeyError):  # a bundle of an earlier version
        return {}


def describe_origins(counts: dict[str, int]) -> str:
    """Describe the counts in sentences for readers of the report."""
    text = (
        f"The data has {counts['events']:,} events: {counts['source_events']:,} of the source and "
        f"{counts['stored_events']:,} of the event store, of which {counts['events_in_both']:,} are in both."
    )
    if "new_users" in counts:
        text += f" Since the live bundle {counts['new_users']:,} users and {counts['new_items']:,} items are new."
    if counts.get("shown_items"):
        text += (
            f" {counts['shown_items']:,} items were shown since the start of the ranker window, "
            f"{counts['served_items']:,} of them according to the event store; the ranker learns from "
            f"{counts.get('ignored_items_as_negatives', 0):,} that their users ignored."
        )
    return text
