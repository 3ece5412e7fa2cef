"""The verdict on an experiment: checks that may refuse it, then the effects of each arm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from handsell.core.units import DAY_US
from handsell.experiments.analysis.effects import ArmEffect, estimate_effects
from handsell.experiments.analysis.log.outcomes import UnitOutcomes
from handsell.experiments.analysis.metrics import CTR, SLATES, list_metrics, name_conversion, name_rate, name_retention
from handsell.experiments.analysis.outliers import QUANTILE, SLATES_PER_HOUR, OutlierCounts, limit_outliers
from handsell.experiments.analysis.sample_ratio import (
    LoggingRatio,
    SampleRatio,
    check_logging_ratio,
    check_sample_ratio,
)
from handsell.experiments.analysis.segments import SegmentEffect, estimate_segments, warn_of_segments
from handsell.experiments.analysis.sequences import ALPHA
from handsell.experiments.analysis.text.verdict_values import clean_values

SMALLEST_EFFECT = 0.02
MAX_CROSSED = 0.005  # share of units that may be seen in several arms

CHANGED_SHARES = (
    "the arms' shares have changed during the experiment, so that arms have units of different days: a trend over time "
    "may look like an effect, and units that moved count for their first arm; an experiment with a new name is safer"
)

Decision = Literal["beats", "loses", "undecided", "refused"]


@dataclass(frozen=True, slots=True)
class AnalysisSettings:
    """What must be chosen before the first look."""

    metric: str = CTR  # the main metric, by which arms are judged
    others: tuple[str, ...] = ()  # reported besides
    smallest_effect: float = SMALLEST_EFFECT  # relative; it tunes the sequences
    alpha: float = ALPHA
    slates_per_hour: float = SLATES_PER_HOUR
    quantile: float = QUANTILE


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that an analysis found."""

    experiment: str
    until: int  # µs
    metric: str
    alpha: float
    decisions: dict[str, Decision]  # by arm, for the main metric
    reasons: list[str]  # why the verdict is refused
    warnings: list[str]
    units: dict[str, int]
    sample_ratio: SampleRatio
    logging_ratio: LoggingRatio
    crossed: int  # units seen in several arms
    merged: int  # units whose ids had been in different arms before they were merged
    outliers: OutlierCounts
    effects: list[ArmEffect]  # of the main metric, then of the others
    segments: list[SegmentEffect]
    lists: dict[str, dict[str, float]]  # list metric → arm → value

    @property
    def main(self) -> list[ArmEffect]:
        return [effect for effect in self.effects if effect.metric == self.metric]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON, with None for numbers that are not finite."""
        return clean_values(self)


@dataclass(frozen=True, slots=True)
class ArmShares:
    """Shares of the A arms in P periods; `changes` (P - 1,) are the times between them, µs."""

    shares: tuple[tuple[float, ...], ...]
    changes: tuple[int, ...] = ()

    def count_units(self, outcomes: UnitOutcomes) -> np.ndarray:
        """Return (P, A): units of each arm by the period of their first exposure."""
        period = np.searchsorted(self.changes, outcomes.first, side="right")
        size = len(outcomes.arms)
        return np.bincount(period * size + outcomes.arm, minlength=len(self.shares) * size).reshape(-1, size)


def choose_settings(types: tuple[str, ...], metric: str | None, smallest_effect: float) -> AnalysisSettings:
    """Choose the main metric, the daily rate of an event type or else the click rate, and those besides it."""
    main = CTR if metric is None else name_rate(metric)
    conversions = [metric] if metric is not None else types
    others = [
        CTR, *map(name_rate, types), *map(name_conversion, conversions), name_retention(1), name_retention(7), SLATES,
    ]  # fmt: skip
    return AnalysisSettings(main, tuple(name for name in others if name != main), smallest_effect)


def judge(
    experiment: str,
    outcomes: UnitOutcomes,
    shares: ArmShares,
    settings: AnalysisSettings,
    labels: np.ndarray | None = None,
    lists: dict[str, dict[str, float]] | None = None,
) -> Verdict:
    """Test the sample ratio first, then estimate; a failed test refuses a verdict and shows the effects all the same.

    `labels` (N,) text are segments, empty for none.
    """
    sample = check_sample_ratio(shares.count_units(outcomes), shares.shares)
    kept, outliers = limit_outliers(outcomes, settings.slates_per_hour, settings.quantile)
    whole = kept.first + DAY_US <= kept.until
    logged = check_logging_ratio(kept.first_day_slates[whole], kept.arm[whole], len(outcomes.arms))
    crossed, merged = int(outcomes.crossed.sum()), int(outcomes.merged.sum())
    reasons = _find_reasons(outcomes, sample, logged, 0 if shares.changes else crossed)
    measures = list_metrics(outcomes.types)
    effects = [
        effect
        for name in (settings.metric, *settings.others)
        for effect in estimate_effects(name, measures[name], kept, settings.smallest_effect, settings.alpha)
    ]
    segments = []
    if labels is not None:
        own = labels[outcomes.busiest_hour <= settings.slates_per_hour]
        measure = measures[settings.metric]
        segments = estimate_segments(own, settings.metric, measure, kept, settings.smallest_effect, settings.alpha)
    main = [effect for effect in effects if effect.metric == settings.metric]
    decisions: dict[str, Decision] = {e.arm: "refused" if reasons else e.outcome for e in main}
    return Verdict(
        experiment=experiment,
        until=outcomes.until,
        metric=settings.metric,
        alpha=settings.alpha,
        decisions=decisions,
        reasons=reasons,
        warnings=([CHANGED_SHARES] if shares.changes else []) + _find_warnings(outliers, main, segments, merged),
        units=dict(zip(outcomes.arms, outcomes.count_units().tolist(), strict=True)),
        sample_ratio=sample,
        logging_ratio=logged,
        crossed=crossed,
        merged=merged,
        outliers=outliers,
        effects=effects,
        segments=segments,
        lists=lists or {},
    )


def _find_reasons(outcomes: UnitOutcomes, sample: SampleRatio, logged: LoggingRatio, crossed: int) -> list[str]:
    reasons = []
    if sample.failed:
        expected = ", ".join(f"{share:.1%}" for share in sample.expected)
        counted = ", ".join(f"{count:,}" for count in sample.counts)
        reasons.append(
            f"sample ratio mismatch: expected shares of {expected} in {', '.join(outcomes.arms)}, got {counted} units "
            f"(chi-square p = {sample.p_value:.2g}, over all looks p = {sample.sequential_p_value:.2g}): assignment or "
            "logging is broken in one arm; look for the first day on which the counts part"
        )
    if logged.failed:
        of_arms = ", ".join(f"{arm} {ratio:.2f}" for arm, ratio in zip(outcomes.arms[1:], logged.ratios, strict=True))
        reasons.append(
            f"arms log different numbers of slates per unit on its first day: {of_arms} times those of "
            f"{outcomes.arms[0]} (p = {logged.p_value:.2g}): expected the same; an arm logs slates twice or loses some"
        )
    if crossed > MAX_CROSSED * len(outcomes):
        reasons.append(
            f"{crossed:,} of {len(outcomes):,} units were seen in more than one arm: expected at most "
            f"{MAX_CROSSED:.1%}: the assignment leaks; check that all gateways run the same configuration"
        )
    return reasons


def _find_warnings(
    outliers: OutlierCounts, main: list[ArmEffect], segments: list[SegmentEffect], merged: int
) -> list[str]:
    warnings = []
    if merged:
        warnings.append(
            f"{merged:,} units crossed over: a visitor and an account had been in different arms before they were "
            "merged; each counts for the arm of its first exposure, which draws effects towards 0"
        )
    if sum(outliers.bots):
        warnings.append(
            f"{sum(outliers.bots):,} units were left out as bots: they got more than "
            f"{outliers.slates_per_hour:.0f} slates in an hour"
        )
    if sum(outliers.capped):
        warnings.append(
            f"counts of {sum(outliers.capped):,} heavy units were capped at the {outliers.quantile:.1%} quantile of "
            "all arms together"
        )
    warnings += [f"{effect.arm}: {effect.reason}" for effect in main if effect.reason]
    return warnings + ([warn_of_segments(segments)] if segments else [])
