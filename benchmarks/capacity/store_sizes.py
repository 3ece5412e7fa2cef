"""Bytes of an event and of a slate in the event store and in compacted files, and of a user in the online store."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from benchmarks.soak.feed import Feed
from benchmarks.soak.feeder import draw_events, draw_slates
from benchmarks.soak.store_run import publish, write_deployment
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.paths import Layout
from handsell.events.compaction import compact
from handsell.events.store.opening import open_writer
from handsell.maintenance.files import measure_folder

EVENTS, SLATES = 30_000, 10_000


def measure_stores() -> dict[str, float]:
    """Bytes of rows, in a SQLite store of its own; HANDSELL_HOME is as before afterwards."""
    before = os.environ.get("HANDSELL_HOME")
    with tempfile.TemporaryDirectory(prefix="handsell-capacity-") as folder:
        try:
            return _measure_rows(write_deployment(Path(folder), keep_keys=True))
        finally:
            os.environ.pop("HANDSELL_HOME")
            if before is not None:
                os.environ["HANDSELL_HOME"] = before


def _measure_rows(config: Config) -> dict[str, float]:
    publish(config, 0)
    layout, found = Layout(config.state), dict[str, float]()
    with closing(open_writer(config)) as log:
        for name, count, method, draw in (
            ("event", EVENTS, log.append, draw_events), ("slate", SLATES, log.append_slates, draw_slates),
        ):  # fmt: skip
            stored = _measure_database(layout.event_log)
            compacted = measure_folder(layout.compacted) if layout.compacted.exists() else 0
            for rows in draw(config, Feed(str(config.source), EVENTS, SLATES, 1)):
                method(rows).result()
            found[f"{name}_bytes"] = (_measure_database(layout.event_log) - stored) / count
            compact(config, lambda _: None)
            found[f"compacted_{name}_bytes"] = (measure_folder(layout.compacted) - compacted) / count
    return found


def _measure_database(path: Path) -> int:
    """Bytes of the pages in use, also those that are still in the log of the database."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        pages, free, size = (
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
    return (pages - free) * size


def measure_online_user(config: Config) -> float:
    """Bytes of a user in the SQLite online store of a deployment."""
    layout = Layout(config.state)
    users = len(Vocabulary.load(layout.catalog / "users"))
    with closing(sqlite3.connect(f"file:{layout.feast / 'online.db'}?mode=ro", uri=True)) as db:
        total = db.execute("SELECT sum(pgsize) FROM dbstat WHERE name LIKE '%\\_user\\_%' ESCAPE '\\'").fetchone()[0]
    return (total or 0) / users
