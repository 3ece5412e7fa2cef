"""Verdicts on experiments whose truth is known, drawn from the synthetic world's users, with a look every day.

Three parts: A/A experiments (false alarms, coverage, sample ratio, CUPED), effects planted in the simulated population
(verdict and time to it), and planted defects (refused by which check, and when). All of them take the path of
`handsell experiments analyze` from the outcomes per unit to the verdict.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from benchmarks.experiments.population import (
    DAYS,
    TYPES,
    DrawnExperiment,
    Population,
    build_population,
    draw_experiment,
    simulate_population,
)
from benchmarks.report import write_report
from handsell.experiments.analysis.log.outcomes import UnitOutcomes
from handsell.experiments.analysis.metrics import CTR, SLATES, list_metrics, name_conversion, name_rate, name_retention
from handsell.experiments.analysis.planning import plan_experiment
from handsell.experiments.analysis.verdict import AnalysisSettings, ArmShares, Verdict, judge

EVEN = ArmShares(((0.5, 0.5),))
MAIN = name_rate("listen")
OTHERS = (CTR, name_rate("like"), name_conversion("like"), name_retention(1), SLATES)
EFFECTS = (0.0, 0.02, -0.05)
NOMINAL = 0.05
PLAIN = float(norm.isf(NOMINAL / 2))


def run_same_arms(
    population: Population, experiments: int, units: int, smallest: float, seed: int
) -> dict[str, list[dict[str, Any]]]:
    """Judge experiments without an effect at every day; one row per metric, and one per check."""
    settings = AnalysisSettings(MAIN, OTHERS, smallest)
    alarms = {metric: np.zeros((experiments, 3), bool) for metric in (MAIN, *OTHERS)}
    reductions: dict[str, list[float]] = {metric: [] for metric in alarms}
    checks = np.zeros((experiments, 5), bool)
    for number in range(experiments):
        drawn = draw_experiment(population, None, units, np.random.default_rng([seed, number]))
        for day in range(DAYS):
            verdict = judge("same", drawn.read(day), EVEN, settings)
            last = day == DAYS - 1
            for effect in verdict.effects:
                if effect.low is None or effect.high is None:
                    continue
                always, plain = effect.outcome != "undecided", abs(effect.difference) > PLAIN * effect.error
                alarms[effect.metric][number] |= (always, plain, plain and last)
                if last:
                    reductions[effect.metric].append(effect.variance_reduction)
            ratio = verdict.sample_ratio
            checks[number] |= (
                last and ratio.p_value < NOMINAL, ratio.p_value < NOMINAL, ratio.sequential_p_value < NOMINAL,
                verdict.logging_ratio.failed, bool(verdict.reasons),
            )  # fmt: skip
    rows = [
        {
            "metric": metric,
            "false alarms": _percent(found[:, 0]),
            "coverage at all looks": _percent(~found[:, 0]),
            "plain intervals, any look": _percent(found[:, 1]),
            "plain intervals, last look": _percent(found[:, 2]),
            "variance removed by CUPED": f"{np.mean(reductions[metric]):.1%}" if reductions[metric] else "–",
        }
        for metric, found in alarms.items()
    ]
    names = (
        "sample ratio, chi-square below 5 %, last look", "sample ratio, chi-square below 5 %, any look",
        "sample ratio, sequential p below 5 %, any look", "slates per unit differ, any look",
        "verdict refused, any look",
    )  # fmt: skip
    of_checks = [{"check": name, "false alarms": _percent(checks[:, n])} for n, name in enumerate(names)]
    return {"A/A": rows, "A/A checks": of_checks}


def run_effects(users: int, seeds: int, units: int, seed: int) -> list[dict[str, Any]]:
    """Look every day until the verdict is clear; one row per effect that is planted in the simulated population."""
    control, rows, settings = simulate_population(users, 0.0), [], AnalysisSettings(CTR)
    for place, effect in enumerate(EFFECTS):
        treatment = simulate_population(users, effect) if effect else control
        truth = _measure_clicks(treatment) / _measure_clicks(control) - 1
        outcomes, days, covered, estimates = [], [], [], []
        for number in range(seeds):
            drawn = draw_experiment(control, treatment, units, np.random.default_rng([seed, place, number]))
            outcome, day, inside, estimate = _look_until_clear(drawn, settings, truth)
            outcomes.append(outcome)
            covered.append(inside)
            estimates.append(estimate)
            days += [day + 1] if outcome != "undecided" else []
        right = {0.0: "undecided"}.get(effect, "beats" if effect > 0 else "loses")
        rows.append(
            {
                "planted": f"{effect:+.0%}",
                "truth": f"{truth:+.2%}",
                "right verdict": _percent(np.array([o == right for o in outcomes])),
                **{name: outcomes.count(name) for name in ("beats", "loses", "undecided", "refused")},
                "planned days": _plan_days(control, units, truth, seed),
                "median": float(np.median(days)) if days else None,
                "90 % within": float(np.quantile(days, 0.9)) if days else None,
                "truth in all intervals": _percent(np.array(covered)),
                "mean estimate": f"{np.mean(estimates):+.2%}",
            }
        )
    return rows


def _measure_clicks(population: Population) -> float:
    return float(population.clicks.sum() / population.shown.sum())


def _plan_days(population: Population, units: int, effect: float, seed: int) -> int | None:
    """Return after how many days the plan promises 80 % power, from units without arms."""
    if effect == 0:
        return None
    drawn = draw_experiment(population, None, units, np.random.default_rng([seed, units]))
    drawn = dataclasses.replace(drawn, arm=np.zeros_like(drawn.arm), arms=("control",))
    looks = [drawn.read(day) for day in range(DAYS)]
    return plan_experiment(looks, CTR, list_metrics(TYPES)[CTR], (0.5, 0.5), abs(effect)).days


def _look_until_clear(drawn: DrawnExperiment, settings: AnalysisSettings, truth: float) -> tuple[str, int, bool, float]:
    """Return the first clear outcome, its day, whether all intervals had the truth, and the estimate."""
    inside, estimate = True, float("nan")
    for day in range(DAYS):
        verdict = judge("planted", drawn.read(day), EVEN, settings)
        (main,) = verdict.main
        if main.relative is None or main.relative_low is None or main.relative_high is None:
            continue
        inside &= main.relative_low <= truth <= main.relative_high
        estimate = main.relative
        if verdict.decisions[main.arm] != "undecided":
            return verdict.decisions[main.arm], day, inside, estimate
    return "undecided", DAYS - 1, inside, estimate


Defect = Callable[[UnitOutcomes, np.random.Generator], UnitOutcomes]


def log_twice(o: UnitOutcomes, rng: np.random.Generator) -> UnitOutcomes:
    """The second arm logs each slate twice."""
    times = 1 + (o.arm == 1)
    return dataclasses.replace(
        o, slates=o.slates * times, shown=o.shown * times, first_day_slates=o.first_day_slates * times
    )


def log_visitors(o: UnitOutcomes, rng: np.random.Generator) -> UnitOutcomes:
    """The second arm logs a tenth of its units under a second id, too."""
    again = np.flatnonzero((o.arm == 1) & (_draw(o) < 0.1))
    return o.select(np.concatenate([np.arange(len(o)), again]))


def leak_units(o: UnitOutcomes, rng: np.random.Generator) -> UnitOutcomes:
    """A twentieth of the second arm's units get control all the time."""
    return dataclasses.replace(o, arm=np.where(_draw(o) < 0.05, 0, o.arm).astype(np.int8))


