"""Commands for feature values and the feature store."""

from __future__ import annotations

from handsell.cli.arguments import ConfigPath, load, load_on_cluster
from handsell.jobs.progress import report_result


def features(config: ConfigPath) -> None:
    """Compute feature values for Feast, and the item snapshot, on Ray."""
    loaded = load_on_cluster(config)

    from handsell.jobs.cluster import connect
    from handsell.jobs.features.feature_tables import compute_feature_tables
    from handsell.jobs.train.windows import write_request_keys

    with connect(loaded.jobs.num_cpus):
        counts = compute_feature_tables(loaded, write_request_keys(loaded))
    report_result(f"{counts['user_activity']:,} user rows and {counts['item_activity']:,} item-day rows")


def apply(config: ConfigPath) -> None:
    """Register the feature repository with Feast, as `feast apply` does."""
    from handsell.features.store import open_store

    open_store(load(config)).apply()
    report_result("registered")


def materialize(config: ConfigPath) -> None:
    """Copy the newest feature values to the online store."""
    from handsell.features.store import open_store

    open_store(load(config)).materialize()
    report_result("the online store is up to date")
