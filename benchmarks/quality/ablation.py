"""Ablation: NDCG of the funnel on a deployment's test window, without each source and without each feature group.

The holdout model is fitted once, as in training, which also chooses the sources where the config leaves them open, and
the strength of re-ranking. Without a source, candidates, examples and ranker are built again from the same fitted
retrievers; without a feature group, the ranker is fitted again on the same examples (`ranking.without`). All variants
answer the same requests: differences are paired, and intervals are resampled by user. Missing steps (data, features,
feast apply) run first, on a private Ray cluster. Nothing is selected by these figures, and no bundle is written.

    python -m benchmarks ablation deployments/configs/movielens.toml
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.report import write_report
from handsell.config import Config, load_config
from handsell.core.errors import ConfigError, HandsellError
from handsell.core.paths import Layout
from handsell.evaluation.intervals import compare_all
from handsell.evaluation.metrics import mean_known
from handsell.evaluation.replay import BLEND, FUNNEL, RANKER
from handsell.evaluation.replay_scores import HEADLINE, TOP, Replay
from handsell.features.matrix import group_features
from handsell.jobs.cluster import THREADS, connect, prepare_private_cluster, run_tasks
from handsell.jobs.progress import Progress
from handsell.jobs.step_records import code_digest
from handsell.jobs.train import train, windows
from handsell.jobs.train.evaluation import replay_window
from handsell.jobs.train.training_run import TrainingRun
from handsell.local.steps import Steps
from handsell.local.up import step_inputs

KINDS = ("sources", "groups")
SAME_WINDOWS = ("fit", "windows", "rows", "item_days")  # item values do not depend on the variant
SAME_CANDIDATES = (*SAME_WINDOWS, "candidates", "examples")


@dataclass(frozen=True)
class Variant:
    """The deployment's config without one source or one feature group."""

    kind: str
    removed: str
    config: Config

    @property
    def name(self) -> str:
        return f"without {self.removed} {'features' if self.kind == 'groups' else ''}".strip()


def main() -> None:
    options = _parse_options()
    if options.data is not None:
        os.environ["HANDSELL_DATA"] = str(options.data.expanduser().absolute())
    try:
        config = load_config(options.config)
        build_variants(config, options.variants)  # report a wrong option before anything is computed
        with start_private_cluster(config):
            prepare(config)
            measure(limit_requests(config, options.requests), options.variants, options.json)
    except HandsellError as error:
        sys.exit(f"error: {error}")


@contextmanager
def start_private_cluster(config: Config) -> Iterator[None]:
    """Run a local Ray cluster on loopback that no other process joins, without the log lines of its workers."""
    import ray

    prepare_private_cluster()
    ray.init(
        "local", num_cpus=config.jobs.num_cpus, include_dashboard=False, log_to_driver=False,
        _node_ip_address="127.0.0.1", runtime_env={"env_vars": THREADS},
    )  # fmt: skip
    try:
        with connect():
            yield
    finally:
        ray.shutdown()


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ablation", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("config", type=Path, metavar="CONFIG", help="TOML file of the deployment")
    parser.add_argument("--data", type=Path, default=None, help="folder of the source data; overrides data.path")
    parser.add_argument("--variants", type=_parse_kinds, default=KINDS, help="sources, groups or both (default: both)")
    parser.add_argument(
        "--requests", type=_parse_positive, default=None, help="at most, per window (default: split.max_requests)"
    )
    parser.add_argument("--json", type=Path, default=None, help="output file")
    return parser.parse_args()


def _parse_kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(name.strip() for name in text.split(","))
    if not set(kinds) <= set(KINDS):
        raise argparse.ArgumentTypeError(f"expected any of {', '.join(KINDS)}, separated by commas, got {text!r}")
    return kinds


def _parse_positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive number of requests, got {text!r}")
    return int(text)


