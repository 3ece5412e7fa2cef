"""Requests of a training window: stored as Parquet, joined with user rows from Feast, labeled for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from handsell.catalog.snapshot import Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import NONE, Ragged, Requests
from handsell.core.offsets import offsets_from_counts
from handsell.core.paths import Layout
from handsell.data.splits import WindowRequests
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.metrics import Relevant
from handsell.features.request_builder import build_requests_from_rows
from handsell.ranking.examples import HIGHEST_LABEL

CHUNK = 256  # requests of one task, whose feature matrix takes 256 × 1000 × 60 × 4 bytes = 61 MB
SCHEMA = pa.schema(
    [
        pa.field("user", pa.int32()),
        pa.field("time", pa.int64()),
        pa.field("away", pa.int64()),
        *(pa.field(name, pa.list_(pa.from_numpy_dtype(kind))) for name, kind in WindowRequests.RAGGED.items()),
    ]
)


@dataclass(frozen=True, slots=True)
class EvaluationRequests:
    """Requests, and the items that are relevant to each."""

    requests: Requests
    relevant: Relevant

    def __len__(self) -> int:
        return len(self.requests)

    def take(self, rows: slice | np.ndarray) -> EvaluationRequests:
        return EvaluationRequests(self.requests.take(rows), self.relevant.take(rows))

    def sample(self, most: int) -> EvaluationRequests:
        """Return at most `most` of them, drawn with a fixed seed, in their order."""
        return self.take(np.sort(np.random.default_rng(0).permutation(len(self))[:most]))


def build_requests_table(requests: WindowRequests) -> pa.Table:
    lists = {
        name: pa.ListArray.from_arrays(
            pa.array(getattr(requests, name).offsets.astype(np.int32)), pa.array(getattr(requests, name).values)
        )
        for name in WindowRequests.RAGGED
    }
    return pa.table({"user": requests.user, "time": requests.time, "away": requests.away, **lists}).cast(SCHEMA)


def read_requests(path: Path, rows: slice = slice(None)) -> WindowRequests:
    """Read some rows of a window's file."""
    table = pq.read_table(path)
    begin, end, _ = rows.indices(table.num_rows)
    table = table.slice(begin, end - begin)
    ragged = (_read_ragged(table[name].combine_chunks(), kind) for name, kind in WindowRequests.RAGGED.items())
    return WindowRequests(*(table[name].to_numpy() for name in ("user", "time", "away")), *ragged)


def _read_ragged(column: pa.ListArray, kind: type) -> Ragged:
    lengths = column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    return Ragged(column.flatten().to_numpy(zero_copy_only=False).astype(kind), offsets_from_counts(lengths))


def fetch_user_rows(config: Config, run: Path, windows: Sequence[str]) -> int:
    """Fetch the user row of each request of windows as of its time, all at once; return how many. A Ray task.

    Writes rows/<window>.parquet to the folder `run`.
    """
    from handsell.features.store import open_store  # Feast takes seconds to import: only tasks that query it do

    requests = [read_requests(run / "windows" / f"{window}.parquet") for window in windows]
    user, time = (np.concatenate([getattr(one, name) for one in requests]) for name in ("user", "time"))
    users = Vocabulary.load(Layout(config.state).catalog / "users").ids(user)
    rows = pa.table(dict(open_store(config).historical_users(users, time)))
    (run / "rows").mkdir(exist_ok=True)
    first = 0
    for window, one in zip(windows, requests, strict=True):
        pq.write_table(rows.slice(first, len(one)), run / "rows" / f"{window}.parquet")
        first += len(one)
    return len(rows)


def list_chunks(run: Path, window: str) -> list[slice]:
    """Return the rows of a window by task."""
    count = pq.read_metadata(run / "windows" / f"{window}.parquet").num_rows
    return [slice(begin, min(begin + CHUNK, count)) for begin in range(0, count, CHUNK)]


def load_requests(
    config: Config, run: Path, window: str, rows: slice, snapshot: Snapshot, away: int | None = None
) -> tuple[Requests, WindowRequests]:
    """Build requests of a window from the users' rows; return them with their outcome, eligible items only.

    `away`: place each request that many µs after the user's last event, instead of as the window says.
    """
    outcome = read_requests(run / "windows" / f"{window}.parquet", rows)
    table = pq.read_table(run / "rows" / f"{window}.parquet").slice(rows.start, rows.stop - rows.start)
    surface = np.full(len(outcome), config.surface_names.index("home"), np.int8)
    requests = build_requests_from_rows(
        {name: table[name].combine_chunks() for name in table.column_names},
        snapshot, config, outcome.time, surface,
        away=outcome.away if away is None else np.full(len(outcome), away),
    )  # fmt: skip
    return requests, _keep_eligible(requests, outcome, snapshot, config)


def _keep_eligible(requests: Requests, outcome: WindowRequests, snapshot: Snapshot, config: Config) -> WindowRequests:
    """Remove the items that the funnel may not show from what the users acted on."""
    acted = outcome.acted
    row, width = acted.row_of_value, int(acted.lengths.max(initial=0))
    column = np.arange(len(acted.values)) - acted.offsets[row]
    padded = np.full((len(requests), width), NONE, np.int32)
    padded[row, column] = acted.values
    keep = Eligibility.of(snapshot, config).allows(requests, padded)[row, column]
    return replace(outcome, acted=acted.where(keep), gain=outcome.gain.where(keep))


def load_evaluation_requests(
    config: Config, run: Path, window: str, snapshot: Snapshot, away: int | None = None
) -> EvaluationRequests:
    """Load the requests of a window to which at least one eligible item is relevant.

    `away`: place each of them that many µs after the user's last event; the relevant items stay the same.
    """
    tasks = list_chunks(run, window)
    rows = slice(0, tasks[-1].stop) if tasks else slice(0, 0)
    requests, outcome = load_requests(config, run, window, rows, snapshot)
    relevant = grade_outcome(outcome)
    if away is not None:
        requests, _ = load_requests(config, run, window, rows, snapshot, away)
    return EvaluationRequests(requests, relevant).take(relevant.item.lengths > 0)


def grade_outcome(outcome: WindowRequests) -> Relevant:
    """Return the items of positive total weight, graded like the ranker's labels."""
    positive = outcome.gain.values > 0
    items, gain = outcome.acted.where(positive), outcome.gain.where(positive)
    grades = np.clip(np.rint(gain.values), 1, HIGHEST_LABEL).astype(np.float32)
    return Relevant(items, Ragged(grades, items.offsets))
