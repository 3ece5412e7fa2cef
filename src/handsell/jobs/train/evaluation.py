"""Evaluation of the holdout model on the replayed test window, and on requests like those of a running service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handsell.bundles.stages import Stages, load_stages
from handsell.catalog.snapshot import Snapshot
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import NONE, Requests
from handsell.core.paths import Layout
from handsell.core.protocols import RerankingStage
from handsell.data.world.oracle import Oracle
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.baselines import Baselines
from handsell.evaluation.replay import Lists, Replay, replay_requests
from handsell.evaluation.served import (
    BASELINE_PREFIX,
    PAUSES,
    RequestScores,
    describe_pauses,
    describe_served,
    score_models,
)
from handsell.jobs.cluster import run_tasks
from handsell.jobs.progress import report_update
from handsell.jobs.train.examples import load_item_values
from handsell.jobs.train.requests import load_evaluation_requests
from handsell.jobs.train.retrievers import count_positives, read_interactions
from handsell.jobs.train.windows import SERVED
from handsell.reranking.stage import LocalReranking

PAUSED_REQUESTS = 500  # of the served requests, evaluated again after each pause
BASELINE_ITEMS = 50_000  # most items with a like for which simple baselines are computed
ORACLE_ITEMS = 200_000  # in a larger world the oracle takes a second per request


def replay_window(config: Config, run: Path, models: Path, window: str = "test") -> Replay:
    """Replay a window through each source, the blend, the ranker and the funnel of `models`. A Ray task.

    Item values are those of each request's day.
    """
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    stages = load_stages(models, config, snapshot=snapshot, items=load_item_values(config, run, window, snapshot))
    evaluation = load_evaluation_requests(config, run, window, snapshot)
    eligibility = Eligibility.of(snapshot, config)
    return replay_requests(
        evaluation.requests,
        evaluation.relevant,
        funnel=stages.funnel,
        retrievers=stages.candidates.retrievers,
        eligibility=eligibility,
        popularity=count_positives(config, run / "fit"),
        oracle=load_oracle(config, snapshot, eligibility),
        curve=build_reranking_variants(stages, eligibility),
        progress=lambda done, of: report_update(f"scored {done:,} of {of:,} requests"),
    )


@dataclass(frozen=True, slots=True)
class ServedScores:
    """Scores of the served requests: all users at the same time, and some of them again after each pause."""

    description: str  # of that time
    simultaneous: RequestScores
    by_pause: dict[str, RequestScores]

    def as_dict(self) -> dict[str, Any]:
        return describe_served(self.simultaneous, self.description)

    def by_time_away(self) -> dict[str, Any]:
        return describe_pauses(self.by_pause)

    @property
    def sentence(self) -> str:
        return str(self.as_dict()["sentence"])


def evaluate_served(config: Config, run: Path, models: Path) -> ServedScores:
    """Score the served requests with the stages of `models`: as they are, and after each of PAUSES, as Ray tasks."""
    tasks = [(config, run, models, pause) for pause in (None, *PAUSES.values())]
    simultaneous, *by_pause = run_tasks(score_served_requests, tasks, wait_s=config.jobs.wait_for_resources_s)
    description = (
        "all users at the start of the test window"
        if config.split.kind == "by_time"
        else "all users when the data ends"
    )
    return ServedScores(description, simultaneous, dict(zip(PAUSES, by_pause, strict=True)))


def score_served_requests(config: Config, run: Path, models: Path, away: int | None) -> RequestScores:
    """Score the served requests and simple baselines. A Ray task.

    `away`: score a sample of them, each request that many µs after the user's last event, without baselines.
    """
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    stages = load_stages(models, config, snapshot=snapshot, items=load_item_values(config, run, SERVED, snapshot))
    served = load_evaluation_requests(config, run, SERVED, snapshot, away)
    eligibility = Eligibility.of(snapshot, config)
    baselines = {}
    if away is None:
        baselines = recommend_baselines(config, run, served.requests, eligibility)
    else:
        served = served.sample(PAUSED_REQUESTS)
    return score_models(
        served.requests, served.relevant, stages.funnel, stages.candidates.retrievers, eligibility, baselines
    )


def recommend_baselines(
    config: Config, run: Path, requests: Requests, eligibility: Eligibility
) -> dict[str, np.ndarray]:
    """Return the lists of simple recommenders by name; none if more than BASELINE_ITEMS have a like."""
    fit, every = (read_interactions(config, run / part) for part in ("fit", "all"))
    repeats = config.surfaces["home"].repeat != "exclude"
    baselines = Baselines.of(fit, every, requests, repeats)
    if len(baselines.items) > BASELINE_ITEMS:
        return {}
    found = baselines.rank(lambda rows: eligibility.mask(requests.take(rows)))
    return {f"{BASELINE_PREFIX}{name}": items for name, items in found.items()}


def build_reranking_variants(stages: Stages, eligibility: Eligibility) -> dict[str, RerankingStage]:
    """Return re-rankers with other settings by name, "family strength", for the report's curve."""
    off = {"strength": 1.0, "diversity": 0.0, "diversity_by_taste": 0.0, "calibration": 0.0, "novelty": 0.0,
           "serendipity": 0.0}  # fmt: skip
    variants: dict[str, dict[str, Any]] = {
        "plain 0": {**off, "same_creator_gap": 0, "category_window": 0},
        "shipped 0": {},
    }
    for strength in (0.05, 0.1, 0.2, 0.4):
        variants[f"mmr {strength}"] = {**off, "selection": "mmr", "diversity": strength}
        variants[f"dpp {strength / 2}"] = {**off, "selection": "dpp", "diversity": strength / 2}
        variants[f"calibrated {strength}"] = {**off, "calibration": strength}

    def build(settings: dict[str, Any]) -> LocalReranking:
        reranking = stages.config.reranking.model_copy(update=settings)
        config = stages.config.model_copy(update={"reranking": reranking})
        return LocalReranking(stages.snapshot, eligibility, config, stages.items)

    return {name: build(settings) for name, settings in variants.items()}


