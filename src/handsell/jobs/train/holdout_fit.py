"""Fit the holdout model: retrievers on the retrieval window, and a ranker on what they find after it.

It knows nothing of the later windows, so that it can be evaluated on them.
"""

from __future__ import annotations

from dataclasses import replace

import ray

from handsell.config import Config
from handsell.evaluation.replay import Replay
from handsell.features.matrix import ranker_features
from handsell.jobs.cluster import spread
from handsell.jobs.progress import Progress
from handsell.jobs.train import windows
from handsell.jobs.train.examples import fetch_item_days, find_candidates, write_examples
from handsell.jobs.train.ranker import fit_on_ray
from handsell.jobs.train.retrievers import fit_retrievers
from handsell.jobs.train.scoring import score
from handsell.jobs.train.training_run import TrainingRun
from handsell.jobs.tuning import search
from handsell.jobs.tuning.source_selection import choose_sources, question
from handsell.jobs.tuning.strength_selection import choose_strength
from handsell.ranking.fitting import PRIOR
from handsell.ranking.shards import read_coverage
from handsell.ranking.xgboost_ranker import FUSED
from handsell.retrieval.fusion import max_fused_score


def tune(run: TrainingRun) -> TrainingRun:
    """The run with what tuning found in its config; the run itself where config.tuning names no source."""
    options = run.config.tuning
    if not options.sources:
        return run
    with run.progress.step("tuning", f"{', '.join(options.sources)}, up to {options.budget_s:.0f} s each") as note:
        found = search.tune_sources(run.config, run.folder)
        note.text = "; ".join(map(str, found))
    return replace(run, config=search.with_best(run.config, found), tuned=tuple(found))


def fit_holdout(run: TrainingRun) -> TrainingRun:
    """Retrievers on the retrieval window, the ranker on what they find for the ranker window.

    The run that comes back has the picked sources in its config, where training picks them.
    """
    config, folder, progress = run.config, run.folder, run.progress
    if config.picks_sources:
        asked = ", ".join(question(config))
        with progress.step("retrievers", f"{asked} on {run.counts['fit']:,} events, to pick from") as note:
            config, choice = choose_sources(config, folder, run.twin)
            run, note.text = replace(run, config=config, choice=choice), str(choice)
    else:
        with progress.step(
            "retrievers", f"{', '.join(config.retrieval.enabled)} on {run.counts['fit']:,} events"
        ) as note:
            seconds = fit_retrievers(config, folder / "fit", run.twin)
            note.text = ", ".join(f"{n} {s:.0f} s" for n, s in seconds.items())
    fit_on_candidates(run)
    return run


def select_strength(run: TrainingRun) -> TrainingRun:
    """The run with the strength of re-ranking that its data affords."""
    with run.progress.step("re-ranking", "how much variety costs on validation requests") as note:
        config, strength = choose_strength(run.config, run.folder, run.twin)
        note.text = str(strength or f"strength {config.reranking.strength} as configured")
    return replace(run, config=config, strength=strength)


def fit_on_candidates(run: TrainingRun) -> None:
    """What comes after user rows and retrievers: candidates, their values, and the ranker."""
    config, folder, progress = run.config, run.folder, run.progress
    names = windows.ASKED if config.ranking.enabled else ("test", windows.SERVED)
    with progress.step("candidates", f"{config.retrieval.candidates} for each request") as note:
        note.text = f"{sum(find_candidates(config, folder, run.twin, name) for name in names):,} requests"
    with progress.step("item values", "as of each day, from Feast") as note:
        note.text = f"{sum(spread(fetch_item_days, [(config, folder, name) for name in names])):,} (item, day) pairs"
    if config.ranking.enabled:
        _write_examples(run)
        fit_ranker(run)


def _write_examples(run: TrainingRun) -> None:
    config, folder, progress = run.config, run.folder, run.progress
    with progress.step("examples") as note:
        total = sum(write_examples(config, folder, run.twin, name) for name in ("ranker", "validation"))
        ceiling = read_coverage(folder / "examples" / "ranker").recall_ceiling
        note.text = f"{total:,} labeled candidates; {ceiling:.1%} of what users wanted was among the candidates"


def fit_ranker(run: TrainingRun) -> None:
    """The ranker on the run's examples, of which it reads the features that its config leaves it."""
    config, folder, progress = run.config, run.folder, run.progress
    with progress.step("ranker", f"XGBoost rank:ndcg on {config.ranking.workers} Ray Train worker(s)") as note:
        features = ranker_features(config, config.retrieval.enabled)
        examples = folder / "examples"
        largest = max_fused_score([config.retrieval[name].weight for name in config.retrieval.enabled])
        cpus = 2.0 if config.ranking.workers == 1 and ray.cluster_resources().get("CPU", 0) >= 4 else 1.0
        fit_on_ray(
            examples / "ranker", examples / "validation", config.ranking, features, run.twin / "ranker", cpus=cpus,
            prior=PRIOR / largest if FUSED in features and largest else 0.0,
        )  # fmt: skip
        note.text = f"{len(features)} features"


def retrain(run: TrainingRun, recipe: Config) -> Replay:
    """The replay of another config's models, fitted on the same windows as the run's: they compare on equal terms."""
    config = run.config.model_copy(
        update={part: getattr(recipe, part) for part in ("retrieval", "ranking", "reranking")}
    )
    progress = Progress(3 + 2 * config.ranking.enabled)  # the steps of a holdout fit
    other = replace(run, config=config, folder=run.folder / "live_recipe", progress=progress)
    other.folder.mkdir()
    for name in ("fit", "windows", "rows"):
        (other.folder / name).symlink_to(run.folder / name)
    other = fit_holdout(other)
    return spread(score, [(other.config, other.folder, other.twin)])[0]
