"""What is each source worth, and each group of features? The funnel on a deployment's test window, and without them.

The twin is fitted once, as training does it. Without a source its candidates, examples and ranker are made again
from the same fitted retrievers; without a group the ranker is fitted again on the same examples (`ranking.without`).
Every variant answers the same requests as the whole funnel: differences are paired, their intervals drawn by user.
Missing steps (data, features, feast apply) are run first, on a private Ray cluster. Nothing is chosen from the
figures, and no bundle is written.

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

from benchmarks.report import report
from handsell.config import Config, load_config
from handsell.core.errors import ConfigError, HandsellError
from handsell.core.paths import Layout
from handsell.evaluation.intervals import compare_all
from handsell.evaluation.replay import BLEND, FUNNEL, RANKER
from handsell.evaluation.report.summary_text import mean_of
from handsell.evaluation.scorebook import HEADLINE, TOP, Replay
from handsell.features.matrix import feature_groups
from handsell.jobs.cluster import THREADS, connected, prepare_private_cluster, spread
from handsell.jobs.progress import Progress
from handsell.jobs.train import windows
from handsell.jobs.train.holdout_fit import fit_holdout, fit_on_candidates, fit_ranker
from handsell.jobs.train.scoring import score
from handsell.jobs.train.train import fetch_rows
from handsell.jobs.train.training_run import TrainingRun
from handsell.local.steps import Steps, code_digest
from handsell.local.up import step_inputs

KINDS = ("sources", "groups")
SAME_WINDOWS = ("fit", "windows", "rows", "item_days")  # item values are the same for whoever asks
SAME_CANDIDATES = (*SAME_WINDOWS, "candidates", "examples")


@dataclass(frozen=True)
class Variant:
    """The deployment's recipe without one part of it."""

    kind: str
    left_out: str
    config: Config

    @property
    def name(self) -> str:
        return f"without {self.left_out} {'features' if self.kind == 'groups' else ''}".strip()


def main() -> None:
    options = _options()
    if options.data is not None:
        os.environ["HANDSELL_DATA"] = str(options.data.expanduser().resolve())
    try:
        config = load_config(options.config)
        variants(config, options.variants)  # a slip is told before anything is computed
        with private_cluster(config):
            prepare(config)
            measure(at_most(config, options.requests), options.variants, options.json)
    except HandsellError as error:
        sys.exit(f"error: {error}")


@contextmanager
def private_cluster(config: Config) -> Iterator[None]:
    """A local Ray on loopback that no other process joins; its workers' own lines are left out."""
    import ray

    prepare_private_cluster()
    ray.init(
        "local", num_cpus=config.jobs.num_cpus, include_dashboard=False, log_to_driver=False,
        _node_ip_address="127.0.0.1", runtime_env={"env_vars": THREADS},
    )  # fmt: skip
    try:
        with connected():
            yield
    finally:
        ray.shutdown()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks ablation", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a TOML file of deployments/configs, or your own")
    parser.add_argument("--data", type=Path, default=None, help="folder of the source data; overrides data.path")
    parser.add_argument("--variants", type=_kinds, default=KINDS, help="sources, groups or both (default: both)")
    parser.add_argument(
        "--requests", type=_positive, default=None, help="of each window at most, if fewer than split.max_requests"
    )
    parser.add_argument("--json", type=Path, default=None, help="where the figures are written")
    return parser.parse_args()


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(name.strip() for name in text.split(","))
    if not set(kinds) <= set(KINDS):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(KINDS)} with commas between, got {text!r}")
    return kinds


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of requests, 1 or more, got {text!r}")
    return int(text)


def variants(config: Config, kinds: Sequence[str]) -> list[Variant]:
    """Each enabled source and each group of features left out in turn; raises ConfigError where there is no ranker."""
    if "groups" in kinds and not config.ranking.enabled:
        raise ConfigError("ranking.enabled = false: no ranker takes features; use --variants sources")
    sources = config.retrieval.enabled
    found = []
    if "sources" in kinds and len(sources) > 1:
        found += [Variant("sources", name, without_source(config, name)) for name in sources]
    if "groups" in kinds:
        groups = [name for name in feature_groups(config, sources) if name not in config.ranking.without]
        found += [Variant("groups", name, without_features(config, name)) for name in groups]
    return found


def without_source(config: Config, name: str) -> Config:
    """The source is neither asked nor told of to the ranker."""
    section = config.retrieval[name].model_copy(update={"enabled": False})
    retrieval = config.retrieval.with_sections({name: section})
    gone = {f"src_{name}_rank", f"src_{name}_z"}
    kept = tuple(feature for feature in config.ranking.without if feature not in gone)
    ranking = config.ranking.model_copy(update={"without": kept})
    return config.model_copy(update={"retrieval": retrieval, "ranking": ranking})


def without_features(config: Config, group: str) -> Config:
    ranking = config.ranking.model_copy(update={"without": (*config.ranking.without, group)})
    return config.model_copy(update={"ranking": ranking})


def at_most(config: Config, requests: int | None) -> Config:
    """No more than `split.max_requests`: rows of users were computed for those."""
    most = min(requests or config.split.max_requests, config.split.max_requests)
    return config.model_copy(update={"split": config.split.model_copy(update={"max_requests": most})})


