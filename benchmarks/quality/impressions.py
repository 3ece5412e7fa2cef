"""What shown items teach the ranker: NDCG of worlds' test windows for each way of using their impressions.

The retrievers are fitted once per world; each variant has its own requests, examples and ranker, within the same
`split.max_requests`. All variants answer the same test requests: differences are paired, and intervals are resampled by
user over all worlds.

    python -m benchmarks impressions --seeds 11 12
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.quality.ablation import start_private_cluster
from benchmarks.report import write_report
from handsell.config import Config, load_config
from handsell.evaluation.intervals import compare_all
from handsell.evaluation.metrics import mean_known
from handsell.evaluation.replay import FUNNEL, RANKER
from handsell.evaluation.replay_scores import HEADLINE
from handsell.jobs.cluster import run_tasks
from handsell.jobs.features.feature_tables import compute_feature_tables
from handsell.jobs.features.steps import register_features
from handsell.jobs.ingest import ingest
from handsell.jobs.progress import Progress
from handsell.jobs.train import windows
from handsell.jobs.train.evaluation import replay_window, score_served_requests
from handsell.jobs.train.retrievers import fit_retrievers
from handsell.jobs.train.train import fetch_rows, fit_on_candidates
from handsell.jobs.train.training_run import TrainingRun
from handsell.ranking.shards import read_coverage

WORLD = Path(__file__).parents[2] / "deployments" / "configs" / "world.toml"
VARIANTS: dict[str, dict[str, Any]] = {
    "off": {"impressions": "off"},
    "negatives": {"impressions": "negatives"},
    "negatives, cap 1": {"impressions": "negatives", "propensity_cap": 1.0},
    "slates": {"impressions": "slates"},
    "slates, cap 1": {"impressions": "slates", "propensity_cap": 1.0},
    "slates, 2 hours": {"impressions": "slates", "outcome_hours": 2.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks impressions", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[11], help="seeds of the worlds")
    parser.add_argument("--users", type=int, default=1_500, help="listeners of a world")
    parser.add_argument("--items", type=int, default=4_000, help="tracks of a world")
    parser.add_argument("--requests", type=int, default=3_000, help="most requests of a window")
    parser.add_argument(
        "--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS, help="the first is the baseline"
    )
    parser.add_argument("--json", type=Path, default=None, help="output file")
    options = parser.parse_args()
    found = Measured(options.variants)
    with tempfile.TemporaryDirectory(prefix="handsell-impressions-") as folder:
        for seed in options.seeds:
            config = write_config(Path(folder) / str(seed), seed, options)
            with start_private_cluster(config):
                measure(config, seed, found)
    about = {"worlds": len(options.seeds), "listeners": options.users, "tracks": options.items}
    write_report("impressions", build_rows(found), about, options.json)


@dataclass
class Measured:
    """Scores of all requests by kind and variant, one array per world, and the shown negatives of each variant."""

    variants: list[str]
    scores: dict[str, dict[str, list[np.ndarray]]] = field(default_factory=dict)
    users: dict[str, list[np.ndarray]] = field(default_factory=dict)
    negatives: Counter = field(default_factory=Counter)


def write_config(folder: Path, seed: int, options: argparse.Namespace) -> Config:
    """Write the world's config with another seed and size, without the two-tower model, which takes the longest."""
    folder.mkdir(parents=True)
    text = WORLD.read_text().replace('name = "world"', 'name = "impressions"')
    sizes = f"[data.world]\nseed = {seed}\nusers = {options.users}\nitems = {options.items}\n"
    sizes += f"artists = {options.items // 10}\n[split]\nmax_requests = {options.requests}\n"
    path = folder / "impressions.toml"
    path.write_text(f"{text}\n{sizes}" + "[retrieval.two_tower]\nenabled = false\n")
    return load_config(path)


def measure(config: Config, seed: int, found: Measured) -> None:
    """Fit and replay every variant on one world, and add its scores by request kind, variant and world."""
    ingest.prepare(config, lambda text: None)
    variants = {name: with_ranking(config, VARIANTS[name]) for name in found.variants}
    compute_feature_tables(config, write_keys(config, list(variants.values())))
    register_features(config)
    models = config.state / "models"
    for name, variant in variants.items():
        folder = config.state / "variant"
        run = TrainingRun(variant, folder, Progress(9), windows.cut_windows(variant, folder))
        fetch_rows(run)
        if not models.exists():
            fit_retrievers(config, folder / "fit", models)
        run.holdout.mkdir(parents=True)
        for part in models.iterdir():
            (run.holdout / part.name).symlink_to(part)
        fit_on_candidates(replace(run, progress=Progress(4)))
        found.negatives[name] += read_coverage(folder / "examples" / "ranker").ignored
        replay = run_tasks(replay_window, [(variant, folder, run.holdout)])[0]
        served = run_tasks(score_served_requests, [(variant, folder, run.holdout, None)])[0]
        for kind, model, each in (
            ("ranker", replay.models[RANKER].scores[HEADLINE], replay.user),
            ("funnel", replay.models[FUNNEL].scores[HEADLINE], replay.user),
            ("served", served.ndcg[FUNNEL], served.user),
        ):
            found.scores.setdefault(kind, {}).setdefault(name, []).append(model)
            if name == found.variants[0]:
                found.users.setdefault(kind, []).append(each.astype(np.int64) + seed * 10**7)
        shutil.rmtree(folder)


def with_ranking(config: Config, changes: dict[str, Any]) -> Config:
    return config.model_copy(update={"ranking": config.ranking.model_copy(update=changes)})


def write_keys(config: Config, variants: list[Config]) -> Path:
    """Write the (user, time) of the requests of all variants."""
    keys = pa.concat_tables([pq.read_table(windows.write_request_keys(variant)) for variant in variants])
    path = config.state / "request_keys.parquet"
    pq.write_table(keys.group_by(["user", "time"]).aggregate([]), path)
    return path


def build_rows(found: Measured) -> list[dict[str, Any]]:
    """Build a row per kind of request and variant, compared with the first variant."""
    rows = []
    for kind, scores in found.scores.items():
        values = {name: np.concatenate(parts) for name, parts in scores.items()}
        base = values[found.variants[0]]
        others = {name: each for name, each in values.items() if name != found.variants[0]}
        compared = compare_all(others, base, np.concatenate(found.users[kind])) if others else {}
        for name, each in values.items():
            row = {"scores": kind, "impressions": name, "shown negatives": found.negatives[name]}
            against = compared[name].as_dict() if name in compared else {}
            row |= {HEADLINE: mean_known(each), **{key: against.get(key) for key in ("difference", "low", "high")}}
            rows.append(row)
    return rows


if __name__ == "__main__":
    main()
