"""The verdict, a preference and a plan as tables and sentences on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from handsell.experiments.analysis.analysis import ExperimentAnalysis
from handsell.experiments.analysis.effects import ArmEffect
from handsell.experiments.analysis.interleaving_credit import TeamPreference
from handsell.experiments.analysis.planning import ExperimentPlan
from handsell.experiments.analysis.verdict import Verdict

WIDTH = 130  # of the tables; a narrower terminal wraps their lines but shows all figures


def open_console() -> Console:
    return Console(width=max(Console().width, WIDTH), highlight=False)


def print_analysis(found: ExperimentAnalysis, console: Console | None = None) -> None:
    """Print everything that an analysis found; the decision comes last."""
    console, verdict = console or open_console(), found.verdict
    console.print(f"{verdict.experiment}, until {format_time(verdict.until)}")
    for part in (*_build_units(verdict), *_build_effects(verdict), *_build_lists(verdict), *_build_segments(verdict)):
        console.print(part)
    for name, reason in found.stopped.items():
        console.print(f"- {name} was stopped: {reason or 'no reason given'}; what came later does not count")
    for warning in verdict.warnings:
        console.print(f"- {warning}")
    for sentence in describe_decisions(verdict):
        console.print(sentence)


def describe_decisions(verdict: Verdict) -> Iterator[str]:
    """Say for each arm what is decided, or why nothing is."""
    if verdict.reasons:
        yield "The verdict is refused:"
        yield from (f"- {reason}" for reason in verdict.reasons)
        return
    control = next(iter(verdict.units))
    for effect in verdict.main:
        change = format_interval(effect.relative, effect.relative_low, effect.relative_high)
        if effect.outcome == "undecided":
            yield f"{effect.arm} against {control} is undecided: {verdict.metric} {change or effect.reason}."
        else:
            yield f"{effect.arm} {effect.outcome} {control}: {verdict.metric} {change}, p = {effect.p_value:.2g}."


def print_preference(name: str, found: TeamPreference, console: Console | None = None) -> None:
    """Print the result of an interleaved experiment."""
    console = console or open_console()
    table = _start_table(f"{name}: interleaved, {found.units:,} units with a click", "arm", "items shown", "clicks")
    for arm, shown, clicks in zip((found.control, found.challenger), found.shown, found.clicks, strict=True):
        table.add_row(arm, f"{shown:,}", f"{clicks:,}")
    console.print(table)
    interval = format_interval(found.preference, found.low, found.high)
    verb = {"beats": "is preferred to", "loses": "is less liked than", "undecided": "is not decided against"}
    console.print(
        f"{found.challenger} {verb[found.outcome]} {found.control}: difference of clicks, as a share of "
        f"all, {interval}, p = {found.p_value:.2g}."
    )


def print_plan(name: str, arm: str, plan: ExperimentPlan, console: Console | None = None) -> None:
    """Print how long an experiment takes."""
    console = console or open_console()
    console.print(
        f"{name}, {arm}: {plan.metric} is {plan.value:.4g}; {plan.units_per_day:,.0f} units a day over "
        f"{plan.logged_days} logged days; CUPED removes {plan.variance_reduction:.0%} of the variance"
    )
    table = _start_table("Smallest effect found with 80 % power, looking every day", "days", "units", "effect", "from")
    for horizon in plan.horizons:
        source = "the log" if horizon.logged else "continued"
        table.add_row(str(horizon.days), f"{horizon.units:,}", f"{horizon.smallest_effect:.2%}", source)
    console.print(table)
    if plan.days is None:
        console.print(f"An effect of {plan.effect:.2%} is not found within a year: more units, or a larger effect.")
    else:
        console.print(f"An effect of {plan.effect:.2%} is found after {plan.days} days.")


def _build_units(verdict: Verdict) -> Iterator[Table | str]:
    ratio, outliers = verdict.sample_ratio, verdict.outliers
    table = _start_table("Units", "arm", "units", "share", "expected", "bots", "capped")
    total = max(sum(verdict.units.values()), 1)
    rows = zip(verdict.units.items(), ratio.expected, outliers.bots, outliers.capped, strict=True)
    for (arm, units), expected, bots, capped in rows:
        table.add_row(arm, f"{units:,}", f"{units / total:.1%}", f"{expected:.1%}", f"{bots:,}", f"{capped:,}")
    yield table
    several = verdict.crossed + verdict.merged
    crossed = f"; {several:,} units in several arms, {verdict.merged:,} of them by a merge" if several else ""
    yield (
        f"sample ratio: chi-square p = {ratio.p_value:.2g}, over all looks p = {ratio.sequential_p_value:.2g}{crossed}"
    )


def _build_effects(verdict: Verdict) -> Iterator[Table]:
    others = [effect for effect in verdict.effects if effect.metric != verdict.metric]
    titles = (f"Main metric: {verdict.metric}", verdict.main), ("Other metrics", others)
    for title, effects in titles:
        if effects:
            table = _start_table(
                title, "metric", "arm", "control", "value", "effect", f"always-valid {1 - verdict.alpha:.0%} interval",
                "p", "CUPED", "outcome",
            )  # fmt: skip
            for effect in effects:
                table.add_row(effect.metric, effect.arm, *_build_cells(effect))
            yield table


def _build_cells(effect: ArmEffect) -> list[str]:
    values = [format_value(effect.control), format_value(effect.treatment)]
    interval = format_bounds(effect.relative_low, effect.relative_high) or "too little data"
    change = "" if effect.relative is None else f"{effect.relative:+.2%}"
    return [*values, change, interval, f"{effect.p_value:.2g}", f"{effect.variance_reduction:.0%}", effect.outcome]


def _build_segments(verdict: Verdict) -> Iterator[Table]:
    if verdict.segments:
        columns = ("segment", "arm", "units", "effect", "interval", "p", "p, corrected", "outcome")
        table = _start_table(f"Segments: {verdict.metric}", *columns)
        for found in verdict.segments:
            effect = found.effect
            _, _, change, interval, p, _, outcome = _build_cells(effect)
            table.add_row(
                found.segment, effect.arm, f"{effect.units:,}", change, interval, p, f"{found.corrected_p_value:.2g}",
                outcome,
            )  # fmt: skip
        yield table


def _build_lists(verdict: Verdict) -> Iterator[Table]:
    if verdict.lists:
        table = _start_table("Lists", "metric", *verdict.units)
        for metric, of_arms in verdict.lists.items():
            table.add_row(metric, *(format_value(of_arms[arm]) for arm in verdict.units))
        yield table


def _start_table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    for column in others:
        table.add_column(column, justify="right")
    return table


def format_time(time: int) -> str:
    return f"{datetime.fromtimestamp(time / 1e6, UTC):%Y-%m-%d %H:%M} UTC"


def format_value(value: float) -> str:
    return "–" if value != value else f"{value:,.4g}"


def format_bounds(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:+.2%} to {high:+.2%}"


def format_interval(value: float | None, low: float | None, high: float | None) -> str:
    bounds = format_bounds(low, high)
    return "" if value is None or not bounds else f"{value:+.2%} ({bounds})"
