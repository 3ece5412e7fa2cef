"""One training run: its folder, and what it found on the way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from handsell.config import Config
from handsell.jobs.progress import Progress
from handsell.jobs.tuning.search import TunedSource
from handsell.jobs.tuning.source_selection import SourceSelection
from handsell.jobs.tuning.strength_selection import Strength

SERVICE = "ranking_v1"  # Feast's feature service that rankers are trained on


@dataclass(frozen=True)
class TrainingRun:
    """One training: its folder, and what it found on the way."""

    config: Config
    folder: Path
    progress: Progress
    counts: dict[str, int]
    tuned: tuple[TunedSource, ...] = ()
    choice: SourceSelection | None = None  # of sources, where training picks them
    strength: Strength | None = None  # of re-ranking, likewise

    @property
    def twin(self) -> Path:
        return self.folder / "twin"