def leak_requests(o: UnitOutcomes, rng: np.random.Generator) -> UnitOutcomes:
    """A gateway with an old configuration shows a fiftieth of the units another arm as well."""
    return dataclasses.replace(o, crossed=_draw(o) < 0.02)


def lose_units(o: UnitOutcomes, rng: np.random.Generator) -> UnitOutcomes:
    """A twentieth of the second arm's slates of units are never logged: the page breaks for them."""
    return o.select((o.arm == 0) | (_draw(o) >= 0.05))


def _draw(o: UnitOutcomes) -> np.ndarray:
    """(N,) uniform, the same for a unit at every look."""
    return np.random.default_rng(0).permutation(10_007)[o.unit % 10_007] / 10_007


def run_defects(population: Population, seeds: int, units: int, seed: int) -> list[dict[str, Any]]:
    """Plant each defect; one row each: share of seeds in which it is refused, by which check, and on which day."""
    rows, settings = [], AnalysisSettings(MAIN)
    for defect in (None, log_twice, log_visitors, leak_units, leak_requests, lose_units):
        days, reasons = [], set[str]()
        for number in range(seeds):
            rng = np.random.default_rng([seed, number])
            drawn = draw_experiment(population, None, units, rng)
            day, verdict = _look_until_refused(drawn, defect, rng, settings)
            if verdict.reasons:
                days.append(day + 1)
                reasons.add(name_reasons(verdict))
        rows.append(
            {
                "defect": "none" if defect is None else (defect.__doc__ or "").rstrip("."),
                "refused": f"{len(days)} of {seeds}",
                "median day": float(np.median(days)) if days else None,
                "by": ", ".join(sorted(reasons)),
            }
        )
    return rows


