"""User features at the request's time, from the folded state and the user's profile columns."""

from __future__ import annotations

import numpy as np

from handsell.config import Config
from handsell.core.units import DAY_US
from handsell.events.states import HALF_LIVES_DAYS, MAX_AWAY_DAYS, UserStates
from handsell.features.views import count_column

USER_FEATURES = (
    *(f"user_positive_{days}d" for days in HALF_LIVES_DAYS),
    *(f"user_negative_{days}d" for days in HALF_LIVES_DAYS),
    "user_log_positives",
    "user_log_negatives",
    "user_positive_rate",
    "user_negative_rate",
    "user_trend",
    "user_active_days",
    "user_days_since_last",
    "user_history_length",
    "user_log_seen",
    "user_mean_gap_hours",
)


def user_feature_names(config: Config) -> tuple[str, ...]:
    """USER_FEATURES, log counts by event type, then `features.user_columns`."""
    by_type = (f"user_log_{count_column(name)}" for name in config.events.names)
    return (*USER_FEATURES, *by_type, *(f"user_{name}" for name in config.features.user_columns))


def user_features(states: UserStates, time: np.ndarray, columns: np.ndarray | None) -> np.ndarray:
    """(B, Fu) float32 at time (B,) µs; `columns` (B, number of user_columns) pass through.

    Sums fade until the user's last event and no further: how busy users were when they were last here and how long
    they have been away are two things, and only `user_days_since_last` tells the second, up to MAX_AWAY_DAYS.
    Users without events have counts of 0 and NaN where nothing can be said (rates, ages).
    """
    started = states.first_time > 0
    recent = states.decayed  # (B, 2, 3)
    rates = rates_of(states.signs)
    known = states.history.item >= 0
    length = known.sum(axis=1)
    oldest = np.where(known, states.history.time, np.iinfo(np.int64).max).min(axis=1)
    stretch_h = np.where(length > 1, (states.history.time[:, -1] - oldest) / (DAY_US / 24), np.nan)
    features = (
        *recent[:, 0].T,
        *recent[:, 1].T,
        *np.log1p(states.signs).T,
        *rates.T,
        np.log((recent[:, 0, 0] + 0.1) / (recent[:, 0, 2] + 1.0)),
        _days(states.first_time, states.state_time, started),
        np.minimum(_days(states.state_time, time, started), MAX_AWAY_DAYS),
        length,
        np.log1p(states.seen_total),
        stretch_h / np.maximum(length - 1, 1),
        *np.log1p(states.counts).T,
        *(() if columns is None else columns.T),
    )
    return np.stack(features, axis=1).astype(np.float32)


def rates_of(signs: np.ndarray) -> np.ndarray:
    """(B, 2) share of positive and of negative events among the two; NaN without any."""
    total = signs.sum(axis=1, keepdims=True)
    return np.divide(signs, total, out=np.full(signs.shape, np.nan), where=total > 0)


def _days(begin: np.ndarray, end: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.where(known, np.maximum(end - begin, 0) / DAY_US, np.nan)
