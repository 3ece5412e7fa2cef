"""The record of a simulation: one row per visit, with the slate and the reactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
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

    def save(self, path: Path) -> None:
        """Write a NumPy archive; the file is complete or absent."""
        arrays = {
            **{f"visits.{f.name}": getattr(self.visits, f.name) for f in fields(Visits)},
            **{f"responses.{f.name}": getattr(self.responses, f.name) for f in fields(Responses)},
        }
        temporary = path.with_suffix(".part.npz")
        np.savez_compressed(temporary, allow_pickle=False, propensity=self.propensity, **arrays)
        temporary.rename(path)

    @classmethod
    def load(cls, path: Path) -> Trace:
        with np.load(path, allow_pickle=False) as archive:
            visits = Visits(**{f.name: archive[f"visits.{f.name}"] for f in fields(Visits)})
            responses = Responses(**{f.name: archive[f"responses.{f.name}"] for f in fields(Responses)})
            return cls(visits, archive["propensity"], responses)


def _join(parts: Sequence) -> Any:
    kind = type(parts[0])
    return kind(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(kind)})
