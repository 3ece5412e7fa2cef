"""Context features: the time and the surface of the request."""

from __future__ import annotations

import numpy as np

from handsell.core.batches import Requests
from handsell.core.units import DAY_US
from handsell.features.registry import feature


@feature("hour_sin", group="context")
def hour_sin(requests: Requests) -> np.ndarray:
    """Sine of the time of day (UTC)."""
    return np.sin(_day_angle(requests))


@feature("hour_cos", group="context")
def hour_cos(requests: Requests) -> np.ndarray:
    """Cosine of the time of day (UTC)."""
    return np.cos(_day_angle(requests))


@feature("weekday_sin", group="context")
def weekday_sin(requests: Requests) -> np.ndarray:
    """Sine of the time in the week (UTC)."""
    return np.sin(_week_angle(requests))


@feature("weekday_cos", group="context")
def weekday_cos(requests: Requests) -> np.ndarray:
    """Cosine of the time in the week (UTC)."""
    return np.cos(_week_angle(requests))


@feature("surface", group="context")
def surface(requests: Requests) -> np.ndarray:
    """Code of the surface: its index in `Config.surface_names`."""
    return requests.surface


def _day_angle(requests: Requests) -> np.ndarray:
    return 2 * np.pi * (requests.time / DAY_US % 1)


def _week_angle(requests: Requests) -> np.ndarray:
    return 2 * np.pi * (requests.time / DAY_US % 7) / 7