def build_variants(config: Config, kinds: Sequence[str]) -> list[Variant]:
    """Remove each enabled source and each feature group in turn; raises ConfigError for groups without a ranker."""
    if "groups" in kinds and not config.ranking.enabled:
        raise ConfigError("ranking.enabled = false: no ranker takes features; use --variants sources")
    sources = config.retrieval.enabled
    found = []
    if "sources" in kinds and len(sources) > 1:
        found += [Variant("sources", name, without_source(config, name)) for name in sources]
    if "groups" in kinds:
        groups = [name for name in group_features(config, sources) if name not in config.ranking.without]
        found += [Variant("groups", name, without_features(config, name)) for name in groups]
    return found


def without_source(config: Config, name: str) -> Config:
    """Disable the source, and drop its features from `ranking.without`, where they would be unknown."""
    section = config.retrieval[name].model_copy(update={"enabled": False})
    retrieval = config.retrieval.with_sections({name: section})
    removed = {f"src_{name}_rank", f"src_{name}_z"}
    kept = tuple(feature for feature in config.ranking.without if feature not in removed)
    ranking = config.ranking.model_copy(update={"without": kept})
    return config.model_copy(update={"retrieval": retrieval, "ranking": ranking})


def without_features(config: Config, group: str) -> Config:
    ranking = config.ranking.model_copy(update={"without": (*config.ranking.without, group)})
    return config.model_copy(update={"ranking": ranking})


def limit_requests(config: Config, requests: int | None) -> Config:
    """Lower `split.max_requests`; it is never raised, because user rows exist only for those requests."""
    most = min(requests or config.split.max_requests, config.split.max_requests)
    return config.model_copy(update={"split": config.split.model_copy(update={"max_requests": most})})


def prepare(config: Config) -> None:
    """Run data, features and feast apply, except for steps that are up to date."""
    from handsell.features.store import open_store
    from handsell.jobs.features import feature_tables
    from handsell.jobs.ingest import ingest

    steps, depends = Steps(Layout(config.state).steps, 4, Console()), step_inputs(config)

    def read() -> str:
        return f"{ingest.prepare(config)['events']:,} events"

    def compute() -> str:
        rows = feature_tables.compute_feature_tables(config, windows.write_request_keys(config))
        return f"{rows['user_activity']:,} user rows"

    def register() -> str:
        open_store(config).apply()
        return "registered"

    # as in `up`, a step depends on the steps before it
    steps.run("ray", "a private cluster", lambda: "started", always=True)
    steps.run("data", "reading and numbering", read, [depends["data"], code_digest()])
    steps.run("features", "computing user and item features", compute, depends["features"])
    steps.run("feast apply", "registering entities, views and services", register)


def measure(config: Config, kinds: Sequence[str], path: Path | None) -> None:
    """Fit, replay all variants and write the report."""
    folder = config.state / "ablation"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        print("== the whole funnel", flush=True)
        run = TrainingRun(config, folder, Progress(7), windows.cut_windows(config, folder))
        train.fetch_rows(run)
        run = train.choose_strength_of_reranking(train.fit_holdout(run))
        every = build_variants(run.config, kinds)  # of the sources and the strength that training chose
        whole, found = _replay(run), {}
        for place, variant in enumerate(every, start=1):
            print(f"== {variant.name} ({place} of {len(every)})", flush=True)
            found[variant.name] = replay_without(run, variant)
            means = headline_mean(found[variant.name]), headline_mean(whole)
            print(f"   {HEADLINE} {means[0]:.4f}, whole funnel {means[1]:.4f}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    about = {
        "config": config.name,
        "best single": find_best_single(whole),
        "requests": len(whole),
        "users": len(np.unique(whole.user)),
        "relevant items": whole.relevant,
        "cold ones": whole.cold_relevant,
    }
    write_report("ablation", build_difference_rows(whole, found), about, path, {"funnel": build_segment_rows(whole)})


