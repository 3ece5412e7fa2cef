"""The user's columns of the feature matrix: registered features, counts by event type, and profile columns."""

from __future__ import annotations

import numpy as np

from handsell.config import Config
from handsell.events.states import UserStates
from handsell.features.registry import find_features
from handsell.features.views import name_count_column


def list_user_features(config: Config) -> tuple[str, ...]:
    """Registered user features, log counts by event type, then `features.user_columns`."""
    by_type = (f"user_log_{name_count_column(name)}" for name in config.events.names)
    return (*find_features("user"), *by_type, *(f"user_{name}" for name in config.features.user_columns))


def compute_user_features(states: UserStates, time: np.ndarray, columns: np.ndarray | None) -> np.ndarray:
    """(B, Fu) float32 in the order of `list_user_features`, at time (B,) µs.

    `columns` (B, number of user_columns) are copied; None: there are none.
    """
    features = find_features("user").values()
    n, types = len(features), states.counts.shape[1]
    out = np.empty((len(states), n + types + (0 if columns is None else columns.shape[1])), np.float32)
    for f, found in enumerate(features):
        out[:, f] = found.value(states, time)
    out[:, n : n + types] = np.log1p(states.counts)
    if columns is not None:
        out[:, n + types :] = columns
    return out


def compute_sign_rates(signs: np.ndarray) -> np.ndarray:
    """(B, 2) share of positive and of negative events among the two; NaN without any."""
    total = signs.sum(axis=1, keepdims=True)
    return np.divide(signs, total, out=np.full(signs.shape, np.nan), where=total > 0)
