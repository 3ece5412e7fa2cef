"""The report of a training: one documented dict (`report.json`) and the page made from it (`report.html`).

    version, config, created            what this is
    data, windows                       counts as given; windows as {name: {from, until}} (ISO times)
    served                              everybody asked at one moment, as a service is: {moment, requests, contenders:
                                         {name: {kind, ndcg, low, high, recall}}, best_baseline, to_best_baseline:
                                         comparison or null, sentence}; kinds as below, and baseline
    by_time_away                        the same held-out items asked for after other pauses: {pauses: [{name,
                                         seconds}], requests, contenders: {name: [NDCG@10 by pause]}, kinds, loss:
                                         {name: comparison of 30 days with 1 minute}, sentences}
    choices                             {sources: null or {window, requests, fused, sources: [{name, picked, why, ndcg,
                                         weight, history}]}, strength: null or {value, tried: [{strength, relative,
                                         relative_low}], requests, by_bound, tolerance, sentence}}
    requests, users, relevant_items, cold_relevant_items
    headline, best_retriever, summary   the metric that decides; the sentence that says how it went
    verdicts                            {beats | undecided | loses: [sentence]}, the funnel against each rival
    reasons                             [sentence] why
    contenders                          {name: {kind, metrics: {metric: mean}, interval: [low, high] of the headline,
                                         to_popularity, to_best_retriever: comparison or null}}
    funnel                              {rival: comparison}
    sources                             {name: {returned, hits, unique_hits, unique_share}}
    segments                            {segment of users: {requests, contenders: {name: {mean, low, high}},
                                         lists: {list metric: {contender: mean}}}}
    curve                               [{family, strength, ndcg, list metric: mean …}]: the ranker's candidates
                                         re-ranked in other ways; "plain" is the ranker's own order
    items                               {cold | warm: {contender: {recall@k: mean}}}
    feature_importance                  [{feature, share}], strongest first, shares add up to 1
    tuning                              {source: {objective, requests, combinations, seconds, configured,
                                         configured_params, best, params, trials: [{params, value, seconds, error}]}}
    seconds                             {step: seconds}; replay_ms: {contender: ms per request}
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
from handsell.evaluation.replay_scores import HEADLINE, POPULARITY, TOP, ModelScores, Replay
from handsell.evaluation.report.summary_text import reasons, standing, summary, verdicts

VERSION = 1
BY_SEGMENT = ("diversity", "novelty", "serendipity", "calibration_error", "small_creators", "drift", "repeat_rate")
CURVE = ("diversity", "creator_coverage", "coverage", "novelty", "calibration_error", "small_creators", "gini")
ORDER = {ORACLE: 0, FUNNEL: 1, RANKER: 2, BLEND: 3}  # of kinds; then retrievers and others by their score


@dataclass(frozen=True, slots=True)
class ReportContext:
    """What the training job knows and a replay does not."""

    config: str
    created_us: int
    data: Mapping[str, Any] = field(default_factory=dict)  # counts of events, items, users …
    windows: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # µs [from, until)
    importance: Mapping[str, float] = field(default_factory=dict)  # feature → gain
    seconds: Mapping[str, float] = field(default_factory=dict)  # step → time taken
    libraries: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # further reasons, in sentences
    tuning: Mapping[str, Any] = field(default_factory=dict)  # source → what the search for its parameters found
    served: Mapping[str, Any] = field(default_factory=dict)  # evaluation.served.describe_served
    by_time_away: Mapping[str, Any] = field(default_factory=dict)  # evaluation.served.describe_pauses
    choices: Mapping[str, Any] = field(default_factory=dict)  # what training picked: sources, strength of re-ranking


def build_report(replay: Replay, about: ReportContext, seed: int = 0) -> dict[str, Any]:
    """The report as plain JSON data."""
    at = standing(replay, seed)
    headline = estimate_means(replay.scores(HEADLINE), replay.user, seed=seed)
    report = {
        "version": VERSION,
        "config": about.config,
        "created": _moment(about.created_us),
        "data": dict(about.data),
        "windows": {n: {"from": _moment(a), "until": _moment(b)} for n, (a, b) in about.windows.items()},
        "served": dict(about.served),
        "by_time_away": dict(about.by_time_away),
        "choices": dict(about.choices),
        "requests": len(replay),
        "users": len(np.unique(replay.user)),
        "relevant_items": replay.relevant,
        "cold_relevant_items": replay.cold_relevant,
        "headline": HEADLINE,
        "best_retriever": at.best,
        "summary": summary(at),
        "verdicts": verdicts(at),
        "reasons": [*reasons(replay, at), *about.notes],
        "models": {
            name: {
                "kind": replay.models[name].kind,
                "metrics": _metrics(replay.models[name]),
                "interval": [headline[name].low, headline[name].high],
                "to_popularity": _plain(at.to_popularity.get(name)),
                "to_best_retriever": _plain(at.to_best.get(name)),
            }
            for name in _ordered(replay)
        },
        "funnel": {name: c.as_dict() for name, c in at.funnel.items()},
        "sources": {name: asdict(hits) for name, hits in replay.sources.items()},
        "segments": _segments(replay, seed),
        "curve": _curve(replay),
        "items": {part: _item_recall(replay, f"{part}_item_") for part in ("warm", "cold")},
        "feature_importance": _importance(about.importance),
        "tuning": dict(about.tuning),
        "seconds": dict(about.seconds),
        "replay_ms": {n: 1000 * s / len(replay) for n, s in replay.seconds.items() if n not in (BLEND, RANKER)},
        "degraded": replay.degraded,
        "libraries": dict(about.libraries),
        "definitions": {name: asdict(d) for name, d in DEFINITIONS.items()},
    }
    return _without_nan(report)


def write_report(report: dict[str, Any], folder: Path) -> None:
    """`report.json` and the self-contained `report.html` in `folder`."""
    from handsell.evaluation.report.page import render

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False), "utf-8")
    (folder / "report.html").write_text(render(report), "utf-8")


def _ordered(replay: Replay) -> list[str]:
    def key(name: str) -> tuple[int, float]:
        contender = replay.models[name]
        return ORDER.get(contender.kind, len(ORDER)), -np.nan_to_num(mean_known(contender.scores[HEADLINE]))

    return sorted(replay.models, key=key)


def _metrics(contender: ModelScores) -> dict[str, float]:
    found = {metric: mean_known(values) for metric, values in contender.scores.items() if "_item_" not in metric}
    return {**found, **contender.whole}


def _segments(replay: Replay, seed: int) -> dict[str, Any]:
    found = {}
    for name, mask in replay.segments.items():
        if not mask.any():
            found[name] = {"requests": 0, "models": {}, "lists": {}}
            continue
        scores = {contender: values[mask] for contender, values in replay.scores(HEADLINE).items()}
        by_name = estimate_means(scores, replay.user[mask], seed=seed)
        inner = {n: {"mean": m.mean, "low": m.low, "high": m.high} for n, m in by_name.items()}
        found[name] = {"requests": int(mask.sum()), "models": inner, "lists": _lists(replay, mask)}
    return found


def _lists(replay: Replay, mask: np.ndarray) -> dict[str, dict[str, float]]:
    """List metrics of the contenders that matter on the requests of one segment."""
    return {
        metric: {
            name: mean_known(contender.scores[f"{metric}@{TOP}"][mask])
            for name, contender in replay.models.items()
            if name in (FUNNEL, RANKER, POPULARITY) and f"{metric}@{TOP}" in contender.scores
        }
        for metric in BY_SEGMENT
    }


def _curve(replay: Replay) -> list[dict[str, Any]]:
    """Rows for `plots.curve`; the name of a way of re-ranking is its family and how strongly its dial is turned."""
    rows = []
    for name, contender in replay.curve.items():
        family, _, strength = name.rpartition(" ")
        values = {**{m: mean_known(v) for m, v in contender.scores.items()}, **contender.whole}
        lists = {metric: values[f"{metric}@{TOP}"] for metric in CURVE if f"{metric}@{TOP}" in values}
        rows.append({"family": family, "strength": float(strength), "ndcg": values[HEADLINE], **lists})
    return rows


def _item_recall(replay: Replay, prefix: str) -> dict[str, dict[str, float]]:
    return {
        name: {m.removeprefix(prefix): mean_known(v) for m, v in contender.scores.items() if m.startswith(prefix)}
        for name, contender in replay.models.items()
    }


def _importance(gain: Mapping[str, float]) -> list[dict[str, Any]]:
    total = sum(gain.values()) or 1.0
    ranked = sorted(gain.items(), key=lambda pair: -pair[1])
    return [{"feature": name, "share": value / total} for name, value in ranked]


def _plain(comparison: Comparison | None) -> dict[str, Any] | None:
    return comparison.as_dict() if comparison else None


def _moment(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
