"""One training run: its config, its folder, and what it has chosen so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from handsell.config import Config
from handsell.jobs.progress import Progress
from handsell.jobs.tuning.source_selection import SourceSelection
from handsell.jobs.tuning.strength_selection import StrengthChoice
from handsell.jobs.tuning.tuned_source import TunedSource

SERVICE = "ranking_v1"  # Feast's feature service that rankers are trained on


@dataclass(frozen=True)
class TrainingRun:
    """The state of a training between its steps; a step that chooses settings returns a run with another config."""

    config: Config
    folder: Path
    progress: Progress
    counts: dict[str, int] = field(default_factory=dict)  # events and requests by window
    tuned: tuple[TunedSource, ...] = ()
    selection: SourceSelection | None = None  # where training picks the sources
    strength: StrengthChoice | None = None  # where training chooses the strength of re-ranking

    @property
    def holdout(self) -> Path:
        """Folder of the holdout model: fitted on the past, evaluated on the windows after it."""
        return self.folder / "holdout"
