"""Fitting of the ranker, in one process or in each Ray Train worker.

No monotone constraints are set: with the other sources fixed, a better rank in one source may lower the probability,
such as for items that are popular but not similar; and a missing rank is information, too.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from handsell.core.errors import TrainingError
from handsell.ranking.calibration import Calibration, fit_calibration
from handsell.ranking.config import RankingConfig
from handsell.ranking.shards import RankingExamples, read_shards, shard_folders
from handsell.ranking.xgboost_import import xgboost
from handsell.ranking.xgboost_ranker import XGBoostRanker, compute_fused_margin

log = logging.getLogger(__name__)

PRIOR = 24.0  # initial margin of an item that every source ranks first, over one without source


def fit_xgboost(
    examples: Path, validation: Path, config: RankingConfig, features: tuple[str, ...], threads: int = 1,
    prior: float = 0.0,
) -> XGBoostRanker:  # fmt: skip
    """Fit on all shards of two folders in this process; raises TrainingError where there are no examples."""
    booster = train_booster(
        read_shards(shard_folders(examples), features),
        read_shards(shard_folders(validation), features),
        config,
        threads,
        prior,
    )
    return calibrate_ranker(booster, prior, shard_folders(validation), features)


def train_booster(
    train: RankingExamples,
    validation: RankingExamples,
    config: RankingConfig,
    threads: int = 1,
    prior: float = 0.0,
    device: str = "cpu",
) -> xgboost.Booster:
    """Train LambdaMART on whole groups; keep the trees up to the best NDCG@10 on the validation groups.

    With a `prior`, the initial margin is the fused score × prior, which the trees correct: without it, they learn a
    worse order from few examples (docs/decisions/013). In a collective (Ray Train) every worker passes its own rows,
    and all get the same booster.
    """
    if not len(train):
        raise TrainingError(
            "expected examples from the ranker window, got none: no positive was among the candidates; increase "
            "split.ranker_days or the sources' k, or set ranking.enabled = false"
        )
    dtrain = _build_matrix(xgboost.QuantileDMatrix, train, threads, prior)
    # A plain DMatrix: with missing values, predicting from a QuantileDMatrix takes seven times as long.
    watch = [(_build_matrix(xgboost.DMatrix, validation, threads, prior), "validation")] if len(validation) else []
    booster = xgboost.train(
        _build_params(config, threads, device),
        dtrain,
        num_boost_round=config.trees,
        evals=watch,
        early_stopping_rounds=min(config.early_stopping_rounds, config.trees) if watch else None,
        verbose_eval=False,
    )
    best = booster.best_iteration + 1 if watch else booster.num_boosted_rounds()
    log.info("ranker: %d groups, %d rows, %d trees kept", len(np.unique(train.qid)), len(train), best)
    return booster[:best]


def calibrate_ranker(
    booster: xgboost.Booster, prior: float, validation: list[Path], features: tuple[str, ...]
) -> XGBoostRanker:
    """Build the ranker, calibrated on the validation shards; one shard is in memory at a time."""
    booster.set_param({"nthread": 1, "device": "cpu"})
    ranker = XGBoostRanker(features, booster, Calibration.logistic(), prior)
    raw, positive, weight = [np.zeros(0)], [np.zeros(0, bool)], [np.zeros(0)]
    for folder in validation:
        rows = read_shards([folder], features)
        raw.append(ranker.raw(rows.x))
        positive.append(rows.label > 0)
        weight.append(rows.weight)
    calibration = fit_calibration(np.concatenate(raw), np.concatenate(positive), np.concatenate(weight))
    return XGBoostRanker(features, booster, calibration, prior)


def _build_params(config: RankingConfig, threads: int, device: str) -> dict[str, object]:
    return {
        "objective": "rank:ndcg",
        "eval_metric": "ndcg@10",
        # Gains are the labels, as in the report; groups with many positives have a larger weight.
        "ndcg_exp_gain": False,
        "lambdarank_normalization": False,
        "tree_method": "hist",
        "eta": config.learning_rate,
        "max_depth": config.depth,
        "min_child_weight": config.min_child_weight,
        "seed": config.seed,
        "nthread": threads,
        "device": device,
        "verbosity": 1,
    }


def _build_matrix(kind: type[xgboost.DMatrix], rows: RankingExamples, threads: int, prior: float) -> xgboost.DMatrix:
    _, group = np.unique(rows.qid, return_inverse=True)  # XGBoost keeps qid in 32 bits
    matrix = kind(
        rows.x,
        label=rows.label,
        qid=group.astype(np.uint32),
        missing=np.nan,
        feature_names=list(rows.features),
        nthread=threads,
    )
    if prior:
        matrix.set_base_margin(compute_fused_margin(rows.x, rows.features, prior))
    return matrix
