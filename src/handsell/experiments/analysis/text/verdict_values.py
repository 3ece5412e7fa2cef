"""Results as JSON values."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np


def clean_values(value: Any) -> Any:
    """Return dataclasses as dictionaries, arrays as lists, and None for numbers that are not finite."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: clean_values(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: clean_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [clean_values(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return clean_values(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
