"""`handsell clean`: remove what `[retention]` does not keep, from the event store and the state folder."""

from __future__ import annotations

import os

from handsell.config import Config
from handsell.events.store.opening import has_one_writer
from handsell.jobs.cluster import connect
from handsell.jobs.store_writer import open_store_writer
from handsell.maintenance.compacted_retention import remove_old_ranges
from handsell.maintenance.files import remove_old_bundles, remove_old_logs, remove_old_runs
from handsell.maintenance.trimming import trim_store
from handsell.storage.published_state import open_published_state


def clean_on_cluster(config: Config) -> str:
    """Run `clean`, connected to the running cluster that the environment names; without one, nothing is started."""
    if not os.environ.get("RAY_ADDRESS") or not has_one_writer(config):
        return clean(config)
    with connect(config.jobs.num_cpus):
        return clean(config)


def clean(config: Config) -> str:
    """Remove old bundles, rows of the event store, compacted ranges, training runs and logs; return a sentence.

    Through the writer of a service that runs on the connected cluster. Raises EventStoreError if the store does not
    answer; whatever was removed until then stays removed, and the next run continues.
    """
    bundles = remove_old_bundles(config)  # first: a removed bundle needs no rows any more
    ranges = remove_old_ranges(config)
    runs, logs = remove_old_runs(config), remove_old_logs(config)
    open_published_state(config).remove_unlisted()
    with open_store_writer(config) as write:
        rows = trim_store(config, write)
    return (
        f"removed {rows.events:,} events, {rows.slates:,} slates, {rows.catalog_changes:,} catalog changes and "
        f"{rows.audit:,} entries of the audit log from the event store, {len(bundles)} bundles, {runs.count} training "
        f"runs, {ranges} compacted ranges and {logs.count} log files"
    )
