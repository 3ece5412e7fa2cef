"""Relevance against each list metric, for plain top-n and for variants of re-ranking.

The holdout model of a deployment's newest training ranks its validation and test requests once; every variant re-ranks
the same candidates. Settings are chosen on validation. On test, only the default of the config is compared with plain
top-n, with paired bootstrap intervals by user. No model is trained.

    python -m benchmarks tradeoff deployments/configs/world.toml
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import RESULTS, write_report
from handsell.bundles.stages import load_stages
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config, load_config
from handsell.core.batches import NONE, Candidates, Requests
from handsell.core.errors import HandsellError, TrainingError
from handsell.core.funnel import run_local
from handsell.core.paths import Layout
from handsell.core.protocols import Retriever
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.intervals import TAILS, compare
from handsell.evaluation.metrics import mean_known
from handsell.evaluation.replay_scores import HEADLINE, TOP, ModelScores, Replay, ReplayScorer
from handsell.evaluation.report.plots import render_curves
from handsell.jobs.train.examples import fetch_item_values, load_item_values, retrieve_candidates
from handsell.jobs.train.requests import EvaluationRequests, fetch_user_rows, list_chunks, load_evaluation_requests
from handsell.jobs.train.retrievers import count_positives
from handsell.reranking.stage import LocalReranking

CHUNK = 256
NEUTRAL = {"diversity_by_taste": 0.0, "calibration": 0.0, "novelty": 0.0, "serendipity": 0.0, "category_window": 0}
PLAIN = {**NEUTRAL, "strength": 1.0, "diversity": 0.0, "same_creator_gap": 0}
GRID = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
SHOWN = ("diversity", "creator_coverage", "coverage", "novelty", "serendipity", "calibration_error", "small_creators",
         "gini", "drift", "repeat_rate")  # fmt: skip
RESAMPLES = 1_000


@dataclass(frozen=True)
class Variant:
    """Settings of re-ranking: a family and its strength."""

    family: str
    strength: float
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        return self.family if self.family in ("plain", "shipped") else f"{self.family} {self.strength:g}"


@dataclass(frozen=True)
class WindowResult:
    """Results of all variants on the requests of a window; creator (I,) of items."""

    replay: Replay
    creator: np.ndarray


def main() -> None:
    options = _parse_options()
    try:
        config = load_config(options.config)
        folder = prepare_run(config)
        every = build_variants(config)[: 2 if options.shipped else None]
        found = {"validation": replay_variants(config, folder, "validation", every)}
        found["test"] = replay_variants(config, folder, "test", every[:2])
    except HandsellError as error:
        sys.exit(f"error: {error}")
    replay = found["validation"].replay
    rows = [_build_row(v, replay) for v in every]
    plot = options.plot or RESULTS / f"tradeoff_{config.name}.svg"
    plot.parent.mkdir(parents=True, exist_ok=True)
    plot.write_text(render_curves(rows), "utf-8")
    about = {"config": config.name, "requests": len(replay), "plot": plot.name}
    against = {f"default against plain, {name}": _compare_with_plain(window) for name, window in found.items()}
    write_report("tradeoff", rows, about, options.json, against)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks tradeoff", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("config", type=Path, metavar="CONFIG", help="TOML file of a trained deployment")
    parser.add_argument("--shipped", action="store_true", help="only the default of the config, without the grid")
    parser.add_argument("--json", type=Path, default=None, help="output file")
    parser.add_argument("--plot", type=Path, default=None, help="output file of the curve (SVG)")
    return parser.parse_args()


def build_variants(config: Config) -> list[Variant]:
    """Build plain top-n, the default of the config, and a grid of each family."""
    base = {**PLAIN, "same_creator_gap": config.reranking.same_creator_gap}
    found = [Variant("plain", 0, PLAIN), Variant("shipped", config.reranking.diversity, {})]
    found += [Variant("gap only", 0, base)]
    for s in GRID:
        families: dict[str, dict[str, Any]] = {
            "mmr": {"selection": "mmr", "diversity": s},
            "dpp": {"selection": "dpp", "diversity": s / 2},
            "mmr by taste": {"selection": "mmr", "diversity": s, "diversity_by_taste": 0.5},
            "calibrated": {"calibration": s},
            "novelty": {"novelty": s},
            "serendipity": {"serendipity": s},
        }
        for kind, half in (("mmr", 1), ("dpp", 2)):
            varied = {"selection": kind, "diversity": s / half}
            families[f"{kind} + novelty 0.1"] = {**varied, "novelty": 0.1}
            families[f"{kind} + novelty 0.08, calibration 0.1"] = {**varied, "novelty": 0.08, "calibration": 0.1}
            families[f"{kind} + novelty 0.1, calibration 0.1"] = {**varied, "novelty": 0.1, "calibration": 0.1}
        found += [Variant(name, s, {**base, **settings}) for name, settings in families.items()]
    return found


def prepare_run(config: Config) -> Path:
    """Build a folder with rows, candidates and item values of both windows from the newest run, or reuse it."""
    runs = [run for run in sorted(Layout(config.state).runs.glob("*")) if (run / "holdout" / "retrievers").is_dir()]
    if not runs:
        raise TrainingError(
            f"no holdout model in {Layout(config.state).runs}: run make up CONFIG={config.source} first"
        )
    folder = config.state / "tradeoff" / runs[-1].name
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("fit", "windows", "holdout"):
        if not (folder / name).exists():
            (folder / name).symlink_to(runs[-1] / name)
    for window in ("validation", "test"):
        if (folder / "item_days" / f"{window}.npz").exists():
            continue
        print(f"== {window}: rows, candidates and item values", flush=True)
        fetch_user_rows(config, folder, (window,))
        (folder / "candidates" / window).mkdir(parents=True, exist_ok=True)
        for rows in list_chunks(folder, window):
            retrieve_candidates(config, folder, folder / "holdout", window, rows)
        fetch_item_values(config, folder, (window,))
    return folder


def replay_variants(config: Config, folder: Path, window: str, every: Sequence[Variant]) -> WindowResult:
    """Run all variants on the requests of a window."""
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    values = load_item_values(config, folder, window, snapshot)
    stages = load_stages(folder / "holdout", config, snapshot=snapshot, items=values)
    judged = load_evaluation_requests(config, folder, window, snapshot)
    ranked = _rank(stages, judged, folder / f"ranked_{window}.npz")
    eligibility = stages.reranking.eligibility  # type: ignore[attr-defined]
    scorer = ReplayScorer(
        eligibility.find_reachable(judged.requests), count_positives(config, folder / "fit"), snapshot
    )
    popular = stages.candidates.retrievers["popularity"]
    rerankings: dict[str, LocalReranking] = {}
    for variant in every:
        settings = config.reranking.model_copy(update=variant.settings)
        changed = config.model_copy(update={"reranking": settings})
        rerankings[variant.name] = LocalReranking(snapshot, eligibility, changed, values)
    for start in range(0, len(judged.requests), CHUNK):
        rows = slice(start, start + CHUNK)
        requests, candidates = judged.requests.take(rows), ranked.take(rows)
        scorer.start_chunk(judged.relevant.take(rows), requests)
        scorer.add("popularity", "retriever", TOP, partial(_retrieve, popular, requests, eligibility))
        for name, reranking in rerankings.items():
            scorer.add(name, "curve", TOP, partial(_rerank, reranking, requests, candidates))
        scorer.finish_chunk()
    print(f"== {window}: {len(judged.requests)} requests, {len(rerankings)} variants", flush=True)
    return WindowResult(scorer.finish(judged.requests, {}), np.asarray(snapshot.creator))


def _retrieve(retriever: Retriever, requests: Requests, eligibility: Eligibility) -> np.ndarray:
    return retriever.retrieve(requests, TOP, eligibility.mask(requests))[0]


def _rerank(reranking: LocalReranking, requests: Requests, candidates: Candidates) -> np.ndarray:
    return run_local(reranking.rerank(requests, candidates, TOP)).item


def _rank(stages: Any, judged: EvaluationRequests, path: Path) -> Candidates:
    """Return the ranker's output, from a file if an earlier call wrote it."""
    names = [f.name for f in fields(Candidates) if f.name not in ("sources", "degraded")]
    if not path.exists():
        parts = []
        for start in range(0, len(judged.requests), CHUNK):
            requests = judged.requests.take(slice(start, start + CHUNK))
            found = run_local(stages.candidates.candidates(requests, stages.config.retrieval.candidates))
            parts.append(run_local(stages.ranking.rank(requests, found, stages.config.ranking.ranked)))
        arrays: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        np.savez(path, sources=np.array(parts[0].sources), **arrays)
    with np.load(path) as kept:
        return Candidates(**{name: kept[name] for name in names}, sources=tuple(kept["sources"].tolist()))


