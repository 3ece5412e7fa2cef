"""The record of a simulation: one row per visit, with the slate and the reactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from handsell.core.batches import RowBatch
from handsell.simulation.behavior import Responses
from handsell.simulation.policies import SimulatedSlates
from handsell.simulation.visits import Visits


@dataclass(frozen=True, slots=True)
class Trace(RowBatch):
    """V visits in the order of the simulation."""

    visits: Visits
    propensity: np.ndarray  # (V, n) float32
    responses: Responses

    def __len__(self) -> int:
        return len(self.visits)

    @classmethod
    def of(cls, visits: Visits, shown: SimulatedSlates, responses: Responses) -> Trace:
        return cls(visits, shown.propensity, responses)

    @classmethod
    def concatenate(cls, parts: Sequence[Trace]) -> Trace:
        """Join at least one part."""
        return cls(
            _join([part.visits for part in parts]),
            np.concatenate([part.propensity for part in parts]),
            _join([part.responses for part in parts]),
        )


def _join(parts: Sequence) -> Any:
    kind = type(parts[0])
    return kind(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(kind)})
