"""Commands for feature values and the feature store."""

from __future__ import annotations

from handsell.cli.arguments import ConfigPath, load, load_on_cluster
from handsell.jobs.progress import report_result


def features(config: ConfigPath) -> None:
    """Compute feature values for Feast, and the item snapshot, on Ray."""
    loaded = load_on_cluster(config)

    from handsell.jobs.features.steps import compute_features
    from handsell.storage.published_state import synchronize

    with synchronize(loaded):
        outcome = compute_features(loaded)
    report_result(outcome)


def apply(config: ConfigPath) -> None:
    """Register the feature repository with Feast, as `feast apply` does."""
    from handsell.jobs.features.steps import register_features
    from handsell.storage.published_state import synchronize

    with synchronize(loaded := load(config)):
        outcome = register_features(loaded)
    report_result(outcome)


def materialize(config: ConfigPath) -> None:
    """Copy the newest feature values to the online store."""
    from handsell.jobs.features.steps import materialize as run
    from handsell.storage.published_state import synchronize

    with synchronize(loaded := load(config)):
        outcome = run(loaded)
    report_result(outcome)