def _build_row(variant: Variant, replay: Replay) -> dict[str, Any]:
    ours, plain = replay.models[variant.name], replay.models["plain"]
    ndcg, base = mean_known(ours.scores[HEADLINE]), mean_known(plain.scores[HEADLINE])
    values = {name: _value(ours, name) for name in SHOWN}
    gains = {f"{n} %": _percent(values[n], _value(plain, n)) for n in ("diversity", "creator_coverage")}
    return {"family": variant.family, "strength": variant.strength, "ndcg": ndcg, "ndcg %": 100 * (ndcg / base - 1),
            **gains, **values}  # fmt: skip


def _value(scores: ModelScores, metric: str) -> float | None:
    value = scores.means()[f"{metric}@{TOP}"]
    return value if np.isfinite(value) else None


def _percent(ours: float | None, theirs: float | None) -> float | None:
    return 100 * (ours / theirs - 1) if ours is not None and theirs else None


def _compare_with_plain(window: WindowResult) -> list[dict[str, Any]]:
    """Compare the default with plain top-n: each metric with the 95 % interval of its relative change."""
    replay = window.replay
    ours, plain = replay.models["shipped"], replay.models["plain"]
    rows = []
    for metric in (HEADLINE, *(f"{name}@{TOP}" for name in SHOWN)):
        if metric in ours.scores:
            c = compare(ours.scores[metric], plain.scores[metric], replay.user, resamples=RESAMPLES)
            rows.append(_interval(metric, c.challenger, c.baseline, 100 * c.relative, 100 * c.relative_low,
                                  100 * c.relative_high))  # fmt: skip
    return [*rows[:2], _compare_creator_coverage(window), *rows[2:]]


