"""The slate of one query."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from handsell.core.batches import Slates

Reused = Literal["nothing", "candidates", "slate"]


@dataclass(frozen=True, slots=True)
class UserSlate:
    """One query's row of a batch of slates."""

    slates: Slates
    row: int
    cold: bool
    teams: tuple[str | None, ...] = ()  # arm that brought each item of an interleaved slate
    reused: Reused = "nothing"  # what was computed for another request
    age_s: float = 0.0  # since that was computed
    rendered: dict[str, Any] = field(default_factory=dict)  # parts of answers that are the same each time
