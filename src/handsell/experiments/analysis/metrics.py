"""The metrics of an experiment as ratios of two columns over units, with the covariate of each.

Conversion and retention count only units that have been exposed for the whole window, so that each unit's value is
final when it enters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from handsell.core.units import DAY_US
from handsell.experiments.analysis.log.outcomes import UnitOutcomes

CTR = "clicks per shown item"
SLATES = "slates per day"


@dataclass(frozen=True, slots=True)
class MetricColumns:
    """A metric is sum(numerator) / sum(denominator) over the units of `rows`."""

    rows: np.ndarray  # (N,) bool
    numerator: np.ndarray  # (N,) float
    denominator: np.ndarray  # (N,) float
    covariate: np.ndarray  # (N,) float


Measure = Callable[[UnitOutcomes], MetricColumns]


def list_metrics(types: tuple[str, ...]) -> dict[str, Measure]:
    """Return the metrics by name: click rate, then daily rate and conversion for each event type, then retention."""
    found: dict[str, Measure] = {CTR: _measure_clicks}
    for t, name in enumerate(types):
        found[name_rate(name)] = partial(_measure_rate, t)
        found[name_conversion(name)] = partial(_measure_conversion, t)
    found |= {name_retention(day): partial(_measure_return, day) for day in (1, 7)}
    found[SLATES] = _measure_slates
    return found


def name_rate(event_type: str) -> str:
    return f"{event_type} per day"


def name_conversion(event_type: str) -> str:
    return f"{event_type} conversion"


def name_retention(day: int) -> str:
    return f"retention day {day}"


def _columns(o: UnitOutcomes, numerator: np.ndarray, denominator: np.ndarray, covariate: np.ndarray) -> MetricColumns:
    return MetricColumns(np.ones(len(o), bool), numerator, denominator, covariate)


def _measure_clicks(o: UnitOutcomes) -> MetricColumns:
    return _columns(o, o.clicks, o.shown, o.before.sum(axis=1))


def _measure_rate(t: int, o: UnitOutcomes) -> MetricColumns:
    return _columns(o, o.events[:, t], o.days, o.before[:, t])


def _measure_conversion(t: int, o: UnitOutcomes) -> MetricColumns:
    ready = o.first + o.conversion_us <= o.until
    return MetricColumns(ready, o.converted[:, t], np.ones(len(o)), np.log1p(o.before[:, t]))


def _measure_slates(o: UnitOutcomes) -> MetricColumns:
    return _columns(o, o.slates, o.days, o.before.sum(axis=1))


def _measure_return(day: int, o: UnitOutcomes) -> MetricColumns:
    active, ready = {1: o.active_1, 7: o.active_7}[day], o.first + (day + 1) * DAY_US <= o.until
    return MetricColumns(ready, active, np.ones(len(o)), np.log1p(o.before.sum(axis=1)))
