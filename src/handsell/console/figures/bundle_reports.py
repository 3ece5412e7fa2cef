"""Bundles with their training reports: a list, one report in words, and two side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from handsell.bundles.manifest import Manifest
from handsell.bundles.store import BundleStore
from handsell.console.figures.metric_words import (
    CREATOR_WORDS,
    HITS_PER_PERSON,
    METRICS,
    NONE,
    MetricWords,
    find_metric,
    name_model,
)
from handsell.core.errors import BundleError
from handsell.experiments.state import ExperimentStates

TOP = "@10"
FUNNEL = "funnel"
SHOWN_METRICS = (
    "recall", "hit_rate", "diversity", "coverage", "creator_coverage", "small_creators", "gini", "novelty",
    "serendipity", "calibration_error", "drift", "repeat_rate",
)  # fmt: skip
TREND = ("ndcg", "diversity", "coverage", "small_creators", "drift")
REPORT, PAGE = "report.json", "report.html"
MOST = 50  # bundles of a list


@dataclass(frozen=True, slots=True)
class ListedBundle:
    """A row of the list of bundles; `problem` says why a bundle cannot be read."""

    bundle: str
    role: str  # live, canary, or empty
    created: datetime | None = None
    data_until: datetime | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    problem: str = ""

    def show(self, metric: str) -> str:
        """Return a metric of its slates as people read it."""
        return METRICS[metric].show(self.metrics.get(metric + TOP))


def list_bundles(store: BundleStore, states: ExperimentStates | None = None) -> list[ListedBundle]:
    """Return the newest bundles, newest first."""
    roles = {store.live(): "live"}
    if states is not None and (canary := states.running_canary) is not None:
        roles[canary.bundle] = "canary"
    return [_list_bundle(store, name, roles.get(name, "")) for name in reversed(store.list()[-MOST:])]


def _list_bundle(store: BundleStore, name: str, role: str) -> ListedBundle:
    try:
        about: Manifest = store.show(name)
    except BundleError as error:
        return ListedBundle(name, role, problem=str(error))
    return ListedBundle(name, role, _to_time(about.created_us), _to_time(about.data_end_us), about.metrics, about.notes)


def read_report(store: BundleStore, bundle: str) -> dict[str, Any]:
    """Return a bundle's report; raises BundleError if it has none."""
    path = find_report_file(store, bundle, REPORT)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"bundle {bundle}: its report cannot be read ({error}): train a new bundle") from None


def find_report_file(store: BundleStore, bundle: str, name: str) -> Path:
    """Return the path of `report.json` or `report.html`, after its hash is checked; raises BundleError."""
    manifest, folder = store.verify_part(bundle, "report", lambda file: file in (REPORT, PAGE))
    if name not in manifest.files:
        raise BundleError(f"bundle {bundle} has no {name}: it was made without an evaluation; train a new one")
    return folder / name


@dataclass(frozen=True, slots=True)
class ScoredModel:
    """How well one way of recommending did in the same test."""

    name: str
    words: str
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric of one report, or of two side by side."""

    words: MetricWords
    shown: str
    other: str = ""
    change: str = ""  # in words


@dataclass(frozen=True, slots=True)
class ReportWords:
    """A report for people who did not train the bundle."""

    sentence: str
    outcome: str  # beats, loses, undecided, or empty without a comparison
    summary: str
    reasons: list[str]
    hits: MetricWords  # what the models are scored by
    models: list[ScoredModel]  # best first
    metrics: list[MetricRow]
    exposure: dict[str, float]  # share of places by size of the creator, in words
    segments: list[tuple[str, int, str, str]]  # group of people, requests, its score, its interval

    @property
    def exposure_percent(self) -> list[float]:
        return [round(100 * share, 1) for share in self.exposure.values()]

    @property
    def largest(self) -> float:
        """The end of the scale of the models' intervals."""
        return max([model.high or 0.0 for model in self.models], default=0.0) or 1.0


def describe_report(report: Mapping[str, Any]) -> ReportWords:
    """Put a report in words; parts that it lacks are empty."""
    served = report.get("served") or {}
    best = served.get("to_best_baseline") or {}
    return ReportWords(
        sentence=served.get("sentence") or report.get("summary", ""),
        outcome=best.get("outcome", ""),
        summary=report.get("summary", ""),
        reasons=list(report.get("reasons", ())),
        hits=HITS_PER_PERSON if served.get("models") else METRICS["ndcg"],
        models=_score_models(report),
        metrics=[MetricRow(METRICS[name], METRICS[name].show(value)) for name, value in _list_metrics(report)],
        exposure=_find_exposure(report),
        segments=list(_list_segments(report)),
    )


def _score_models(report: Mapping[str, Any]) -> list[ScoredModel]:
    """Return the models as served, or of the test window in reports of earlier versions, best first."""
    served = (report.get("served") or {}).get("models")
    rows = (
        [(name, one["ndcg"], one["low"], one["high"]) for name, one in served.items()]
        if served
        else [(n, one["metrics"].get("ndcg" + TOP), *one["interval"]) for n, one in report.get("models", {}).items()]
    )
    models = [ScoredModel(name, name_model(name), value, low, high) for name, value, low, high in rows]
    return sorted(models, key=lambda one: -(one.value or 0.0))


