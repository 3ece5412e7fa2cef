"""Training steps in this process, without a Ray cluster: for measurements on data that one process can handle."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.quality.ablation import limit_requests
from handsell.bundles.stages import Stages, load_stages
from handsell.catalog.snapshot import Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config, load_config
from handsell.core.errors import HandsellError
from handsell.core.paths import Layout
from handsell.core.units import DAY_US
from handsell.features.item import DailyValues, ItemDays, list_item_columns, select_item_columns
from handsell.features.registry import find_features
from handsell.jobs.cluster import open_cluster
from handsell.jobs.features.feature_tables import compute_feature_tables
from handsell.jobs.features.steps import register_features
from handsell.jobs.ingest import ingest
from handsell.jobs.progress import Progress
from handsell.jobs.train import train, windows
from handsell.jobs.train.training_run import TrainingRun

MOST_EVENTS = 10**9


def build_parser(command: str, about: str | None) -> argparse.ArgumentParser:
    """Return the parser of a command that measures the holdout model of a deployment; `about` is its docstring."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {command}", description=(about or "").split("\n")[0])
    parser.add_argument("config", type=Path, metavar="CONFIG", help="TOML file of the deployment")
    parser.add_argument("--data", type=Path, default=None, help="folder of the source data; overrides data.path")
    parser.add_argument("--requests", type=int, default=None, help="at most, per window (default: split.max_requests)")
    parser.add_argument("--json", type=Path, default=None, help="output file")
    return parser


def measure_holdout(options: argparse.Namespace, folder: str, measure: Callable[[TrainingRun], None]) -> None:
    """Fit the holdout model in a folder of the deployment's state, measure it, and remove the folder.

    `options` are those of `build_parser`. An error of handsell ends the process with its message.
    """
    if options.data is not None:
        os.environ["HANDSELL_DATA"] = str(options.data.expanduser().absolute())
    try:
        config = keep_in_process(limit_requests(load_config(options.config), options.requests))
        with run_in_process(config):
            prepare_features(config)
            run = train.fit_holdout(start_run(config, config.state / folder))
            measure(run)
            shutil.rmtree(run.folder)
    except HandsellError as error:
        sys.exit(f"error: {error}")


def keep_in_process(config: Config) -> Config:
    """Return the config with which jobs run their tasks in their own process, whatever the size of the data."""
    return config.model_copy(update={"jobs": config.jobs.model_copy(update={"small_events": MOST_EVENTS})})


def run_in_process(config: Config) -> AbstractContextManager[None]:
    """Run the tasks of the block in this process; `config` is one of `keep_in_process`."""
    return open_cluster(config, events=0)


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


def load_item_values_in_time(config: Config, snapshot: Snapshot) -> DailyValues:
    """Load the values of every item as of any request."""
    return DailyValues.of(read_item_days(config), select_item_columns(snapshot, config), list_item_columns(config))


def load_stages_in_time(run: TrainingRun) -> Stages:
    """Load the stages of a run's holdout model, with the values of every item as of any request."""
    snapshot = Snapshot.load(Layout(run.config.state).snapshot)
    items = load_item_values_in_time(run.config, snapshot)
    return load_stages(run.holdout, run.config, snapshot=snapshot, items=items)
