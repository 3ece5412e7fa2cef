"""Labeled examples for the ranker: candidates of a window's requests, item values as of each day, labels.

Each step is a set of Ray tasks over chunks of requests, which read and write files in the run's folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from handsell.bundles.stages import load_candidates
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config, load_config
from handsell.core.batches import NONE, Candidates, Requests
from handsell.core.funnel import run_local
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.features.item import DailyValues, ItemDays, get_untouched_values, list_item_columns, select_item_columns
from handsell.features.matrix import build_matrix, list_features
from handsell.features.registry import find_features
from handsell.jobs.cluster import run_tasks
from handsell.jobs.train.requests import list_chunks, load_requests
from handsell.ranking.examples import Outcomes, ShownItems, append_history, label_examples
from handsell.ranking.shards import write_shards
from handsell.retrieval.stage import LocalCandidates

FIRST_DAY = -(2**31)  # of the keys of (item, day) pairs
ARRAYS = ("item", "fused", "source_score", "source_rank")


def find_candidates(config: Config, run: Path, models: Path, window: str) -> int:
    """Run the candidate stage of `models` on the requests of a window; return the number of requests.

    Writes candidates/<window>/<first row>.npz to the folder `run`, with the (item, day) pairs that need values.
    """
    (run / "candidates" / window).mkdir(parents=True, exist_ok=True)
    parts = [(config, run, models, window, rows) for rows in list_chunks(run, window)]
    return sum(run_tasks(retrieve_candidates, parts, wait_s=config.jobs.wait_for_resources_s))


def retrieve_candidates(config: Config, run: Path, models: Path, window: str, rows: slice) -> int:
    """Find the candidates of one chunk of requests. A Ray task."""
    snapshot, stage = _load_candidate_stage(config, models)
    requests, _ = load_requests(config, run, window, rows, snapshot)
    found = run_local(stage.candidates(requests, config.retrieval.candidates))
    read = found.item
    if count := config.ranking.history_items:
        read = np.concatenate([read, requests.history.item[:, -count:]], axis=1)
    day = np.broadcast_to((requests.time // DAY_US)[:, None], read.shape)
    real = read != NONE
    pairs = np.unique(np.stack([read[real].astype(np.int64), day[real]], axis=1), axis=0)
    folder = run / "candidates" / window
    np.savez(folder / f"{rows.start:09d}.npz", pairs=pairs, **{name: getattr(found, name) for name in ARRAYS})
    return len(requests)


def _load_candidate_stage(config: Config, models: Path) -> tuple[Snapshot, LocalCandidates]:
    """Load the snapshot and the candidate stage, once per worker process."""
    return _cached_stage(config.model_dump_json(), str(config.source), str(models))


@lru_cache(maxsize=2)
def _cached_stage(config_json: str, source: str, models: str) -> tuple[Snapshot, LocalCandidates]:
    snapshot = Snapshot.load(Layout(load_config(source).state).snapshot)
    return snapshot, load_candidates(Path(models), Config.model_validate(json.loads(config_json)), snapshot)


def fetch_item_values(config: Config, run: Path, windows: Sequence[str]) -> int:
    """Fetch from Feast the values of each (item, day) among the candidates of windows; return how many were fetched.

    Writes item_days/<window>.npz to the folder `run`: item, day, values of the registered item features. Pairs that the
    file has already are not fetched again; one that several windows need is fetched once. A Ray task.
    """
    from handsell.features.store import open_store  # Feast takes seconds to import: only tasks that query it do

    names, known, missing = tuple(find_features("item")), {}, {}
    for window in windows:
        path = run / "item_days" / f"{window}.npz"
        known[window] = _read_item_days(path) if path.exists() else None
        missing[window] = _list_missing_pairs(run, window, known[window])
    pairs = np.unique(np.concatenate([np.zeros(0, np.int64), *missing.values()]))
    values = np.zeros((0, len(names)), np.float32)
    if len(pairs):
        item, day = _split_keys(pairs)
        ids = Snapshot.load(Layout(config.state).snapshot).items.ids(item)
        columns = open_store(config).historical_items(ids, day * DAY_US)
        values = np.stack([columns[name].to_numpy(zero_copy_only=False) for name in names], axis=1).astype(np.float32)
        is_untouched = np.isnan(values).all(axis=1, keepdims=True)  # no row: no event yet
        values = np.where(is_untouched, get_untouched_values(), values)
    for window, wanted in missing.items():
        found = ItemDays(*_split_keys(wanted), values[np.searchsorted(pairs, wanted)])
        _add_item_days(run / "item_days" / f"{window}.npz", known[window], found)
    return len(pairs)


def _list_missing_pairs(run: Path, window: str, known: ItemDays | None) -> np.ndarray:
    """Return the keys of the (item, day) pairs of a window's candidates that are not known, ascending."""
    parts = [np.load(path)["pairs"] for path in sorted((run / "candidates" / window).glob("*.npz"))]
    keys = np.unique(np.concatenate([np.zeros(0, np.int64), *(_pair_keys(*pairs.T) for pairs in parts)]))
    return keys if known is None else keys[~np.isin(keys, _pair_keys(known.item, known.day))]