def _list_metrics(report: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    values = report.get("models", {}).get(FUNNEL, {}).get("metrics", {})
    yield from ((name, values[name + TOP]) for name in SHOWN_METRICS if name + TOP in values)


def _find_exposure(report: Mapping[str, Any]) -> dict[str, float]:
    values = report.get("models", {}).get(FUNNEL, {}).get("metrics", {})
    found = {words: values.get(f"exposure_{size}_creators{TOP}") for size, words in CREATOR_WORDS.items()}
    return {words: value for words, value in found.items() if value is not None}


def _list_segments(report: Mapping[str, Any]) -> Iterator[tuple[str, int, str, str]]:
    words = METRICS["ndcg"]
    for name, segment in report.get("segments", {}).items():
        score = segment.get("models", {}).get(FUNNEL)
        if score is not None:
            between = f"{words.show(score['low'])} to {words.show(score['high'])}"
            yield name, segment["requests"], words.show(score["mean"]), between


@dataclass(frozen=True, slots=True)
class ReportComparison:
    """Two reports side by side; `warning` says what makes them hard to compare."""

    rows: list[MetricRow]
    warning: str


def compare_reports(one: Mapping[str, Any], other: Mapping[str, Any]) -> ReportComparison:
    """Compare `other` with `one`; better and worse are said where intervals exclude chance, which only hits have."""
    rows = [_compare_hits(METRICS["ndcg"], *map(_find_hits_per_request, (one, other)))]
    rows.append(_compare_hits(HITS_PER_PERSON, *map(_find_hits_per_person, (one, other))))
    second = dict(_list_metrics(other))
    for name, value in _list_metrics(one):
        words, after = METRICS[name], second.get(name)
        rows.append(MetricRow(words, words.show(value), words.show(after), _word_change(words, value, after)))
    return ReportComparison(
        [row for row in rows if row.shown != NONE or row.other != NONE], _warn_of_windows(one, other)
    )


def _warn_of_windows(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Say that two reports are of different requests, empty if they are of the same."""
    windows = [report.get("windows", {}).get("test") for report in (one, other)]
    if windows[0] == windows[1]:
        return ""
    times = [_show_window(window) for window in windows]
    return (
        f"The two were tested on different requests: the first on those {times[0]}, the second on those {times[1]}. "
        "Part of a difference may come from this. The gate of a training compares both bundles on the same requests."
    )


def _show_window(window: Mapping[str, str] | None) -> str:
    if window is None:
        return "of a time that its report does not say"
    first, last = (window[end].replace("T", " ").removesuffix("Z") for end in ("from", "until"))
    return f"from {first} to {last} UTC"


def _find_hits_per_request(report: Mapping[str, Any]) -> ScoredModel:
    found = report.get("models", {}).get(FUNNEL, {})
    low, high = found.get("interval") or (None, None)
    return ScoredModel(FUNNEL, "", found.get("metrics", {}).get("ndcg" + TOP), low, high)


def _find_hits_per_person(report: Mapping[str, Any]) -> ScoredModel:
    found = (report.get("served") or {}).get("models", {}).get(FUNNEL, {})
    return ScoredModel(FUNNEL, "", found.get("ndcg"), found.get("low"), found.get("high"))


def _compare_hits(words: MetricWords, first: ScoredModel, second: ScoredModel) -> MetricRow:
    if first.low is None or first.high is None or second.low is None or second.high is None:
        change = ""
    elif second.low > first.high:
        change = "better"
    elif second.high < first.low:
        change = "worse"
    else:
        change = "no clear difference: the intervals overlap"
    return MetricRow(words, _show_interval(words, first), _show_interval(words, second), change)


def _show_interval(words: MetricWords, model: ScoredModel) -> str:
    if model.low is None or model.high is None:
        return words.show(model.value)
    return f"{words.show(model.value)} ({words.show(model.low)} to {words.show(model.high)})"


def _word_change(words: MetricWords, before: float | None, after: float | None) -> str:
    """Say how a value without an interval has changed, which may be chance."""
    if before is None or after is None:
        return ""
    if words.show(before) == words.show(after):
        return "the same"
    return "higher" if after > before else "lower"


def choose_pair(bundles: list[ListedBundle], one: str = "", other: str = "") -> tuple[str, str]:
    """Return the two bundles to compare: those that are named, in this order, else the older one first.

    What is not named is the live bundle, else the newest that can be read; empty if there is none.
    """
    if one and other:
        return one, other
    readable = sorted((bundle for bundle in bundles if not bundle.problem), key=lambda bundle: bundle.role != "live")
    named = one or other or (readable[0].bundle if readable else "")
    second = next((bundle.bundle for bundle in readable if bundle.bundle != named), "")
    age = {bundle.bundle: -place for place, bundle in enumerate(bundles)}  # newest first
    older, newer = sorted((named, second), key=lambda name: age.get(name, 0))
    return older, newer


def list_trend(bundles: list[ListedBundle]) -> dict[str, list[tuple[float, float]]]:
    """Return the metrics of TREND as points (time in s, value), oldest bundle first."""
    trend: dict[str, list[tuple[float, float]]] = {name: [] for name in TREND}
    for bundle in reversed(bundles):
        for name, points in trend.items():
            value = bundle.metrics.get(name + TOP)
            if value is not None and bundle.created is not None and find_metric(name):
                points.append((bundle.created.timestamp(), value))
    return trend


def _to_time(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, UTC)