def _compare_creator_coverage(window: WindowResult) -> dict[str, Any]:
    """Resample users to get the interval of creator coverage, which is a property of all lists together."""
    creator, replay = window.creator, window.replay
    ours, plain = (replay.models[name].items for name in ("shipped", "plain"))
    users, at = np.unique(replay.user, return_inverse=True)
    shown = [np.where(items >= 0, creator[np.maximum(items, 0)], NONE) for items in (ours, plain)]
    rng, drawn = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        taken = np.isin(at, rng.integers(0, len(users), len(users)))
        ours_shown, plain_shown = (len(np.setdiff1d(each[taken], [NONE])) for each in shown)
        drawn.append(ours_shown / plain_shown - 1 if plain_shown else np.nan)
    name = f"creator_coverage@{TOP}"
    a, b = (replay.models[variant].overall[name] for variant in ("shipped", "plain"))
    bias = np.median(drawn) - (a / b - 1)  # fewer users show fewer creators, and the poorer list loses more
    low, high = 100 * (np.quantile(drawn, TAILS) - bias)
    return _interval(name, a, b, 100 * (a / b - 1), low, high)


def _interval(metric: str, ours: float, plain: float, percent: float, low: float, high: float) -> dict[str, Any]:
    row = {"shipped": ours, "plain": plain, "change %": percent, "low %": float(low), "high %": float(high)}
    return {"metric": metric, **{name: v if np.isfinite(v) else None for name, v in row.items()}}


if __name__ == "__main__":
    main()
