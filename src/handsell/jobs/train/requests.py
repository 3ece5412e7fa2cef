"""Requests of a training window, with the user's row as Feast gives it for each (user, time)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from handsell.catalog.snapshot import Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import NONE, Requests
from handsell.core.paths import Layout
from handsell.data.splits import WindowRequests
from handsell.eligibility.mask import Eligibility
from handsell.features.request_builder import requests_from_rows
from handsell.jobs.train.windows import read_requests

CHUNK = 256  # requests that one task holds as feature matrix: 256 × 1000 × 60 × 4 bytes = 61 MB


def fetch_user_rows(config: Config, run: Path, window: str) -> int:
    """Ask Feast for the user rows of a window's requests, point in time; writes run/rows/<window>.parquet."""
    from handsell.features.store import open_store

    found = read_requests(run / "windows" / f"{window}.parquet")
    users = Vocabulary.load(Layout(config.state).catalog / "users").ids(found.user)
    rows = open_store(config).historical_users(users, found.time)
    (run / "rows").mkdir(exist_ok=True)
    pq.write_table(pa.table(dict(rows)), run / "rows" / f"{window}.parquet")
    return len(found)


def chunks(run: Path, window: str) -> list[slice]:
    count = pq.read_metadata(run / "windows" / f"{window}.parquet").num_rows
    return [slice(begin, min(begin + CHUNK, count)) for begin in range(0, count, CHUNK)]


def load_requests(
    config: Config, run: Path, window: str, rows: slice, snapshot: Snapshot, away: int | None = None
) -> tuple:
    """(Requests, WindowRequests) of some rows of a window: outcomes that were not eligible are left out.

    `away` µs asks every request that long after its user's last event, instead of as the window says.
    """
    outcome = read_requests(run / "windows" / f"{window}.parquet", rows)
    table = pq.read_table(run / "rows" / f"{window}.parquet").slice(rows.start, rows.stop - rows.start)
    home = config.surface_names.index("home")  # windows are cut from its point of view
    surface = np.full(len(outcome), home, np.int8)
    requests = requests_from_rows(
        {name: table[name].combine_chunks() for name in table.column_names},
        snapshot, config, outcome.time, surface,
        away=outcome.away if away is None else np.full(len(outcome), away),
    )  # fmt: skip
    return requests, _eligible_outcome(requests, outcome, snapshot, config)


def _eligible_outcome(
    requests: Requests, outcome: WindowRequests, snapshot: Snapshot, config: Config
) -> WindowRequests:
    """What the funnel may not show is not asked of it: ineligible items leave what the user acted on."""
    eligibility = Eligibility.of(snapshot, config)
    width = int(outcome.acted.lengths.max(initial=0))
    row, acted = outcome.acted.row_of_value, outcome.acted
    column = np.arange(len(acted.values)) - acted.offsets[row]
    padded = np.full((len(requests), width), NONE, np.int32)
    padded[row, column] = acted.values
    keep = eligibility.allows(requests, padded)[row, column]
    return replace(outcome, acted=acted.where(keep), gain=outcome.gain.where(keep))
