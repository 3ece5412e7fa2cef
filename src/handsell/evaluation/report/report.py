"""The training report: one dict (`report.json`) and the page rendered from it (`report.html`).

    version, config, created            format version, name of the config, time of the training
    data, windows                       counts of the data; windows as {name: {from, until}} (ISO times)
    served                              evaluation with all users requesting at one time: {as_of, requests,
                                         models: {name: {kind, ndcg, low, high, recall}}, best_baseline,
                                         to_best_baseline: comparison or null, sentence}; kinds as below, and baseline
    by_time_away                        the same held-out items after several pauses: {pauses: [{name, seconds}],
                                         requests, models: {name: [NDCG@10 by pause]}, kinds, loss: {name: comparison
                                         of 30 days with 1 minute}, sentences}
    choices                             {sources: null or {window, requests, fused, sources: [{name, picked, why, ndcg,
                                         weight, history}]}, strength: null or {value, tried: [{strength, relative,
                                         relative_low}], requests, by_bound, tolerance, sentence}}
    requests, users, relevant_items, cold_relevant_items
    headline, best_retriever, summary   the metric that models are compared by; the result in one sentence
    outcomes                            {beats | undecided | loses: [sentence]}, the funnel against each rival
    reasons                             [sentence] that explain the result
    models                              {name: {kind, metrics: {metric: mean}, interval: [low, high] of the headline,
                                         to_popularity, to_best_retriever: comparison or null}}
    funnel                              {rival: comparison}
    sources                             {name: {returned, hits, unique_hits, unique_share}}
    segments                            {segment of users: {requests, models: {name: {mean, low, high}},
                                         lists: {list metric: {model: mean}}}}
    curve                               [{family, strength, ndcg, list metric: mean …}]: the ranker's candidates
                                         re-ranked in other ways; "plain" is the ranker's own order
    items                               {cold | warm: {model: {recall@k: mean}}}
    feature_importance                  [{feature, share}], highest share first; shares add up to 1
    tuning                              {source: {objective, requests, combinations, seconds, configured,
                                         configured_params, best, params, trials: [{params, value, seconds, error}]}}
    seconds                             {step: seconds}; replay_ms: {model: ms per request}
    degraded, libraries, definitions    {stage: requests}, {library: version}, {metric: definition}

A comparison is `intervals.Comparison`. A figure without a value is null, never NaN.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from handsell.evaluation.intervals import Comparison, estimate_means
from handsell.evaluation.metrics import DEFINITIONS, mean_known
from handsell.evaluation.replay import BLEND, FUNNEL, ORACLE, RANKER
from handsell.evaluation.replay_scores import HEADLINE, POPULARITY, TOP, Replay
from handsell.evaluation.report.summary_text import compare_models, describe_outcomes, explain_result, summarize

VERSION = 1
SEGMENT_METRICS = ("diversity", "novelty", "serendipity", "calibration_error", "small_creators", "drift", "repeat_rate")
CURVE_METRICS = ("diversity", "creator_coverage", "coverage", "novelty", "calibration_error", "small_creators", "gini")
ORDER = {ORACLE: 0, FUNNEL: 1, RANKER: 2, BLEND: 3}  # by kind; then retrievers and others by score


@dataclass(frozen=True, slots=True)
class ReportContext:
    """What the training job adds to a replay to make a report."""

    config: str
    created_us: int
    data: Mapping[str, Any] = field(default_factory=dict)  # counts of events, items, users …
    windows: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # µs [from, until)
    importance: Mapping[str, float] = field(default_factory=dict)  # feature → gain
    seconds: Mapping[str, float] = field(default_factory=dict)  # step → time taken
    libraries: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # further sentences for `reasons`
    tuning: Mapping[str, Any] = field(default_factory=dict)  # source → result of the search for its parameters
    served: Mapping[str, Any] = field(default_factory=dict)  # evaluation.served.describe_served
    by_time_away: Mapping[str, Any] = field(default_factory=dict)  # evaluation.served.describe_pauses
    choices: Mapping[str, Any] = field(default_factory=dict)  # sources and strength of re-ranking that training picked


def build_report(replay: Replay, context: ReportContext, seed: int = 0) -> dict[str, Any]:
    """Build the report as plain JSON data."""
    found = compare_models(replay, seed)
    headline = estimate_means(replay.scores(HEADLINE), replay.user, seed=seed)
    report = {
        "version": VERSION,
        "config": context.config,
        "created": _iso_time(context.created_us),
        "data": dict(context.data),
        "windows": {n: {"from": _iso_time(a), "until": _iso_time(b)} for n, (a, b) in context.windows.items()},
        "served": dict(context.served),
        "by_time_away": dict(context.by_time_away),
        "choices": dict(context.choices),
        "requests": len(replay),
        "users": len(np.unique(replay.user)),
        "relevant_items": replay.relevant,
        "cold_relevant_items": replay.cold_relevant,
        "headline": HEADLINE,
        "best_retriever": found.best,
        "summary": summarize(found),
        "outcomes": describe_outcomes(found),
        "reasons": [*explain_result(replay, found), *context.notes],
        "models": {
            name: {
                "kind": replay.models[name].kind,
                "metrics": {m: v for m, v in replay.models[name].means().items() if "_item_" not in m},
                "interval": [headline[name].low, headline[name].high],
                "to_popularity": _comparison_dict(found.to_popularity.get(name)),
                "to_best_retriever": _comparison_dict(found.to_best.get(name)),
            }
            for name in _order_models(replay)
        },
        "funnel": {name: c.as_dict() for name, c in found.funnel.items()},
        "sources": {name: asdict(hits) for name, hits in replay.sources.items()},
        "segments": _describe_segments(replay, seed),
        "curve": _describe_curve(replay),
        "items": {part: _recall_of_items(replay, f"{part}_item_") for part in ("warm", "cold")},
        "feature_importance": _describe_importance(context.importance),
        "tuning": dict(context.tuning),
        "seconds": dict(context.seconds),
        "replay_ms": {n: 1000 * s / len(replay) for n, s in replay.seconds.items() if n not in (BLEND, RANKER)},
        "degraded": replay.degraded,
        "libraries": dict(context.libraries),
        "definitions": {name: asdict(d) for name, d in DEFINITIONS.items()},
    }
    return _without_nan(report)


def write_report(report: dict[str, Any], folder: Path) -> None:
    """Write `report.json` and the self-contained `report.html` to a folder."""
    from handsell.evaluation.report.page import render

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False), "utf-8")
    (folder / "report.html").write_text(render(report), "utf-8")


def _order_models(replay: Replay) -> list[str]:
    def key(name: str) -> tuple[int, float]:
        model = replay.models[name]
        return ORDER.get(model.kind, len(ORDER)), -np.nan_to_num(mean_known(model.scores[HEADLINE]))

    return sorted(replay.models, key=key)


def _describe_segments(replay: Replay, seed: int) -> dict[str, Any]:
    segments = {}
    for name, mask in replay.segments.items():
        if not mask.any():
            segments[name] = {"requests": 0, "models": {}, "lists": {}}
            continue
        scores = {model: values[mask] for model, values in replay.scores(HEADLINE).items()}
        means = estimate_means(scores, replay.user[mask], seed=seed)
        models = {n: {"mean": m.mean, "low": m.low, "high": m.high} for n, m in means.items()}
        lists = _list_metrics_of_segment(replay, mask)
        segments[name] = {"requests": int(mask.sum()), "models": models, "lists": lists}
    return segments


def _list_metrics_of_segment(replay: Replay, mask: np.ndarray) -> dict[str, dict[str, float]]:
    """Return list metric → model → mean over the requests of a segment (R,) bool, for funnel, ranker and popularity."""
    return {
        metric: {
            name: mean_known(model.scores[f"{metric}@{TOP}"][mask])
            for name, model in replay.models.items()
            if name in (FUNNEL, RANKER, POPULARITY) and f"{metric}@{TOP}" in model.scores
        }
        for metric in SEGMENT_METRICS
    }


def _describe_curve(replay: Replay) -> list[dict[str, Any]]:
    """Return the rows for `plots.draw_curve`. The name of a way of re-ranking is "family strength"."""
    rows = []
    for name, model in replay.curve.items():
        family, _, strength = name.rpartition(" ")
        values = model.means()
        lists = {metric: values[f"{metric}@{TOP}"] for metric in CURVE_METRICS if f"{metric}@{TOP}" in values}
        rows.append({"family": family, "strength": float(strength), "ndcg": values[HEADLINE], **lists})
    return rows


def _recall_of_items(replay: Replay, prefix: str) -> dict[str, dict[str, float]]:
    return {
        name: {m.removeprefix(prefix): mean_known(v) for m, v in model.scores.items() if m.startswith(prefix)}
        for name, model in replay.models.items()
    }


def _describe_importance(gain: Mapping[str, float]) -> list[dict[str, Any]]:
    total = sum(gain.values()) or 1.0
    ranked = sorted(gain.items(), key=lambda pair: -pair[1])
    return [{"feature": name, "share": value / total} for name, value in ranked]


def _comparison_dict(comparison: Comparison | None) -> dict[str, Any] | None:
    return comparison.as_dict() if comparison else None


def _iso_time(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _without_nan(value: Any) -> Any:
    """Return plain JSON data, with None for floats that are not finite."""
    if isinstance(value, Mapping):
        return {str(k): _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