def load_oracle(config: Config, snapshot: Snapshot, eligibility: Eligibility) -> Lists | None:
    """Return a recommender that knows the world's true preferences, the upper bound of evaluation; None elsewhere.

    It recommends nothing to users and no items that the world lacks, as those that came over HTTP.
    """
    truth = Layout(config.state).truth
    if config.data.format != "world" or not truth.is_dir() or len(snapshot) > ORACLE_ITEMS:
        return None
    oracle = Oracle.load(truth)
    users = Vocabulary.load(Layout(config.state).catalog / "users")
    track = oracle.find_items(snapshot.items.ids(np.arange(len(snapshot))))  # (I,) the world's number of each item
    listen = config.events.names.index("listen")

    def recommend(requests: Requests) -> np.ndarray:
        is_listen = (requests.history.type == listen) & (requests.history.item != NONE)
        history = np.where(is_listen, track[np.maximum(requests.history.item, 0)], NONE)
        people = oracle.find_users(users.ids(requests.user))
        wanted = oracle.expected_listens(np.maximum(people, 0), requests.time, history, requests.history.time)[:, track]
        known = (people != NONE)[:, None] & (track != NONE)
        wanted = np.where(eligibility.mask(requests) & known, wanted, -np.inf)
        best = np.argpartition(-wanted, 10, axis=1)[:, :10] if wanted.shape[1] > 10 else np.argsort(-wanted, axis=1)
        order = np.argsort(-np.take_along_axis(wanted, best, 1), axis=1, kind="stable")
        found = np.take_along_axis(best, order, 1)
        return np.where(np.isfinite(np.take_along_axis(wanted, found, 1)), found, NONE).astype(np.int32)

    return recommend
