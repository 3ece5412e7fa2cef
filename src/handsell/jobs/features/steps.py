"""The steps from numbered events to the online store: compute feature values, register the views, copy the newest rows.

Each function runs its step and records its inputs; `is_unchanged` tells whether a step need not run.
"""

from __future__ import annotations

from pathlib import Path

from handsell.config import Config
from handsell.core.paths import Layout, has_content
from handsell.events.compacted_files import read_position
from handsell.features.repository import build_feast_settings, list_definitions
from handsell.jobs.features.materialization import is_filled, materialize_rows
from handsell.jobs.progress import Progress
from handsell.jobs.step_records import code_digest, digest_files, is_current, read_record, record_step


def compute_features(config: Config, progress: Progress | None = None) -> str:
    """Compute the sources of every feature view and the item snapshot, on Ray; return the numbers of rows."""
    from handsell.jobs.cluster import open_cluster
    from handsell.jobs.features.feature_tables import compute_feature_tables
    from handsell.jobs.train.windows import write_request_keys

    with record_step(config, "features", _list_inputs(config)["features"]), open_cluster(config):
        counts = compute_feature_tables(config, write_request_keys(config), progress)
    return f"{counts['user_activity']:,} user rows and {counts['item_activity']:,} item-day rows"


def register_features(config: Config) -> str:
    """Register the feature repository with Feast, as `feast apply` does."""
    from handsell.features.store import open_store

    with record_step(config, "apply", _list_inputs(config)["apply"]):
        open_store(config).apply()
    return "registered"


def materialize(config: Config) -> str:
    """Copy the newest feature values to the online store."""
    with record_step(config, "materialize", _list_inputs(config)["materialize"]):
        materialize_rows(config)
    return "the online store is up to date"


def is_unchanged(config: Config, step: str) -> bool:
    """Return whether a step has run with the present inputs, and its results are there."""
    layout = Layout(config.state)
    if not is_current(config, step, _list_inputs(config)[step]):
        return False
    match step:
        case "features":
            return has_content(layout.features, layout.snapshot)
        case "apply":
            return has_content(layout.feast / "registry.db", *list_online_files(config))
        case _:
            return is_filled(config)


def list_online_files(config: Config) -> list[Path]:
    """Return the file of an online store in SQLite, whose tables apply creates."""
    path = build_feast_settings(config)["online_store"].get("path")
    return [Path(path)] if path else []


def _list_inputs(config: Config) -> dict[str, object]:
    """Step → what its results depend on."""
    layout = Layout(config.state)
    meta = layout.data_meta
    settings = config.model_dump(mode="json", include={"features", "split", "events", "jobs"})
    shown = [read_position(layout.compacted, "impressions"), config.ranking.impressions, config.ranking.outcome_hours]
    store, code = build_feast_settings(config), code_digest()
    return {
        "features": [settings, code, shown, meta.read_text(encoding="utf-8") if meta.is_file() else ""],
        "apply": [settings["features"], store, code, digest_files(list_definitions(config))],
        "materialize": [store, read_record(config, "features"), read_record(config, "apply")],
    }