def _look_until_refused(
    drawn: DrawnExperiment, defect: Defect | None, rng: np.random.Generator, settings: AnalysisSettings
) -> tuple[int, Verdict]:
    for day in range(DAYS):
        outcomes = drawn.read(day)
        verdict = judge("defect", outcomes if defect is None else defect(outcomes, rng), EVEN, settings)
        if verdict.reasons:
            break
    return day, verdict


def name_reasons(verdict: Verdict) -> str:
    """Return the checks that refused a verdict."""
    names = {"sample ratio": "sample ratio", "arms log": "slates per unit", "of": "units in several arms"}
    return " and ".join(
        next(name for start, name in names.items() if reason.startswith(start) or f" {start} " in reason)
        for reason in verdict.reasons
    )


def _percent(found: np.ndarray) -> str:
    return f"{found.mean():.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks experiments", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=("aa", "ab", "defects"), default=("aa", "ab", "defects"))
    parser.add_argument("--experiments", type=int, default=1_000, help="A/A experiments")
    parser.add_argument("--units", type=int, default=4_000, help="units of an A/A experiment and of one with a defect")
    parser.add_argument(
        "--smallest-effect",
        type=float,
        default=0.08,
        help="of A/A: about what its units can find",
    )
    parser.add_argument("--seeds", type=int, default=100, help="experiments per planted effect and per defect")
    parser.add_argument("--planted-units", type=int, default=16_000, help="units of an experiment with an effect")
    parser.add_argument("--users", type=int, default=3_000, help="users of the world from which units are drawn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    begun = time.perf_counter()
    population = build_population(options.users)
    tables: dict[str, list[dict[str, Any]]] = {}
    if "aa" in options.parts:
        tables |= run_same_arms(population, options.experiments, options.units, options.smallest_effect, options.seed)
    if "ab" in options.parts:
        tables["planted effects"] = run_effects(options.users, options.seeds, options.planted_units, options.seed)
    if "defects" in options.parts:
        tables["planted defects"] = run_defects(population, options.seeds, 4 * options.units, options.seed)
    *others, name = tables
    about = {
        "metric": MAIN, "looks": DAYS, "A/A experiments": options.experiments, "units": options.units,
        "smallest effect of A/A": options.smallest_effect,
        "planted units": options.planted_units, "seeds": options.seeds, "users of the world": len(population),
        "types": ", ".join(TYPES), "seconds": round(time.perf_counter() - begun),
    }  # fmt: skip
    write_report(name, tables[name], about, options.json, {other: tables[other] for other in others})
