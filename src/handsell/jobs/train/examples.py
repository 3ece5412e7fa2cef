"""From the requests of a window to labeled examples: candidates, item values as of each day, the matrix.

Each step is a set of Ray tasks over chunks of requests; what passes between them lies in the run's folder.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from handsell.bundles.stages import load_candidates
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Candidates
from handsell.core.funnel import run_local
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.features.item import DailyValues, ItemDays, item_column_names, select_item_columns, untouched_values
from handsell.features.matrix import build_matrix, feature_names
from handsell.features.registry import find_features
from handsell.jobs.cluster import spread
from handsell.jobs.train.requests import chunks, load_requests
from handsell.ranking.examples import Outcomes, ShownItems, label_examples
from handsell.ranking.shards import write_shards

ARRAYS = ("item", "fused", "source_score", "source_rank")


def find_candidates(config: Config, run: Path, models: Path, window: str) -> int:
    """Run the window's requests through the candidate stage of `models`; returns how many requests.

    Writes run/candidates/<window>/<first row>.npz, and beside it the (item, day) pairs that need values.
    """
    (run / "candidates" / window).mkdir(parents=True, exist_ok=True)
    parts = [(config, run, models, window, rows) for rows in chunks(run, window)]
    return sum(spread(find_chunk, parts, wait_s=config.jobs.wait_for_resources_s))


def find_chunk(config: Config, run: Path, models: Path, window: str, rows: slice) -> int:
    snapshot, stage = _candidate_stage(config, models)
    requests, _ = load_requests(config, run, window, rows, snapshot)
    found = run_local(stage.candidates(requests, config.retrieval.candidates))
    day = np.broadcast_to((requests.time // DAY_US)[:, None], found.item.shape)
    real = found.item != NONE
    pairs = np.unique(np.stack([found.item[real].astype(np.int64), day[real]], axis=1), axis=0)
    folder = run / "candidates" / window
    np.savez(folder / f"{rows.start:09d}.npz", pairs=pairs, **{name: getattr(found, name) for name in ARRAYS})
    return len(requests)


@lru_cache(maxsize=2)
def _loaded(config_json: str, source: str, models: str):
    from handsell.config import load_config

    config = load_config(source)
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    return snapshot, load_candidates(Path(models), Config.model_validate(json.loads(config_json)), snapshot)


def _candidate_stage(config: Config, models: Path):
    """Loaded once per worker process, whatever the number of chunks it gets."""
    return _loaded(config.model_dump_json(), str(config.source), str(models))


def fetch_item_days(config: Config, run: Path, window: str) -> int:
    """Ask Feast for the values of every (item, day) among a window's candidates; returns how many it was asked for.

    Writes run/item_days/<window>.npz: item, day, values of the registered item features. What the file holds already,
    from other candidates of the same run, is kept and not asked again.
    """
    from handsell.features.store import open_store

    parts = [np.load(path)["pairs"] for path in sorted((run / "candidates" / window).glob("*.npz"))]
    pairs = np.unique(np.concatenate(parts), axis=0) if parts else np.zeros((0, 2), np.int64)
    path = run / "item_days" / f"{window}.npz"
    names = tuple(find_features("item"))
    held = _read_days(path) if path.exists() else _no_days(len(names))
    pairs = pairs[~np.isin(_keys(*pairs.T), _keys(held.item, held.day))]
    if path.exists() and not len(pairs):
        return 0
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    columns = open_store(config).historical_items(snapshot.items.ids(pairs[:, 0]), pairs[:, 1] * DAY_US)
    values = np.stack([columns[name].to_numpy(zero_copy_only=False) for name in names], axis=1)
    values = _untouched_as_zero(values.astype(np.float32))
    path.parent.mkdir(exist_ok=True)
    item, day = np.concatenate([held.item, pairs[:, 0].astype(np.int32)]), np.concatenate([held.day, pairs[:, 1]])
    np.savez(path, item=item, day=day, values=np.concatenate([held.values, values]))
    return len(pairs)


def _keys(item: np.ndarray, day: np.ndarray) -> np.ndarray:
    return item.astype(np.int64) << 32 | day


def _read_days(path: Path) -> ItemDays:
    with np.load(path) as found:
        return ItemDays(found["item"], found["day"], found["values"])


def _no_days(width: int) -> ItemDays:
    return ItemDays(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros((0, width), np.float32))


def _untouched_as_zero(values: np.ndarray) -> np.ndarray:
    """A pair without a row is an item that nobody had touched yet: its counts are 0, its rate is unknown."""
    return np.where(np.isnan(values).all(axis=1, keepdims=True), untouched_values(), values)


def day_values(config: Config, run: Path, window: str, snapshot: Snapshot) -> DailyValues:
    """The item values of a window, as Feast gave them."""
    rows = _read_days(run / "item_days" / f"{window}.npz")
    return DailyValues.of(rows, select_item_columns(snapshot, config), item_column_names(config))


def write_examples(config: Config, run: Path, models: Path, window: str) -> int:
    """Label the window's candidates; shards in run/examples/<window>; returns how many examples."""
    parts = [(config, run, models, window, rows) for rows in chunks(run, window)]
    return sum(spread(_label_chunk, parts, wait_s=config.jobs.wait_for_resources_s))


def _label_chunk(config: Config, run: Path, models: Path, window: str, rows: slice) -> int:
    snapshot, _ = _candidate_stage(config, models)
    requests, outcome = load_requests(config, run, window, rows, snapshot)
    found = read_candidates(run / "candidates" / window / f"{rows.start:09d}.npz", config.retrieval.enabled)
    values = day_values(config, run, window, snapshot)
    examples = label_examples(
        requests, found,
        Outcomes(outcome.acted, outcome.gain),
        ShownItems(outcome.shown, outcome.position, outcome.propensity),
        lambda asked, all_found, pick: build_matrix(asked, all_found, values, snapshot, config, pick),
        negatives=config.ranking.negatives, seed=config.ranking.seed,
    )  # fmt: skip
    features = feature_names(config, found.sources)
    write_shards(examples, features, run / "examples" / window, f"{rows.start:09d}", max(config.ranking.workers, 1))
    return len(examples)


def read_candidates(path: Path, sources: tuple[str, ...]) -> Candidates:
    with np.load(path) as found:
        arrays = {name: found[name] for name in ARRAYS}
    return Candidates(**arrays, score=arrays["fused"], sources=sources)
