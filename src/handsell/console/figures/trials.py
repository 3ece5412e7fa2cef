"""Experiments in words: what each arm changes, and what an analysis has found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from handsell.config import Config
from handsell.console.figures.live_lists import Line
from handsell.experiments.config import Arm, Experiment
from handsell.experiments.state import ExperimentState, ExperimentStates, describe_state

UNITS = {"user": "people", "visitor": "visitors", "session": "visits"}
OUTCOMES = {
    "beats": ("good", "better than"), "loses": ("bad", "worse than"), "undecided": ("", "not yet told apart from"),
    "refused": ("bad", "not comparable with"),
}  # fmt: skip
LIST_WORDS = {
    "items per slate": "Items in a list", "coverage": "Catalog shown", "gini": "Concentration",
    "repeated from the last slate": "Repeated from the list before", "diversity of tags": "Variety within a list",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ListedExperiment:
    """A row of the list of experiments."""

    name: str
    state: str
    runs: bool
    metric: str
    surfaces: str
    share: str
    arms: str


@dataclass(frozen=True, slots=True)
class ArmWords:
    """What the people of an arm get."""

    name: str
    share: str
    is_control: bool
    changes: list[str]
    stopped: str  # why; empty while it runs


def list_experiments(config: Config, states: ExperimentStates, now_us: int) -> list[ListedExperiment]:
    """Return the experiments of a configuration, those that run first."""
    rows = []
    for name, experiment in config.experiments.items():
        state = states.of(name)
        runs = experiment.runs_at(now_us) and not state.stopped
        arms = ", ".join(f"{arm} {experiment.arms[arm].share:.0%}" for arm in order_arms(experiment))
        rows.append(
            ListedExperiment(
                name, describe_state(experiment, state), runs, name_metric(experiment.metric),
                ", ".join(experiment.surfaces) or "all", f"{experiment.share:.0%} of {UNITS[experiment.unit]}", arms,
            )
        )  # fmt: skip
    return sorted(rows, key=lambda row: not row.runs)


def link_experiment(name: str) -> str:
    """Return the place of an experiment in the console."""
    return "/experiments/show?" + urlencode({"name": name})


def order_arms(experiment: Experiment) -> list[str]:
    """Return the names of the arms, control first."""
    return sorted(experiment.arms, key=lambda arm: arm != experiment.control)


def name_metric(metric: str | None) -> str:
    return f"“{metric}” per day" if metric else "clicks per shown item"


def describe_arms(experiment: Experiment, state: ExperimentState) -> list[ArmWords]:
    return [
        ArmWords(
            name, f"{experiment.arms[name].share:.0%}", name == experiment.control,
            list(_list_changes(experiment.arms[name])) or ["what everybody gets"],
            state.stopped_arms.get(name, state.reason if state.stopped else ""),
        )
        for name in order_arms(experiment)
    ]  # fmt: skip


def _list_changes(arm: Arm) -> Iterator[str]:
    if arm.bundle:
        yield f"lists of the bundle {arm.bundle}"
    if arm.rules:
        yield "no business rules" if arm.rules == "none" else f"business rules of {arm.rules}"
    for source, weight in arm.weights.items():
        yield f"the source {source} counts {weight:g} times"
    for part, words in (("reranking", "re-ranking"), ("surface", "surface")):
        for key, value in getattr(arm, part).items():
            yield f"{words}: {key} = {value}"


@dataclass(frozen=True, slots=True)
class EffectRow:
    """One metric of one arm beside control; `bounds` is what the effect may be, on a scale that all rows share."""

    metric: str
    arm: str
    control: str
    value: str
    change: str
    between: str
    outcome: str  # in words
    kind: str  # good, bad or empty
    bounds: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class ArmCount:
    arm: str
    units: int
    share: str
    expected: str


@dataclass(frozen=True, slots=True)
class TrialResult:
    """An analysis in words; empty lists where it has found nothing."""

    until: str
    verdicts: list[tuple[str, str]]  # kind, sentence
    reasons: list[str]  # why the verdict is refused
    warnings: list[str]
    counts: list[ArmCount]
    ratio: str  # the check of the sample ratio in words
    ratio_failed: bool
    main: list[EffectRow]
    others: list[EffectRow]
    lists: list[tuple[str, list[str]]]
    stopped: Mapping[str, str]
    curves: dict[str, list[Line]] = field(default_factory=dict)  # by arm: effect, lower and upper bound

    @property
    def scale(self) -> float:
        """Half the width of a scale around 0 that holds most intervals; wider ones are cut."""
        ends = sorted(abs(end) for row in (*self.main, *self.others) if row.bounds for end in row.bounds)
        return max(ends[int(0.8 * (len(ends) - 1))] if ends else 0.0, 0.01)

    def place(self, value: float) -> float:
        """Return the place of a relative effect on a scale from 0 to 100."""
        return round(50 + 50 * max(-1.0, min(1.0, value / self.scale)), 2)


def describe_result(found: Mapping[str, Any], control: str) -> TrialResult:
    """Put the JSON of `handsell experiments analyze --json` in words."""
    verdict = found["verdict"]
    effects = [_describe_effect(effect) for effect in verdict["effects"]]
    is_main = [effect["metric"] == verdict["metric"] for effect in verdict["effects"]]
    ratio = verdict["sample_ratio"]
    failed = ratio["p_value"] < 0.001 or ratio["sequential_p_value"] < 0.01
    return TrialResult(
        until=_show_time(verdict["until"]),
        verdicts=list(_list_verdicts(verdict, control)),
        reasons=verdict["reasons"],
        warnings=verdict["warnings"],
        counts=_count_arms(verdict),
        ratio="The arms do not have as many people as their shares say." if failed
        else "The arms have as many people as their shares say.",
        ratio_failed=failed,
        main=[row for row, main in zip(effects, is_main, strict=True) if main],
        others=[row for row, main in zip(effects, is_main, strict=True) if not main],
        lists=[
            (LIST_WORDS.get(name, name), [_show_list_value(name, of_arms.get(arm)) for arm in verdict["units"]])
            for name, of_arms in verdict["lists"].items()
        ],
        stopped=found["stopped"],
        curves=_draw_curves(found["looks"]),
    )  # fmt: skip


def describe_preference(found: Mapping[str, Any], control: str) -> TrialResult:
    """Put the JSON of an interleaved experiment in words."""
    challenger = found["challenger"]
    kind, words = {
        "beats": ("good", "People prefer"), "loses": ("bad", "People like less"), "undecided": ("", "Not decided yet:"),
    }[found["outcome"]]  # fmt: skip
    change, bounds = _show_change(found["preference"]), _show_between(found["low"], found["high"])
    between = f"difference of clicks, as a share of all: {change} ({bounds})"
    counts = [
        ArmCount(arm, shown, f"{clicks:,} clicks", "")
        for arm, shown, clicks in zip((control, challenger), found["shown"], found["clicks"], strict=True)
    ]
    sentence = (
        f"{words} {challenger} to {control}; {between}."
        if found["outcome"] == "beats"
        else f"{words} {challenger} beside {control}; {between}."
    )
    return TrialResult("", [(kind, sentence)], [], [], counts, "", False, [], [], [], {})


def _list_verdicts(verdict: Mapping[str, Any], control: str) -> Iterator[tuple[str, str]]:
    if verdict["reasons"]:
        yield "bad", "No verdict: the data cannot be believed."
        return
    for effect in verdict["effects"]:
        if effect["metric"] != verdict["metric"]:
            continue
        kind, words = OUTCOMES[effect["outcome"]]
        change = _show_change(effect["relative"])
        between = _show_between(effect["relative_low"], effect["relative_high"])
        what = f"{verdict['metric']} {change}" + (
            f", between {between}" if between else f"; {effect['reason'] or 'too little data'}"
        )
        yield kind, f"{effect['arm']} is {words} {control}: {what}."


def _describe_effect(effect: Mapping[str, Any]) -> EffectRow:
    kind, words = OUTCOMES[effect["outcome"]]
    low, high = effect["relative_low"], effect["relative_high"]
    return EffectRow(
        effect["metric"], effect["arm"], _show_value(effect["control"]), _show_value(effect["treatment"]),
        _show_change(effect["relative"]), _show_between(low, high) or "too little data",
        words.removesuffix(" than").removesuffix(" from").removesuffix(" with"), kind,
        None if low is None or high is None else (low, high),
    )  # fmt: skip


def _count_arms(verdict: Mapping[str, Any]) -> list[ArmCount]:
    total = max(sum(verdict["units"].values()), 1)
    expected = verdict["sample_ratio"]["expected"]
    return [
        ArmCount(arm, units, f"{units / total:.1%}", f"{share:.1%}")
        for (arm, units), share in zip(verdict["units"].items(), expected, strict=True)
    ]


def _draw_curves(looks: list[Mapping[str, Any]]) -> dict[str, list[Line]]:
    """Return for each arm the effect on the main metric by day with its bounds, in percent."""
    curves: dict[str, list[Line]] = {}
    for key, words in (("relative", "effect"), ("relative_low", "at least"), ("relative_high", "at most")):
        for look in looks:
            for effect in look["effects"]:
                lines = curves.setdefault(effect["arm"], [])
                if not lines or lines[-1].name != words:
                    lines.append(Line(words, []))
                known = effect["relative_low"] is not None
                value = effect[key] if known else None
                lines[-1].points.append((look["until"] / 1e6, None if value is None else round(100 * value, 2)))
    for lines in curves.values():
        _cut(lines)
    return {arm: lines for arm, lines in curves.items() if sum(v is not None for _, v in lines[0].points) > 1}


def _cut(lines: list[Line]) -> None:
    """Leave out the days whose bounds are far wider than the narrowest ones, which would flatten the others."""
    _, low, high = lines
    widths = [None if a is None or b is None else b - a for (_, a), (_, b) in zip(low.points, high.points, strict=True)]
    most = 6 * min((width for width in widths if width is not None), default=0.0)
    for line in lines:
        line.points[:] = [
            (time, value if width is not None and width <= most else None)
            for (time, value), width in zip(line.points, widths, strict=True)
        ]


def _show_time(us: int) -> str:
    return f"{datetime.fromtimestamp(us / 1e6, UTC):%Y-%m-%d %H:%M} UTC"


def _show_value(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}"


def _show_list_value(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if name == "items per slate" else f"{value:.1%}"


def _show_change(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:+.1%}" if abs(value) < 1 else f"{value:+,.0%}"


def _show_between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{_show_change(low)} and {_show_change(high)}"
