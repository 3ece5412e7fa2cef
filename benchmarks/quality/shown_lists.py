"""MRR of a ranker on the hotel lists that were shown at click-outs (trivago), beside position order and price order.

The source is converted to tables (deployments/configs/examples/trivago.py), and the windows are those of trivago.toml:
the newest event of each user is the test. Where it is a click-out, the shown list is ranked as of the moment before it.
Sources, features and the ranker are those of the product, fitted in this process, without Ray; the ranker learns
from the lists shown in the windows before. Its features are those of the funnel and, unless it is "without the list",
the position in the list and the price: its place among the prices of the list, and its ratio to their median.
"Latest" lists hotels that the user has acted on, newest first, then the others by position.

    python -m benchmarks shown_lists
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported

import numpy as np

from benchmarks.quality.in_process import (
    keep_in_process,
    load_item_values_in_time,
    prepare_features,
    run_in_process,
    start_run,
)
from benchmarks.quality.served_quality import IGNORED_VARIABLES, find_data
from benchmarks.report import write_report
from handsell.bundles.stages import load_candidates
from handsell.catalog.snapshot import Snapshot
from handsell.config import load_config
from handsell.core.batches import NONE, Candidates, Ragged, Requests
from handsell.core.funnel import run_local
from handsell.core.paths import Layout
from handsell.evaluation.intervals import compare_all, estimate_means
from handsell.features.item import DailyValues
from handsell.features.matrix import build_matrix, list_features
from handsell.jobs.train.requests import list_chunks, load_requests
from handsell.jobs.train.retrievers import fit_retrievers
from handsell.jobs.train.training_run import TrainingRun
from handsell.jobs.tuning.source_selection import with_sources
from handsell.ranking.examples import Outcomes, ShownItems, hash_requests, label_examples
from handsell.ranking.fitting import fit_xgboost
from handsell.ranking.shards import write_shards
from handsell.retrieval.score_items import score_items

EXAMPLES = Path(__file__).parents[2] / "deployments" / "configs" / "examples"
SOURCES = ("popularity", "history", "content")  # those that training picks on this data
LIST_FEATURES = ("list_position", "list_price_place", "list_price_ratio")
BASELINES = ("position order", "price order", "latest, then position")
PRICE = "item_price"
WINDOWS = ("ranker", "validation", "test")


@dataclass(frozen=True)
class ShownLists:
    """B requests whose user acted on an item of the list that was shown, in the order of the list."""

    requests: Requests
    item: np.ndarray  # (B, K) int32, -1 pads
    clicked: np.ndarray  # (B, K) bool
    candidates: Candidates
    x: np.ndarray  # (B, K, F) float32, features of the funnel, then LIST_FEATURES


def main() -> None:
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks shown_lists", description=about)
    parser.add_argument(
        "--data", type=Path, help="folder of the trivago sample (default: trivago-sample of the data sets)"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep tables and state here")
    parser.add_argument("--out", type=Path, metavar="FILE", help="output file (JSON)")
    options = parser.parse_args()
    for name in IGNORED_VARIABLES:
        os.environ.pop(name, None)
    with nullcontext(options.keep) if options.keep else TemporaryDirectory(prefix="lists-") as place:
        folder = Path(place).resolve()
        source = options.data or find_data() / "trivago-sample"
        subprocess.run([sys.executable, EXAMPLES / "trivago.py", source, folder / "tables"], check=True)
        os.environ |= {"HANDSELL_HOME": str(folder / "home"), "HANDSELL_DATA": str(folder / "tables")}
        config = keep_in_process(with_sources(load_config(EXAMPLES / "trivago.toml"), dict.fromkeys(SOURCES)))
        with run_in_process(config):
            prepare_features(config)
            run = start_run(config, folder / "run")
            fit_retrievers(config, run.folder / "fit", run.holdout)
        rows = measure(run)
    write_report("shown_lists", rows, {"sources": ", ".join(SOURCES)}, options.out)


def measure(run: TrainingRun) -> list[dict[str, Any]]:
    """Fit the rankers on the lists of the earlier windows, and score all orders on those of the test window."""
    config, snapshot = run.config, Snapshot.load(Layout(run.config.state).snapshot)
    values = load_item_values_in_time(config, snapshot)
    lists = {window: load_lists(run, window, snapshot, values) for window in WINDOWS}
    funnel = list_features(config, lists["test"].candidates.sources)
    print({window: len(found.item) for window, found in lists.items()}, flush=True)
    for window in WINDOWS[:2]:
        write_list_examples(lists[window], funnel, run, window)
    test = lists["test"]
    scores = dict(zip(BASELINES, score_baselines(test, funnel), strict=True))
    for name, features in {"ranker": (*funnel, *LIST_FEATURES), "ranker without the list": funnel}.items():
        examples = run.folder / "examples"
        fitted = fit_xgboost(examples / "ranker", examples / "validation", config.ranking, features)
        scores[name] = fitted.raw(test.x[:, :, : len(features)])
    return build_rows({name: reciprocal_ranks(score, test) for name, score in scores.items()}, test.requests.user)


def load_lists(run: TrainingRun, window: str, snapshot: Snapshot, values: DailyValues) -> ShownLists:
    """Load the requests of a window that were followed by one shown list with an item that the user acted on."""
    config, rows = run.config, slice(0, list_chunks(run.folder, window)[-1].stop)
    requests, outcome = load_requests(config, run.folder, window, rows, snapshot)
    kept, items, clicked = [], [], []
    for b in range(len(requests)):
        shown, position = outcome.shown.row(b), outcome.position.row(b)
        liked = outcome.acted.row(b)[outcome.gain.row(b) > 0]
        if np.isin(shown, liked).any() and len(np.unique(position)) == len(position):
            order = np.argsort(position)
            kept.append(b)
            items.append(shown[order])
            clicked.append(np.isin(shown[order], liked))
    some, item = requests.take(np.array(kept)), pad(items, NONE).astype(np.int32)
    stage = load_candidates(run.holdout, config, snapshot)
    found = run_local(score_items(stage, some, item))
    x = build_matrix(some, found, values, snapshot, config)
    price = x[:, :, list_features(config, found.sources).index(PRICE)]
    return ShownLists(some, item, pad(clicked, False), found, np.concatenate([x, describe_list(item, price)], axis=2))


def describe_list(item: np.ndarray, price: np.ndarray) -> np.ndarray:
    """Return LIST_FEATURES (B, K, 3) of items in the order of the list."""
    known = np.where(item == NONE, np.nan, price)
    place = np.argsort(np.argsort(np.nan_to_num(known, nan=np.inf), axis=1, kind="stable"), axis=1)
    position = np.broadcast_to(np.arange(item.shape[1]), item.shape)
    return np.stack([position, place, known / np.nanmedian(known, axis=1, keepdims=True)], axis=2).astype(np.float32)


def pad(rows: list[np.ndarray], fill: Any) -> np.ndarray:
    """Return (B, K) rows padded to the longest."""
    out = np.full((len(rows), max(map(len, rows))), fill)
    for b, row in enumerate(rows):
        out[b, : len(row)] = row
    return out


def write_list_examples(lists: ShownLists, features: tuple[str, ...], run: TrainingRun, window: str) -> None:
    """Write the lists as examples: the items acted on, and all others as negatives."""
    rows = [(items[hit], items[items != NONE]) for items, hit in zip(lists.item, lists.clicked, strict=True)]
    acted = Ragged.from_rows([hit for hit, _ in rows])
    grade = Ragged(np.ones(len(acted.values), np.float32), acted.offsets)
    examples = label_examples(
        lists.requests, lists.candidates, Outcomes(acted, grade),
        ShownItems.empty(len(rows)), lambda some, _, pick: _take(lists, some, pick),
        negatives=lists.item.shape[1], seed=0,
    )  # fmt: skip
    write_shards(examples, (*features, *LIST_FEATURES), run.folder / "examples" / window, "lists", 1)


def _take(lists: ShownLists, some: Requests, pick: np.ndarray) -> np.ndarray:
    """Return the features of the picked columns; `some` requests are those of the lists, in their order."""
    place = {key: b for b, key in enumerate(hash_requests(lists.requests).tolist())}
    rows = np.array([place[key] for key in hash_requests(some).tolist()])
    return np.take_along_axis(lists.x[rows], pick[:, :, None], axis=1)


def score_baselines(lists: ShownLists, features: tuple[str, ...]) -> list[np.ndarray]:
    """Return scores (B, K) of BASELINES, larger is better."""
    names = [*features, *LIST_FEATURES]
    position, price, hours = (lists.x[:, :, names.index(name)] for name in ("list_position", PRICE, "hours_since_item"))
    latest = np.where(np.isfinite(hours), 1e6 - hours, -position)
    return [-position, -np.nan_to_num(price, nan=np.inf), latest]


def reciprocal_ranks(score: np.ndarray, lists: ShownLists) -> np.ndarray:
    """Return (B,) 1 / rank of the first item that the user acted on; ties keep the order of the list."""
    order = np.argsort(np.where(lists.item == NONE, np.inf, -score), axis=1, kind="stable")
    return 1 / (1 + np.argmax(np.take_along_axis(lists.clicked, order, 1), axis=1))


def build_rows(found: dict[str, np.ndarray], user: np.ndarray) -> list[dict[str, Any]]:
    """Build a row per order: MRR with its interval, and the difference of the ranker to it."""
    means = estimate_means(found, user)
    pairs = compare_all({name: -values for name, values in found.items()}, -found["ranker"], user)
    return [
        {
            "order": name, "lists": mean.requests, "mrr": mean.mean, "low": mean.low, "high": mean.high,
            "ranker − it": pairs[name].difference, "from": pairs[name].low, "to": pairs[name].high,
        }
        for name, mean in means.items()
    ]  # fmt: skip


if __name__ == "__main__":
    main()
