"""Preference weights of events, from type and value."""

from __future__ import annotations

import numpy as np

from handsell.core.errors import ConfigError
from handsell.data.config import EventsConfig, EventType


def compute_event_weights(types: np.ndarray, values: np.ndarray, events: EventsConfig) -> np.ndarray:
    """Return (N,) float32 weights for type codes (N,) and values (N,) float32, NaN without value.

    With `weight_by_value`, the highest threshold that the value reaches decides; otherwise the type's `weight`.
    """
    weights = np.zeros(len(types), np.float32)
    for code, (name, event_type) in enumerate(events.types.items()):
        rows = types == code
        weights[rows] = _weigh_type(name, event_type, values[rows])
    return weights


def _weigh_type(name: str, event_type: EventType, values: np.ndarray) -> np.ndarray:
    if problem := find_threshold_problem(name, event_type):
        raise ConfigError(problem)
    steps = np.array(event_type.weight_by_value, np.float32).reshape(-1, 2)
    reached = np.searchsorted(steps[:, 0], values, side="right")  # NaN sorts last
    weights = np.concatenate([[event_type.weight], steps[:, 1]])
    return np.where(np.isnan(values), event_type.weight, weights[reached])


def find_threshold_problem(name: str, event_type: EventType) -> str | None:
    """Return what is wrong with `weight_by_value` of a type: the order, an equal pair, or a value that is no number."""
    steps = np.array(event_type.weight_by_value, np.float32).reshape(-1, 2)
    key = f"events.types.{name}.weight_by_value"
    if not np.isfinite(steps).all():
        return f"{key}: expected finite numbers as thresholds and weights, got {steps.tolist()}: correct them"
    if (np.diff(steps[:, 0]) > 0).all():
        return None
    ascending = sorted(map(list, event_type.weight_by_value))
    return (
        f"{key}: expected different thresholds in ascending order, got "
        f"{[value for value, _ in event_type.weight_by_value]}; write {ascending}"
    )
