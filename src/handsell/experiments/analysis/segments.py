"""Effects within segments of units, corrected for the number of looks at segments."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from handsell.experiments.analysis.effects import ArmEffect, correct_by_holm, estimate_effects
from handsell.experiments.analysis.log.outcomes import UnitOutcomes
from handsell.experiments.analysis.metrics import Measure
from handsell.experiments.analysis.sequences import ALPHA

MAX_SEGMENTS = 12  # the largest ones; all others are not tested


@dataclass(frozen=True, slots=True)
class SegmentEffect:
    """The effect on the main metric in one segment; its outcome holds after Holm's correction."""

    segment: str
    effect: ArmEffect
    corrected_p_value: float


def estimate_segments(
    labels: np.ndarray,
    metric: str,
    measure: Measure,
    outcomes: UnitOutcomes,
    smallest_effect: float,
    alpha: float = ALPHA,
) -> list[SegmentEffect]:
    """Estimate the effect in each segment; `labels` (N,) text, empty for units that belong to none."""
    names, count = np.unique(labels[labels != ""], return_counts=True)
    found = []
    for name in names[np.argsort(-count, kind="stable")][:MAX_SEGMENTS]:
        effects = estimate_effects(metric, measure, outcomes.select(labels == name), smallest_effect, alpha)
        found += [(str(name), effect) for effect in effects]
    corrected = correct_by_holm(np.array([effect.p_value for _, effect in found]))
    return [
        SegmentEffect(name, effect if p < alpha else replace(effect, outcome="undecided"), p)
        for (name, effect), p in zip(found, corrected.tolist(), strict=True)
    ]


def warn_of_segments(found: list[SegmentEffect]) -> str:
    """Say in words what many looks do."""
    return (
        f"{len(found)} comparisons in segments: without correction, one in twenty of them would differ by chance. "
        "The outcomes hold after Holm's correction; take the others as ideas for another experiment"
    )


def label_cold(outcomes: UnitOutcomes) -> np.ndarray:
    return np.where(outcomes.cold, "cold (no events before)", "warm")
