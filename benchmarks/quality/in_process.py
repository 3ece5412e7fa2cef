"""Training steps in this process, without a Ray cluster: for measurements on data that one process can handle.

The steps are those of the training job. Ray tasks run here one after the other; retrievers that otherwise have workers
of their own, and the ranker, are fitted by the functions that those workers call.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from handsell.bundles.stages import Stages, load_stages
from handsell.catalog.snapshot import Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.features.item import DailyValues, ItemDays, list_item_columns, select_item_columns
from handsell.features.registry import find_features
from handsell.jobs import cluster
from handsell.jobs.features.feature_tables import compute_feature_tables
from handsell.jobs.features.steps import register_features
from handsell.jobs.ingest import ingest
from handsell.jobs.progress import Progress
from handsell.jobs.train import retrievers, train, windows
from handsell.jobs.train.training_run import TrainingRun
from handsell.ranking.fitting import fit_xgboost
from handsell.ranking.xgboost_ranker import XGBoostRanker
from handsell.retrieval import config as retrieval_config


@contextmanager
def run_in_process() -> Iterator[None]:
    """Run the Ray tasks of the block in this process."""
    modules = [m for name, m in sys.modules.items() if name.startswith("handsell.jobs")]
    replaced = ((cluster.run_tasks, _run_tasks), (cluster.connect, lambda *_, **__: nullcontext()))
    with ExitStack() as stack:
        for original, instead in replaced:
            for module in modules:
                if getattr(module, original.__name__, None) is original:
                    stack.enter_context(patch.object(module, original.__name__, instead))
        stack.enter_context(patch.object(train, "fit_ranker_on_ray", _fit_ranker))
        stack.enter_context(patch.object(train, "fetch_item_values", _write_item_days))
        stack.enter_context(patch.object(train, "ray", SimpleNamespace(cluster_resources=dict)))
        stack.enter_context(patch.object(retrievers, "retrievers", _list_without_jobs))
        yield


def _run_tasks(function: Callable, arguments: Sequence[tuple], **_: Any) -> list[Any]:
    return [function(*each) for each in arguments]


def _list_without_jobs() -> dict[str, Any]:
    """Return the retrievers' plug-ins, none of which is fitted on several workers."""
    return {name: SimpleNamespace(job="") for name in retrieval_config.retrievers()}


def _fit_ranker(
    examples: Path, validation: Path, config: Any, features: tuple[str, ...], out: Path, *, cpus: float, prior: float
) -> XGBoostRanker:
    ranker = fit_xgboost(examples, validation, config, features, int(cpus), prior)
    ranker.save(out)
    return ranker


def prepare_features(config: Config) -> None:
    """Read the data, and compute and register the features."""
    ingest.prepare(config, lambda text: None)
    compute_feature_tables(config, windows.write_request_keys(config))
    register_features(config)


def start_run(config: Config, folder: Path) -> TrainingRun:
    """Cut the windows into an empty folder, and read the user rows of their requests."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run = TrainingRun(config, folder, Progress(7), windows.cut_windows(config, folder))
    train.fetch_rows(run)
    return run


def read_item_days(config: Config) -> ItemDays:
    """Read the registered features of every item on every day on which they change."""
    layout = Layout(config.state)
    rows, items = pq.read_table(layout.features / "item_activity"), Vocabulary.load(layout.catalog / "items")
    values = np.stack([rows[name].to_numpy() for name in find_features("item")], axis=1).astype(np.float32)
    day = rows["event_timestamp"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy() // DAY_US
    return ItemDays(items.number(rows["item_id"].to_pylist()).astype(np.int32), day, values)


def _write_item_days(config: Config, run: Path, window: str) -> int:
    """Write the item values of a window from the features' tables: Feast joins millions of (item, day) pairs slowly."""
    days = read_item_days(config)
    (run / "item_days").mkdir(exist_ok=True)
    np.savez(run / "item_days" / f"{window}.npz", item=days.item, day=days.day, values=days.values)
    return len(days)


def load_stages_in_time(run: TrainingRun) -> Stages:
    """Load the stages of a run's holdout model, with the values of every item as of any request."""
    config, snapshot = run.config, Snapshot.load(Layout(run.config.state).snapshot)
    columns = select_item_columns(snapshot, config), list_item_columns(config)
    items = DailyValues.of(read_item_days(config), *columns)
    return load_stages(run.holdout, config, snapshot=snapshot, items=items)
