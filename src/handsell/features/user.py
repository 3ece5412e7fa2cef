"""The user's columns of the feature matrix: registered features, counts by event type, and profile columns."""

from __future__ import annotations

import numpy as np

from handsell.config import Config
from handsell.core.kernels import compiled
from handsell.events.states import MAX_AWAY_DAYS, UserStates
from handsell.features.registry import find_features
from handsell.features.views import name_count_column

COMPILED = (
    *(f"user_{sign}_{days}d" for sign in ("positive", "negative") for days in (1, 7, 28)),
    "user_log_positives", "user_log_negatives", "user_positive_rate", "user_negative_rate", "user_trend",
    "user_active_days", "user_days_since_last", "user_history_length", "user_log_seen", "user_mean_gap_hours",
)  # fmt: skip
"""The features of one kernel, where they are registered first and in this order."""


def list_user_features(config: Config) -> tuple[str, ...]:
    """Registered user features, log counts by event type, then `features.user_columns`."""
    by_type = (f"user_log_{name_count_column(name)}" for name in config.events.names)
    return (*find_features("user"), *by_type, *(f"user_{name}" for name in config.features.user_columns))


def compute_user_features(states: UserStates, time: np.ndarray, columns: np.ndarray | None) -> np.ndarray:
    """(B, Fu) float32 in the order of `list_user_features`, at time (B,) µs.

    `columns` (B, number of user_columns) are copied; None: there are none.
    """
    features = find_features("user")
    n, types = len(features), states.counts.shape[1]
    out = np.empty((len(states), n + types + (0 if columns is None else columns.shape[1])), np.float32)
    done = 0
    if compiled is not None and tuple(features)[: len(COMPILED)] == COMPILED:
        _write_compiled(states, time, out)
        done = len(COMPILED)
    for f, found in enumerate(list(features.values())[done:], start=done):
        out[:, f] = found.value(states, time)
    out[:, n : n + types] = np.log1p(states.counts)
    if columns is not None:
        out[:, n + types :] = columns
    return out


def _write_compiled(states: UserStates, time: np.ndarray, out: np.ndarray) -> None:
    """Write the features of COMPILED to the first columns of `out`; logarithms are NumPy's, to the last digit."""
    logs = np.log1p(np.concatenate([states.signs, states.seen_total[:, None]], axis=1))
    decayed, past = np.ascontiguousarray(states.decayed, np.float64), states.history
    trend = np.log((decayed[:, 0, 0] + 0.1) / (decayed[:, 0, 2] + 1.0))
    compiled.write_user(
        decayed, np.ascontiguousarray(states.signs, np.float64), logs, trend,
        *(np.ascontiguousarray(one, np.int64) for one in (states.first_time, states.state_time, time)),
        np.ascontiguousarray(past.item, np.int32), np.ascontiguousarray(past.time, np.int64), out,
        MAX_AWAY_DAYS,
    )  # fmt: skip


def compute_sign_rates(signs: np.ndarray) -> np.ndarray:
    """(B, 2) share of positive and of negative events among the two; NaN without any."""
    total = signs.sum(axis=1, keepdims=True)
    return np.divide(signs, total, out=np.full(signs.shape, np.nan), where=total > 0)
