"""NDCG@10 of the rankers on the candidates of the same test requests: trees, the transformer, and their blend.

Sources are fitted (and picked, where the config leaves it open) on the retrieval window, as training does, and each
ranker on their candidates for the ranker window. A ranker orders the candidates of the test requests in the ranking
stage, before re-ranking. Differences to the trees are paired by request; intervals resample users. Settings are those
of the config; nothing is chosen on the test window. A second table has the processor time per request of each ranker,
and of its whole stage, measured in turns.

    python -m benchmarks rankers --sets ml-100k world beauty ta-feng

`--keep FOLDER` keeps what the sources found; the next run with the same folder fits only the rankers. `--share` takes
that share of the users of each set, where all of them take too long.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
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
    read_item_days,
    run_in_process,
    start_run,
)
from benchmarks.quality.served_quality import IGNORED_VARIABLES, find_data
from benchmarks.quality.served_tables import write_tables
from benchmarks.quality.user_samples import sample_sequences, sample_table, shrink_world
from benchmarks.report import write_report
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config, load_config
from handsell.core.batches import Candidates, Requests
from handsell.core.errors import HandsellError
from handsell.core.funnel import run_local
from handsell.core.paths import Layout
from handsell.core.protocols import Ranker
from handsell.evaluation.intervals import compare_all
from handsell.evaluation.metrics import Relevant, gains, ndcg
from handsell.jobs.train.examples import find_candidates, read_candidates, write_examples
from handsell.jobs.train.ranker import fit_ranker_in_process, plan_ranker, save_ranker
from handsell.jobs.train.requests import grade_outcome, list_chunks, load_requests
from handsell.jobs.train.retrievers import fit_retrievers
from handsell.jobs.tuning.source_selection import select_sources
from handsell.ranking.ranker_files import load_ranker
from handsell.ranking.stage import LocalRanking, best_first

CONFIGS = Path(__file__).parents[2] / "deployments" / "configs"
OWN_CONFIGS = {"world": ("world.toml", None), "beauty": ("sequences.toml", "amazon-beauty")}  # config, folder of data
SETS = ("ml-100k", "world", "beauty", "ta-feng")
WINDOWS = ("ranker", "validation", "test")
MODELS = ("xgboost", "transformer", "blend")
TOP, METRIC = 10, "ndcg@10"
BATCHES, ROUNDS = (1, 16), 40


@dataclass(frozen=True)
class PreparedSet:
    """A data set whose sources are fitted: its config, the folder of the run, and its snapshot."""

    name: str
    config: Config
    folder: Path

    @property
    def holdout(self) -> Path:
        return self.folder / "holdout"

    def snapshot(self) -> Snapshot:
        return Snapshot.load(Layout(self.config.state).snapshot)


def main() -> None:
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks rankers", description=about)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, metavar="SET", help=", ".join(SETS))
    parser.add_argument("--requests", type=int, default=2_000, help="at most, per window (default: 2000)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the users, above 0 (default: 1, all)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep tables, state and runs here")
    parser.add_argument("--out", type=Path, metavar="FILE", help="output file (JSON)")
    options = parser.parse_args()
    if not 0 < options.share <= 1:
        parser.error(f"--share expects a number above 0 and at most 1, got {options.share}")
    for name in IGNORED_VARIABLES:
        os.environ.pop(name, None)
    rows, times = [], []
    with nullcontext(options.keep) if options.keep else TemporaryDirectory(prefix="rankers-") as place:
        for name in options.sets:
            try:
                folder = name if options.share == 1 else f"{name}-{options.share:g}"
                prepared = prepare(name, Path(place).resolve() / folder, options.requests, options.share)
            except HandsellError as error:
                sys.exit(f"error: {name}: {error}")
            rankers = fit_rankers(prepared)
            rows += compare_rankers(prepared, rankers)
            times += measure_times(prepared, rankers)
            settings = {"requests": options.requests, "share of users": options.share}
            write_report("rankers", rows, settings, options.out, {"CPU ms per request": times})


def load_set(name: str, folder: Path, share: float) -> Config:
    """Load the config of a set, with a share of its users; writes tables and samples to the folder."""
    os.environ["HANDSELL_HOME"] = str(folder / "home")
    os.environ.pop("HANDSELL_DATA", None)
    if name not in OWN_CONFIGS:
        path = write_tables(name, find_data(), folder / "tables")
        sample_table(folder / "tables" / "train.csv", share)
        return load_config(path)
    file, data = OWN_CONFIGS[name]
    if data is None:
        return shrink_world(load_config(CONFIGS / file), share)
    source = find_data() / data
    os.environ["HANDSELL_DATA"] = str(source if share == 1 else sample_sequences(source, folder / "data", share))
    return load_config(CONFIGS / file)


def prepare(name: str, folder: Path, requests: int, share: float = 1.0) -> PreparedSet:
    """Fit the sources of a set and find the candidates of every window, unless the folder has them."""
    config = keep_in_process(load_set(name, folder, share))
    split = config.split.model_copy(update={"max_requests": requests})
    config = config.model_copy(update={"split": split})
    done = folder / "config.json"
    if not done.exists():
        with run_in_process(config):
            prepare_features(config)
            run = start_run(config, folder / "run")
            if config.picks_sources:
                config, selection = select_sources(config, run.folder, run.holdout)
                print(selection, flush=True)
            else:
                fit_retrievers(config, run.folder / "fit", run.holdout)
            days = read_item_days(config)
            (run.folder / "item_days").mkdir()
            for window in WINDOWS:
                find_candidates(config, run.folder, run.holdout, window)
                np.savez(run.folder / "item_days" / f"{window}.npz", item=days.item, day=days.day, values=days.values)
        done.write_text(config.model_dump_json())
    chosen = Config.model_validate_json(done.read_text())
    return PreparedSet(name, config.model_copy(update={"retrieval": chosen.retrieval}), folder / "run")


def with_model(config: Config, model: str) -> Config:
    """Return the config with another ranker, whose examples have the history."""
    return config.model_copy(update={"ranking": config.ranking.model_copy(update={"model": model})})


def fit_rankers(prepared: PreparedSet) -> dict[str, Ranker]:
    """Fit the rankers on the candidates of the ranker window, as training does on small data.

    The blend is that of the two others: fitting them again would give the same ones.
    """
    with run_in_process(prepared.config):
        if not (prepared.folder / "examples").exists():
            for window in WINDOWS[:2]:
                write_examples(with_model(prepared.config, "blend"), prepared.folder, prepared.holdout, window)
    rankers: dict[str, Ranker] = {}
    for model in MODELS:
        begun, out = time.process_time(), prepared.folder / "rankers" / model
        plan = plan_ranker(with_model(prepared.config, model), prepared.folder, out)
        if model == "blend":
            save_ranker(list(rankers.values()), plan[1], plan[3], out)
        else:
            fit_ranker_in_process(*plan)
        rankers[model] = load_ranker(out)
        print(f"{prepared.name}: {model} fitted in {time.process_time() - begun:.0f} s of CPU", flush=True)
    return rankers


def read_test(prepared: PreparedSet) -> Iterator[tuple[Requests, Relevant, Candidates]]:
    """Yield the test requests with relevant items, and their candidates, by chunk."""
    config, snapshot = prepared.config, prepared.snapshot()
    for rows in list_chunks(prepared.folder, "test"):
        requests, outcome = load_requests(config, prepared.folder, "test", rows, snapshot)
        relevant = grade_outcome(outcome)
        found = read_candidates(
            prepared.folder / "candidates" / "test" / f"{rows.start:09d}.npz", config.retrieval.enabled
        )
        asked = relevant.item.lengths > 0
        yield requests.take(asked), relevant.take(asked), found.take(asked)


def build_stages(prepared: PreparedSet, rankers: dict[str, Ranker]) -> dict[str, LocalRanking]:
    snapshot = prepared.snapshot()
    values = load_item_values_in_time(prepared.config, snapshot)
    return {name: LocalRanking(ranker, snapshot, values, prepared.config) for name, ranker in rankers.items()}


def order_candidates(stages: dict[str, LocalRanking], requests: Requests, found: Candidates) -> dict[str, np.ndarray]:
    """Return the first items (B, TOP) of each order, as the ranking stage has them; features are computed once."""
    x, lists = stages[MODELS[-1]].read_rows(requests, found)  # with the history, which the trees do not read
    orders = {"fused order": found.item[:, :TOP]}
    for name, stage in stages.items():
        raw = stage.score_rows(x, lists, stage.look_first(x, lists.real, TOP))
        raw = np.where(stage.ranks(requests)[:, None], raw, found.fused)
        orders[name] = found.reorder(best_first(raw, np.isfinite(raw) & lists.real, lists.real, TOP)).item
    return orders


def compare_rankers(prepared: PreparedSet, rankers: dict[str, Ranker]) -> list[dict[str, Any]]:
    """Build a row per order: its NDCG@10, and the difference to that of the trees."""
    stages = build_stages(prepared, rankers)
    scores: dict[str, list[np.ndarray]] = {name: [] for name in ("fused order", *MODELS)}
    users = []
    for requests, relevant, found in read_test(prepared):
        users.append(requests.user)
        for name, items in order_candidates(stages, requests, found).items():
            scores[name].append(ndcg(gains(items, relevant), relevant, TOP))
    every = {name: np.concatenate(parts) for name, parts in scores.items()}
    user = np.concatenate(users)
    compared = compare_all({n: v for n, v in every.items() if n != MODELS[0]}, every[MODELS[0]], user)
    rows = []
    for name, values in every.items():
        about = compared[name].as_dict() if name in compared else {}
        rows.append(
            {
                "set": prepared.name, "requests": len(user), "order": name, METRIC: float(np.nanmean(values)),
                **{key: about.get(key) for key in ("difference", "low", "high", "relative", "outcome")},
            }
        )  # fmt: skip
    return rows


def measure_times(prepared: PreparedSet, rankers: dict[str, Ranker]) -> list[dict[str, Any]]:
    """Measure the CPU ms of a request in the ranker and in the whole stage, and their ratios to those of the trees."""
    stages = build_stages(prepared, rankers)
    requests, _, found = next(iter(read_test(prepared)))
    rows = []
    for size in BATCHES:
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in rankers}
        for turn in range(ROUNDS):
            at = slice(turn * size % max(len(requests) - size, 1), None)
            some, candidates = (part.take(at).take(slice(0, size)) for part in (requests, found))
            for name, stage in stages.items():
                x, lists = stage.read_rows(some, candidates)
                scored = _time(lambda s=stage, x=x, o=lists: s.score_rows(x, o, s.look_first(x, o.real, TOP)))
                whole = _time(lambda s=stage, r=some, c=candidates: run_local(s.rank(r, c, TOP)))
                took[name].append((scored / size, whole / size))
        medians = {name: np.median(values, axis=0) * 1e3 for name, values in took.items()}
        for name, (ranker, stage_ms) in medians.items():
            base = medians[MODELS[0]]
            rows.append(
                {
                    "set": prepared.name, "batch": size, "ranker": name, "ranker ms": ranker,
                    "× trees": ranker / base[0], "stage ms": stage_ms, "× stage of trees": stage_ms / base[1],
                }
            )  # fmt: skip
    return rows


def _time(call: Any) -> float:
    begun = time.thread_time()
    call()
    return time.thread_time() - begun


if __name__ == "__main__":
    main()
