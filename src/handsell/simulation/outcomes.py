"""What a simulation shows: satisfaction, clicks, retention, variety and new tracks' exposure, per day and policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from handsell.core.units import DAY_US
from handsell.evaluation.intervals import Comparison, compare_pairs
from handsell.evaluation.list_metrics import entropy, gini, intra_list_diversity, tag_shares
from handsell.simulation.population import Population
from handsell.simulation.trace import Trace

WINDOW = 7  # days of an active listener, and of the tags that a listener has consumed
ENOUGH = 10  # impressions of a new track

DAILY = {
    "satisfaction": "True satisfaction with a slate, 0 to 1",
    "value": "True satisfaction per listener and day: visits × satisfaction",
    "clicks": "Tracks played per visit",
    "conversion": "Share of visits with a saved track",
    "active": f"Share of listeners who visited within {WINDOW} days",
    "diversity": "1 − mean cosine of the tags of two tracks of a slate",
    "entropy": f"Entropy of the tags listened to within {WINDOW} days, bits per listener",
    "new_share": "Share of impressions of tracks released since the first day",
}
"""Curve → what it shows."""
BY_USER = ("value", "satisfaction", "clicks", "conversion", "visits")
"""Figures per listener that are compared between policies: sums per day of membership, means per visit."""


@dataclass(frozen=True)
class PolicyOutcomes:
    """The outcomes of one policy."""

    daily: dict[str, np.ndarray]  # name of DAILY → (D,) float, NaN on days without a visit
    by_user: dict[str, np.ndarray]  # name of BY_USER → (U,) float, NaN for no visits where it is a mean per visit
    totals: dict[str, float]
    days_to_enough: np.ndarray  # (J,) float days from a track's release to its tenth impression, inf if it had fewer


def compute_outcomes(population: Population, trace: Trace) -> PolicyOutcomes:
    """Compute the outcomes of a policy from the record of its visits."""
    r, day, row = trace.responses, trace.visits.day, trace.visits.row
    clicks, converted = r.played.sum(axis=1), r.saved.any(axis=1)
    shown, days = r.item >= 0, population.days
    joined = np.array([population.count_joined(d) for d in range(days)])
    visits = np.bincount(day, minlength=days)
    total = np.bincount(day, r.satisfaction, days)
    tags = _unit_tags(population)
    new = (r.item >= population.old_items).sum(axis=1)
    daily = {
        "satisfaction": _divide(total, visits),
        "value": total / joined,
        "clicks": _divide(np.bincount(day, clicks, days), visits),
        "conversion": _divide(np.bincount(day, converted, days), visits),
        "active": _count_active(population, trace) / joined,
        "diversity": _mean_by_day(intra_list_diversity(r.item, tags), day, days),
        "entropy": _compute_entropy(population, trace, tags),
        "new_share": _divide(np.bincount(day, new, days), np.bincount(day, shown.sum(axis=1), days)),
    }
    users = len(population)
    n = np.bincount(row, minlength=users)
    present = np.maximum(
        (population.start + days * DAY_US - np.maximum(population.people.joined, population.start)) / DAY_US, 1
    )
    by_user = {
        "value": np.bincount(row, r.satisfaction, users) / present,
        "satisfaction": _divide(np.bincount(row, r.satisfaction, users), n),
        "clicks": _divide(np.bincount(row, clicks, users), n),
        "conversion": _divide(np.bincount(row, converted, users), n),
        "visits": n / present,
    }
    reached = _count_days_to_enough(population, trace)
    catalog = np.ones(len(population.tracks), bool)
    totals = {
        "visits": float(len(trace)),
        "satisfaction": float(r.satisfaction.mean()),
        "value": float(by_user["value"].mean()),
        "clicks": float(clicks.mean()),
        "ctr": float(clicks.sum() / shown.sum()),
        "conversion": float(converted.mean()),
        "active_at_end": float(daily["active"][-1]),
        "diversity": float(np.nanmean(daily["diversity"])),
        "gini": gini(r.item, catalog),
        "entropy_first_week": float(np.nanmean(daily["entropy"][:WINDOW])),
        "entropy_last_week": float(np.nanmean(daily["entropy"][-WINDOW:])),
        "new_share": float(new.sum() / shown.sum()),
        "new_reaching_ten": float(np.isfinite(reached).mean()) if len(reached) else float("nan"),
        "days_to_tenth": _median(reached),
    }
    return PolicyOutcomes(daily, by_user, totals, reached)


def compare_outcomes(outcomes: Mapping[str, PolicyOutcomes], ours: str) -> dict[tuple[str, str], Comparison]:
    """Compare one policy with each other: (name of BY_USER, other policy) → paired comparison over listeners."""
    pairs = {
        (figure, other): (outcomes[ours].by_user[figure], outcomes[other].by_user[figure])
        for other in outcomes
        if other != ours
        for figure in BY_USER
    }
    return compare_pairs(pairs, np.arange(len(outcomes[ours].by_user["value"]))) if pairs else {}


def as_dict(outcomes: PolicyOutcomes) -> dict[str, Any]:
    """Return totals and curves for JSON, with None for values that are not finite."""

    def clean(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return {
        "totals": {name: clean(value) for name, value in outcomes.totals.items()},
        "daily": {name: [clean(v) for v in values] for name, values in outcomes.daily.items()},
        "days_to_tenth_impression": [clean(v) for v in outcomes.days_to_enough],
    }


def _count_active(population: Population, trace: Trace) -> np.ndarray:
    """Return (D,) the number of listeners with a visit in the WINDOW days that end with each day."""
    came = np.zeros((population.days, len(population)), bool)
    came[trace.visits.day, trace.visits.row] = True
    return np.array([came[max(d - WINDOW + 1, 0) : d + 1].any(axis=0).sum() for d in range(population.days)])


def _compute_entropy(population: Population, trace: Trace, tags: sparse.csr_matrix) -> np.ndarray:
    """Return (D,) the mean entropy of the tags of the last WINDOW days, over listeners with at least two listens."""
    visit, place = np.nonzero(trace.responses.listened)
    day, row, item = trace.visits.day[visit], trace.visits.row[visit], trace.responses.item[visit, place]
    curve = np.full(population.days, np.nan)
    for d in range(population.days):
        within = (day <= d) & (day > d - WINDOW)
        shape = (len(population), len(population.tracks))
        listens = sparse.csr_matrix((np.ones(within.sum()), (row[within], item[within])), shape=shape)
        some = np.asarray(listens.sum(axis=1)).ravel() >= 2
        if some.any():
            curve[d] = entropy(tag_shares(listens[some], tags)).mean()
    return curve


def _count_days_to_enough(population: Population, trace: Trace) -> np.ndarray:
    """Return (J,) days from the release of each new track to its impression number ENOUGH."""
    visit, place = np.nonzero(trace.responses.item >= population.old_items)
    item = trace.responses.item[visit, place] - population.old_items
    time = trace.visits.time[visit]
    order = np.lexsort((time, item))
    item, time = item[order], time[order]
    turn = np.arange(len(item)) - np.searchsorted(item, item)
    reached = np.full(len(population.tracks) - population.old_items, np.inf)
    tenth = turn == ENOUGH - 1
    released = population.tracks.published[population.old_items :]
    reached[item[tenth]] = (time[tenth] - released[item[tenth]]) / DAY_US
    return reached


def _unit_tags(population: Population) -> sparse.csr_matrix:
    """Return (I, T) rows of unit length of the tags of each track."""
    tags = population.tracks.tags
    row, place = np.nonzero(tags >= 0)
    count = (tags >= 0).sum(axis=1)
    shape = (len(tags), len(population.tracks.genre_vector))
    return sparse.csr_matrix((1 / np.sqrt(count[row]), (row, tags[row, place])), shape=shape)


def _mean_by_day(value: np.ndarray, day: np.ndarray, days: int) -> np.ndarray:
    known = np.isfinite(value)
    return _divide(np.bincount(day[known], value[known], days), np.bincount(day[known], minlength=days))


def _divide(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


def _median(values: np.ndarray) -> float:
    """Return the median, inf where more than half of the values are."""
    return float(np.sort(values)[(len(values) - 1) // 2]) if len(values) else float("nan")