def prepare(config: Config) -> None:
    """Data, features and Feast's registry, each unless `make up` or an earlier call has done it on the same inputs."""
    from handsell.features.store import open_store
    from handsell.jobs.features import feature_tables
    from handsell.jobs.ingest import ingest

    steps, depends = Steps(Layout(config.state).steps, 4, Console()), step_inputs(config)

    def read() -> str:
        return f"{ingest.prepare(config)['events']:,} events"

    def compute() -> str:
        return f"{feature_tables.compute(config, windows.request_keys(config))['user_activity']:,} moments of users"

    def register() -> str:
        open_store(config).apply()
        return "registered"

    steps.run("ray", "a private cluster", lambda: "started", always=True)  # steps depend on those before: as in `up`
    steps.run("data", "reading and numbering", read, [depends["data"], code_digest()])
    steps.run("features", "computing user and item features", compute, depends["features"])
    steps.run("feast apply", "registering entities, views and services", register)


def measure(config: Config, kinds: Sequence[str], path: Path | None) -> None:
    """Fit, replay, print and write."""
    folder = config.state / "ablation"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    every = variants(config, kinds)
    try:
        print(f"== the whole funnel, then {len(every)} variants", flush=True)
        run = TrainingRun(config, folder, Progress(6), windows.cut(config, folder))
        fetch_rows(run)
        run = fit_holdout(run)
        whole, found = _replayed(run), {}
        for place, variant in enumerate(every, start=1):
            print(f"== {variant.name} ({place} of {len(every)})", flush=True)
            found[variant.name] = replayed_without(run, variant)
            print(f"   {HEADLINE} {headline(found[variant.name]):.4f}, the whole {headline(whole):.4f}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    about = {
        "config": config.name,
        "best single": best_single(whole),
        "requests": len(whole),
        "users": len(np.unique(whole.user)),
        "relevant items": whole.relevant,
        "cold ones": whole.cold_relevant,
    }
    report("ablation", differences(whole, found), about, path, {"funnel": slices(whole)})


def replayed_without(run: TrainingRun, variant: Variant) -> Replay:
    """Fit what depends on the part that is left out, share all else with the run, and replay the test window."""
    again = variant.kind == "sources"
    steps = 1 if not again else 4 if variant.config.ranking.enabled else 2
    other = replace(run, config=variant.config, folder=run.folder / "variant", progress=Progress(steps))
    other.twin.mkdir(parents=True)
    for name in SAME_WINDOWS if again else SAME_CANDIDATES:
        (other.folder / name).symlink_to(run.folder / name)
    (other.twin / "retrievers").symlink_to(run.twin / "retrievers")
    if again:
        fit_on_candidates(other)
    else:
        fit_ranker(other)
    replay = _replayed(other)
    shutil.rmtree(other.folder)
    return replay


def _replayed(run: TrainingRun) -> Replay:
    return spread(score, [(run.config, run.folder, run.twin)])[0]


def headline(replay: Replay) -> float:
    return mean_of(replay.contenders[FUNNEL].scores[HEADLINE])


def best_single(replay: Replay) -> str:
    """The retriever of the highest mean on these very requests: the hardest rival there is."""
    scores = replay.scores(HEADLINE)
    return max(replay.of_kind("retriever"), key=lambda name: np.nan_to_num(mean_of(scores[name])))


def slices(replay: Replay) -> list[dict[str, Any]]:
    """Rows of the first table: all requests, users by what is known of them, and items warm and cold in the fit."""
    every = np.ones(len(replay), bool)
    rows = [
        _slice(replay, name, HEADLINE, "", where) for name, where in {"all requests": every, **replay.segments}.items()
    ]
    rows += [_slice(replay, f"{part} items", f"recall@{TOP}", f"{part}_item_", every) for part in ("warm", "cold")]
    return rows


def _slice(replay: Replay, name: str, metric: str, prefix: str, where: np.ndarray) -> dict[str, Any]:
    """Means over the requests `where` (R,) that have a value at all."""
    union, deep = replay.contenders[BLEND], deepest(replay)
    shown = {"best single": best_single(replay), "blend": BLEND, "ranker": RANKER, "funnel": FUNNEL}
    values = {told: replay.contenders[of].scores[prefix + metric][where] for told, of in shown.items()}
    return {
        "of": name,
        "requests": int(np.isfinite(values["funnel"]).sum()),
        f"union {deep}": _known(mean_of(union.scores[prefix + deep][where])),
        "metric": metric,
        **{told: _known(mean_of(each)) for told, each in values.items()},
    }


def differences(whole: Replay, found: dict[str, Replay]) -> list[dict[str, Any]]:
    """Rows of the second table: each variant's funnel against the whole one, request by request."""
    deep, warm = deepest(whole), whole.segments["warm users"]
    ours = whole.contenders[FUNNEL].scores[HEADLINE]
    theirs = {name: replay.contenders[FUNNEL].scores[HEADLINE] for name, replay in found.items()}
    compared = compare_all(theirs, ours, whole.user)
    rows = [_row("the whole funnel", ours, whole, warm, deep, None)]
    return rows + [_row(name, theirs[name], found[name], warm, deep, c.as_dict()) for name, c in compared.items()]


def _row(
    name: str, values: np.ndarray, replay: Replay, warm: np.ndarray, deep: str, against: dict[str, Any] | None
) -> dict[str, Any]:
    told = against or dict.fromkeys(("difference", "low", "high", "relative", "verdict"))
    return {
        "variant": name,
        HEADLINE: _known(mean_of(values)),
        **{key: told[key] for key in ("difference", "low", "high", "relative", "verdict")},
        "warm users": _known(mean_of(values[warm])),
        deep: _known(mean_of(replay.contenders[BLEND].scores[deep])),
    }


def deepest(replay: Replay) -> str:
    """recall@K of the candidate union, K as many as go to ranking."""
    return f"recall@{replay.contenders[BLEND].depth}"


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


if __name__ == "__main__":
    main()
