"""The ranker's fit in the process of a job; distributed/ranker.py fits it under Ray Train."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from handsell.config import Config
from handsell.features.matrix import select_ranker_features
from handsell.ranking.blended_ranker import choose_blend
from handsell.ranking.config import RankingConfig
from handsell.ranking.fitting import PRIOR, fit_xgboost
from handsell.ranking.shards import read_shards, shard_folders
from handsell.ranking.xgboost_ranker import FUSED
from handsell.retrieval.fusion import max_fused_score


def plan_ranker(config: Config, run: Path, out: Path) -> tuple[Path, Path, RankingConfig, tuple[str, ...], Path, float]:
    """Return the arguments of a fit on a run's examples: two folders, settings, features, output, prior."""
    features, examples = select_ranker_features(config, config.retrieval.enabled), run / "examples"
    largest = max_fused_score([config.retrieval[name].weight for name in config.retrieval.enabled])
    prior = PRIOR / largest if FUSED in features and largest else 0.0
    return examples / "ranker", examples / "validation", config.ranking, features, out, prior


def fit_ranker_in_process(
    examples: Path,
    validation: Path,
    config: RankingConfig,
    features: tuple[str, ...],
    out: Path,
    prior: float = 0.0,
    *,
    threads: int = 1,
) -> None:
    """Fit in this process and save the ranker to `out`: the start of Ray Train takes longer on few examples."""
    fitted: list[Any] = []
    if config.model != "transformer":
        fitted.append(fit_xgboost(examples, validation, config, features, threads, prior))
    if config.model != "xgboost":
        from handsell.ranking.neural.fitting import fit_transformer  # torch takes a second to import
        from handsell.retrieval.neural.training import use_one_thread

        with use_one_thread():
            fitted.append(fit_transformer(examples, validation, config, features, prior))
    save_ranker(fitted, validation, features, out)


def save_ranker(fitted: list[Any], validation: Path, features: tuple[str, ...], out: Path) -> None:
    """Save the fitted ranker to the folder `out`, or the blend of two, chosen on the validation examples."""
    ranker = fitted[0]
    if len(fitted) == 2:
        trees, transformer = fitted
        ranker = choose_blend(trees, transformer, read_shards(shard_folders(validation), features, history=True))
    shutil.rmtree(out, ignore_errors=True)
    ranker.save(out)