def _add_item_days(path: Path, known: ItemDays | None, found: ItemDays) -> None:
    if known is not None:
        if not len(found):
            return
        both = ((getattr(known, name), getattr(found, name)) for name in ("item", "day", "values"))
        found = ItemDays(*(np.concatenate(pair) for pair in both))
    path.parent.mkdir(exist_ok=True)
    np.savez(path, item=found.item, day=found.day, values=found.values)


def _pair_keys(item: np.ndarray, day: np.ndarray) -> np.ndarray:
    return item.astype(np.int64) << 32 | (day - FIRST_DAY)


def _split_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return item int32 and day int64 of each key."""
    return (keys >> 32).astype(np.int32), (keys & 0xFFFFFFFF) + FIRST_DAY


def _read_item_days(path: Path) -> ItemDays:
    with np.load(path) as arrays:
        return ItemDays(arrays["item"], arrays["day"], arrays["values"])


def load_item_values(config: Config, run: Path, window: str, snapshot: Snapshot) -> DailyValues:
    """Load the values of a window's candidates as of each day; columns of the source tables are the snapshot's."""
    days = _read_item_days(run / "item_days" / f"{window}.npz")
    return DailyValues.of(days, select_item_columns(snapshot, config), list_item_columns(config))


def write_examples(config: Config, run: Path, models: Path, window: str) -> int:
    """Label the candidates of a window and write them as shards to examples/<window>; return the number of examples."""
    parts = [(config, run, models, window, rows) for rows in list_chunks(run, window)]
    return sum(run_tasks(_label_candidates, parts, wait_s=config.jobs.wait_for_resources_s))


def _label_candidates(config: Config, run: Path, models: Path, window: str, rows: slice) -> int:
    """Write the examples of one chunk of requests; return their number without the rows of the history."""
    snapshot, _ = _load_candidate_stage(config, models)
    requests, outcome = load_requests(config, run, window, rows, snapshot)
    found = read_candidates(run / "candidates" / window / f"{rows.start:09d}.npz", config.retrieval.enabled)
    values = load_item_values(config, run, window, snapshot)
    shown = ShownItems(outcome.shown, outcome.position, outcome.propensity)
    if config.ranking.impressions == "off":
        shown = ShownItems.empty(len(requests))

    def matrix(some: Requests, candidates: Candidates, pick: np.ndarray) -> np.ndarray:
        return build_matrix(some, candidates, values, snapshot, config, pick)

    examples = label_examples(
        requests, found, Outcomes(outcome.acted, outcome.gain), shown, matrix,
        negatives=config.ranking.negatives, seed=config.ranking.seed, propensity_cap=config.ranking.propensity_cap,
    )  # fmt: skip
    labeled = len(examples)
    if config.ranking.history_items:
        examples = append_history(examples, requests, config.ranking.history_items, found.sources, matrix)
    features = list_features(config, found.sources)
    write_shards(examples, features, run / "examples" / window, f"{rows.start:09d}", max(config.ranking.workers, 1))
    return labeled


def read_candidates(path: Path, sources: tuple[str, ...]) -> Candidates:
    with np.load(path) as found:
        arrays = {name: found[name] for name in ARRAYS}
    return Candidates(**arrays, score=arrays["fused"], sources=sources)
