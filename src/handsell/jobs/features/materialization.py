"""Copying of the newest feature values to the online store."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from handsell.config import Config
from handsell.core.paths import Layout, has_content
from handsell.features.repository import build_feast_settings

VIEW = "user_activity"  # has a row for every user with events


def materialize_rows(config: Config) -> None:
    """Write the newest row of each user and item to the online store."""
    from handsell.features.store import open_store  # imports Feast, which takes seconds

    open_store(config).materialize()


def is_filled(config: Config) -> bool:
    """Return whether the online store has the row of a user who has one offline; a restarted Redis may be empty."""
    settings = build_feast_settings(config)["online_store"]
    if "path" in settings:
        return has_content(Path(settings["path"]))
    part = next(iter(sorted((Layout(config.state).features / VIEW).glob("*.parquet"))), None)
    ids = [] if part is None else pq.read_table(part, columns=["user_id"]).slice(0, 1)["user_id"].to_pylist()
    if not ids:
        return part is not None
    from handsell.features.store import open_store  # imports Feast, which takes seconds

    try:
        rows = open_store(config).online_users(ids)
    except Exception:  # any error of Feast or of the store's client: materialize reports it
        return False
    return any(values[0] is not None for values in rows.values())