def replay_without(run: TrainingRun, variant: Variant) -> Replay:
    """Fit what depends on the removed part, share the rest with the run, and replay the test window."""
    refit_candidates = variant.kind == "sources"
    steps = 1 if not refit_candidates else 4 if variant.config.ranking.enabled else 2
    other = replace(run, config=variant.config, folder=run.folder / "variant", progress=Progress(steps))
    other.holdout.mkdir(parents=True)
    for name in SAME_WINDOWS if refit_candidates else SAME_CANDIDATES:
        (other.folder / name).symlink_to(run.folder / name)
    (other.holdout / "retrievers").symlink_to(run.holdout / "retrievers")
    if refit_candidates:
        train.fit_on_candidates(other)
    else:
        train.fit_ranker(other)
    replay = _replay(other)
    shutil.rmtree(other.folder)
    return replay


def _replay(run: TrainingRun) -> Replay:
    return run_tasks(replay_window, [(run.config, run.folder, run.holdout)])[0]


def headline_mean(replay: Replay) -> float:
    """Mean of the headline metric of the funnel."""
    return mean_known(replay.models[FUNNEL].scores[HEADLINE])


def find_best_single(replay: Replay) -> str:
    """Return the retriever with the highest mean on these requests."""
    scores = replay.scores(HEADLINE)
    return max(replay.of_kind("retriever"), key=lambda name: np.nan_to_num(mean_known(scores[name])))


def build_segment_rows(replay: Replay) -> list[dict[str, Any]]:
    """Build the first table: all requests, user segments, warm and cold items (with and without events in the fit)."""
    every = np.ones(len(replay), bool)
    segments = {"all requests": every, **replay.segments}
    rows = [_build_segment_row(replay, name, HEADLINE, "", where) for name, where in segments.items()]
    for part in ("warm", "cold"):
        rows.append(_build_segment_row(replay, f"{part} items", f"recall@{TOP}", f"{part}_item_", every))
    return rows


def _build_segment_row(replay: Replay, name: str, metric: str, prefix: str, where: np.ndarray) -> dict[str, Any]:
    """Means over the requests `where` (R,) that have a value."""
    union, deep = replay.models[BLEND], candidate_metric(replay)
    shown = {"best single": find_best_single(replay), "blend": BLEND, "ranker": RANKER, "funnel": FUNNEL}
    values = {column: replay.models[of].scores[prefix + metric][where] for column, of in shown.items()}
    return {
        "of": name,
        "requests": int(np.isfinite(values["funnel"]).sum()),
        f"union {deep}": _known(mean_known(union.scores[prefix + deep][where])),
        "metric": metric,
        **{column: _known(mean_known(each)) for column, each in values.items()},
    }


def build_difference_rows(whole: Replay, found: dict[str, Replay]) -> list[dict[str, Any]]:
    """Build the second table: each variant against the whole funnel, paired by request."""
    deep, warm = candidate_metric(whole), whole.segments["warm users"]
    ours = whole.models[FUNNEL].scores[HEADLINE]
    theirs = {name: replay.models[FUNNEL].scores[HEADLINE] for name, replay in found.items()}
    compared = compare_all(theirs, ours, whole.user)
    rows = [_row("the whole funnel", ours, whole, warm, deep, None)]
    return rows + [_row(name, theirs[name], found[name], warm, deep, c.as_dict()) for name, c in compared.items()]


def _row(
    name: str, values: np.ndarray, replay: Replay, warm: np.ndarray, deep: str, against: dict[str, Any] | None
) -> dict[str, Any]:
    comparison = against or dict.fromkeys(("difference", "low", "high", "relative", "outcome"))
    return {
        "variant": name,
        HEADLINE: _known(mean_known(values)),
        **{key: comparison[key] for key in ("difference", "low", "high", "relative", "outcome")},
        "warm users": _known(mean_known(values[warm])),
        deep: _known(mean_known(replay.models[BLEND].scores[deep])),
    }


def candidate_metric(replay: Replay) -> str:
    """Name of the recall metric of the candidate union, at the number of candidates that go to ranking."""
    return f"recall@{replay.models[BLEND].depth}"


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


if __name__ == "__main__":
    main()
