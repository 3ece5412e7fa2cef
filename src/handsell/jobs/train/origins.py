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
        before = {} if live is None else read_json(store.local_path(live) / "report.json", "")["data"]
    except (HandsellError, KeyError):
        before = {}
    return {f"new_{name}": max(counts[name] - before[name], 0) for name in ("users", "items") if name in before}


def describe_origins(counts: dict[str, int]) -> str:
    """Describe the counts in sentences for readers of the report."""
    text = (
        f"The data has {counts['events']:,} events: {counts['source_events']:,} of the source and "
        f"{counts['stored_events']:,} of the event store, of which {counts['events_in_both']:,} are in both."
    )
    if "new_users" in counts:
        text += f" Since the live bundle {counts['new_users']:,} users and {counts['new_items']:,} items are new."
    served = f", {counts['served_items']:,} of them from the event store" if counts.get("served_items") else ""
    if counts.get("ignored_items_as_negatives"):
        text += (
            f" {counts['shown_items']:,} items were shown in the ranker and validation windows{served}; the ranker "
            f"learns from {counts['ignored_items_as_negatives']:,} that their users ignored."
        )
    return text
