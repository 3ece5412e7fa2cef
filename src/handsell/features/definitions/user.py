"""User features, computed from the folded state as of the request's time.

Sums are as of the user's last event: activity then and the time since then are separate features. Only
`user_days_since_last` reads the time since then.
"""

from __future__ import annotations

import math

import numpy as np

from handsell.core.batches import NONE
from handsell.core.units import DAY_US, HOUR_US
from handsell.events.states import MAX_AWAY_DAYS, UserStates
from handsell.features.registry import feature
from handsell.features.user import compute_sign_rates


@feature("user_positive_1d", group="user", default=0.0)
def positive_1d(states: UserStates, time: np.ndarray) -> np.ndarray:
    """Weight of positive events, halved with each day before the last event."""
    return states.decayed[:, 0, 0]


@feature("user_positive_7d", group="user", default=0.0)
def positive_7d(states: UserStates, time: np.ndarray) -> np.ndarray:
    """Weight of positive events, halved with every 7 days before the last event."""
    return states.decayed[:, 0, 1]


@feature("user_positive_28d", group="user", default=0.0)
def positive_28d(states: UserStates, time: np.ndarray) -> np.ndarray:
    """Weight of positive events, halved with every 28 days before the last event."""
    return states.decayed[:, 0, 2]


@feature("user_negative_1d", group="user", default=0.0)
def negative_1d(states: UserStates, time: np.ndarray) -> np.ndarray:
    """Absolute weight of negative events, halved with each day before the last event."""
    return states.decayed[:, 1, 0]


@feature("user_negative_7d", group="user", default=0.0)
def negative_7d(states: UserStates, time: np.ndarray) -> np.ndarray:
    """Absolute weight of negative events, halved with every 7 days before the last event."""
    return states.decayed[:, 1, 1]


@feature("user_negative_28d", group="user", default=0.0)
def negative_28d(states: UserStates, time: np.ndarray) -> np.ndarray:
    """Absolute weight of negative events, halved with every 28 days before the last event."""
    return states.decayed[:, 1, 2]


@feature("user_log_positives", group="user", default=0.0)
def log_positives(states: UserStates, time: np.ndarray) -> np.ndarray:
    """log(1 + number of positive events)."""
    return np.log1p(states.signs[:, 0])


@feature("user_log_negatives", group="user", default=0.0)
def log_negatives(states: UserStates, time: np.ndarray) -> np.ndarray:
    """log(1 + number of negative events)."""
    return np.log1p(states.signs[:, 1])


@feature("user_positive_rate", group="user")
def positive_rate(states: UserStates, time: np.ndarray) -> np.ndarray:
    """Share of positive events among positive and negative ones."""
    return compute_sign_rates(states.signs)[:, 0]


@feature("user_negative_rate", group="user")
def negative_rate(states: UserStates, time: np.ndarray) -> np.ndarray:
    """Share of negative events among positive and negative ones."""
    return compute_sign_rates(states.signs)[:, 1]


@feature("user_trend", group="user", default=math.log(0.1))
def trend(states: UserStates, time: np.ndarray) -> np.ndarray:
    """Log ratio of the positive weight of a day to that of 28 days."""
    return np.log((states.decayed[:, 0, 0] + 0.1) / (states.decayed[:, 0, 2] + 1.0))


@feature("user_active_days", group="user")
def active_days(states: UserStates, time: np.ndarray) -> np.ndarray:
    """Days from the user's first event to the last."""
    return _days(states.first_time, states.state_time, states)


@feature("user_days_since_last", group="user")
def days_since_last(states: UserStates, time: np.ndarray) -> np.ndarray:
    """Days since the user's last event, at most 90."""
    return np.minimum(_days(states.state_time, time, states), MAX_AWAY_DAYS)


@feature("user_history_length", group="user", default=0.0)
def history_length(states: UserStates, time: np.ndarray) -> np.ndarray:
    """Interactions kept in the history."""
    return (states.history.item != NONE).sum(axis=1)


@feature("user_log_seen", group="user", default=0.0)
def log_seen(states: UserStates, time: np.ndarray) -> np.ndarray:
    """log(1 + number of distinct items that the user interacted with)."""
    return np.log1p(states.seen_total)


@feature("user_mean_gap_hours", group="user")
def mean_gap_hours(states: UserStates, time: np.ndarray) -> np.ndarray:
    """Mean hours between successive interactions of the history."""
    known = states.history.item != NONE
    length = known.sum(axis=1)
    oldest = np.where(known, states.history.time, np.iinfo(np.int64).max).min(axis=1)
    hours = np.where(length > 1, (states.history.time[:, -1] - oldest) / HOUR_US, np.nan)
    return hours / np.maximum(length - 1, 1)


def _days(begin: np.ndarray, end: np.ndarray, states: UserStates) -> np.ndarray:
    """(B,) days, NaN for users without events."""
    return np.where(states.first_time > 0, np.maximum(end - begin, 0) / DAY_US, np.nan)
