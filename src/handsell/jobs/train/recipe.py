"""Train another recipe on this run's windows, so that two recipes are compared on equal terms."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from handsell.config import Config
from handsell.evaluation.replay import Replay
from handsell.jobs.cluster import spread
from handsell.jobs.progress import Progress
from handsell.jobs.train.scoring import score

if TYPE_CHECKING:
    from handsell.jobs.train.train import Run


def retrain(run: Run, recipe: Config) -> Replay:
    """The replay of `recipe`'s models, fitted on the same retrieval and ranker windows as the run's."""
    from handsell.jobs.train.train import fit_twin

    config = run.config.model_copy(
        update={part: getattr(recipe, part) for part in ("retrieval", "ranking", "reranking")}
    )
    progress = Progress(3 + 2 * config.ranking.enabled)  # the steps of a twin
    other = replace(run, config=config, folder=run.folder / "live_recipe", progress=progress)
    other.folder.mkdir()
    for name in ("fit", "windows", "rows"):
        (other.folder / name).symlink_to(run.folder / name)
    other = fit_twin(other)
    return spread(score, [(other.config, other.folder, other.twin)])[0]
