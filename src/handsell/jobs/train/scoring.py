"""Evaluation of a twin on the test window: every source, the blend, the ranker and the funnel that serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handsell.bundles.stages import Stages, load_stages
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import NONE, Ragged, Requests
from handsell.core.paths import Layout
from handsell.core.protocols import RerankingStage
from handsell.data.splits import WindowRequests
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.baselines import Baselines
from handsell.evaluation.metrics import Relevant
from handsell.evaluation.replay import Lists, Replay, replay_requests
from handsell.evaluation.served import (
    BASELINE_PREFIX,
    PAUSES,
    RequestScores,
    describe_pauses,
    describe_served,
    score_models,
)
from handsell.jobs.cluster import spread
from handsell.jobs.progress import report_update
from handsell.jobs.train.examples import day_values
from handsell.jobs.train.requests import chunks, load_requests
from handsell.jobs.train.retrievers import popularity_counts, read_interactions
from handsell.jobs.train.windows import SERVED
from handsell.ranking.examples import HIGHEST_LABEL
from handsell.reranking.stage import LocalReranking

PAUSED_REQUESTS = 500  # of the served window, asked again after each pause
BASELINE_ITEMS = 50_000  # largest catalog for which simple recommenders are computed beside
ORACLE_ITEMS = 200_000  # of a larger world the oracle takes a second a request


@dataclass(frozen=True, slots=True)
class Judged:
    """The requests of a window and what was relevant to each."""

    requests: Requests
    relevant: Relevant


def score(config: Config, run: Path, models: Path, window: str = "test") -> Replay:
    """Replay a window through the stages of `models`, with item values as of each request's day. A Ray task."""
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    stages = load_stages(models, config, snapshot=snapshot, items=day_values(config, run, window, snapshot))
    judged = judged_requests(config, run, window, snapshot)
    eligibility = Eligibility.of(snapshot, config)
    return replay_requests(
        judged.requests,
        judged.relevant,
        funnel=stages.funnel,
        retrievers=stages.candidates.retrievers,
        eligibility=eligibility,
        popularity=popularity_counts(config, run / "fit"),
        oracle=oracle_lists(config, snapshot, eligibility),
        curve=curve(stages, eligibility),
        progress=lambda done, of: report_update(f"scored {done:,} of {of:,} requests"),
    )


@dataclass(frozen=True, slots=True)
class ServedScores:
    """The served window: everybody asked at one moment, and some of them after each pause."""

    moment: str
    at_once: RequestScores
    by_pause: dict[str, RequestScores]

    def as_dict(self) -> dict[str, Any]:
        return describe_served(self.at_once, self.moment)

    def by_time_away(self) -> dict[str, Any]:
        return describe_pauses(self.by_pause)

    @property
    def sentence(self) -> str:
        return str(self.as_dict()["sentence"])


def score_served(config: Config, run: Path, models: Path) -> ServedScores:
    """The served window through the stages of `models`, in Ray tasks: as it is, and after each of PAUSES."""
    tasks = [(config, run, models, pause) for pause in (None, *PAUSES.values())]
    at_once, *by_pause = spread(ask_served, tasks, wait_s=config.jobs.wait_for_resources_s)
    moment = "all users at the begin of the test window" if config.split.kind == "by_time" else (
        "all users when the data ends")  # fmt: skip
    return ServedScores(moment, at_once, dict(zip(PAUSES, by_pause, strict=True)))


def ask_served(config: Config, run: Path, models: Path, away: int | None) -> RequestScores:
    """Scores of the served window; `away` µs asks some of it that long after each user's last event. A Ray task."""
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    stages = load_stages(models, config, snapshot=snapshot, items=day_values(config, run, SERVED, snapshot))
    judged = judged_requests(config, run, SERVED, snapshot, away)
    eligibility = Eligibility.of(snapshot, config)
    others = {}
    if away is None:
        others = baseline_lists(config, run, judged.requests, eligibility)
    else:
        some = np.sort(np.random.default_rng(0).permutation(len(judged.requests))[:PAUSED_REQUESTS])
        judged = Judged(judged.requests.take(some), judged.relevant.take(some))
    return score_models(
        judged.requests, judged.relevant, stages.funnel, stages.candidates.retrievers, eligibility, others
    )


def baseline_lists(config: Config, run: Path, requests: Requests, eligibility: Eligibility) -> dict[str, np.ndarray]:
    """The lists of simple recommenders of the same events; none where the catalog is too large for them."""
    if len(eligibility.snapshot) > BASELINE_ITEMS:
        return {}
    fit, every = (read_interactions(config, run / part) for part in ("fit", "all"))
    repeats = config.surfaces["home"].repeat != "exclude"
    found = Baselines.of(fit, every, requests, repeats).lists(lambda rows: eligibility.mask(requests.take(rows)))
    return {f"{BASELINE_PREFIX}{name}": items for name, items in found.items()}


def curve(stages: Stages, eligibility: Eligibility) -> dict[str, RerankingStage]:
    """Other ways to re-rank, named "family strength": what more or less variety would cost."""
    off = {"diversity": 0.0, "diversity_by_taste": 0.0, "calibration": 0.0, "novelty": 0.0, "serendipity": 0.0,
           "strength": 1.0}  # fmt: skip
    ways: dict[str, dict[str, Any]] = {"plain 0": {**off, "same_creator_gap": 0, "category_window": 0}, "shipped 0": {}}
    for strength in (0.05, 0.1, 0.2, 0.4):
        ways[f"mmr {strength}"] = {**off, "selection": "mmr", "diversity": strength}
        ways[f"dpp {strength / 2}"] = {**off, "selection": "dpp", "diversity": strength / 2}
        ways[f"calibrated {strength}"] = {**off, "calibration": strength}

    def way(dials: dict[str, Any]) -> LocalReranking:
        dialled = stages.config.reranking.model_copy(update=dials)
        config = stages.config.model_copy(update={"reranking": dialled})
        return LocalReranking(stages.snapshot, eligibility, config, stages.items)

    return {name: way(dials) for name, dials in ways.items()}


def judged_requests(config: Config, run: Path, window: str, snapshot: Snapshot, away: int | None = None) -> Judged:
    """All requests of a window that still have something relevant after the eligibility mask.

    `away` µs asks each of them that long after its user's last event: the same requests for the same items.
    """
    count = chunks(run, window)
    whole = slice(0, count[-1].stop) if count else slice(0, 0)
    requests, outcome = load_requests(config, run, window, whole, snapshot)
    relevant = relevant_of(outcome)
    if away is not None:
        requests, _ = load_requests(config, run, window, whole, snapshot, away)
    some = relevant.item.lengths > 0
    return Judged(requests.take(some), relevant.take(some))


def relevant_of(outcome: WindowRequests) -> Relevant:
    """Items of positive total weight, graded like the ranker's labels."""
    positive = outcome.gain.values > 0
    items, gain = outcome.acted.where(positive), outcome.gain.where(positive)
    grades = np.clip(np.rint(gain.values), 1, HIGHEST_LABEL).astype(np.float32)
    return Relevant(items, Ragged(grades, items.offsets))


def oracle_lists(config: Config, snapshot: Snapshot, eligibility: Eligibility) -> Lists | None:
    """The ceiling, where the true preferences are known: the world's. Only evaluation may read them."""
    truth = Layout(config.state).truth
    if config.data.format != "world" or not truth.is_dir() or len(snapshot) > ORACLE_ITEMS:
        return None
    from handsell.catalog.vocabulary import Vocabulary
    from handsell.data.world.oracle import Oracle

    oracle = Oracle.load(truth)
    users = Vocabulary.load(Layout(config.state).catalog / "users")
    of_world = oracle.item_numbers(snapshot.items.ids(np.arange(len(snapshot))))  # (I,) the world's track numbers
    listen = config.events.names.index("listen")

    def lists(requests: Requests) -> np.ndarray:
        heard = (requests.history.type == listen) & (requests.history.item != NONE)
        history = np.where(heard, of_world[np.maximum(requests.history.item, 0)], NONE)
        people = oracle.user_numbers(users.ids(requests.user))
        wanted = oracle.expected_listens(people, requests.time, history, requests.history.time)[:, of_world]
        wanted = np.where(eligibility.mask(requests), wanted, -np.inf)
        best = np.argpartition(-wanted, 10, axis=1)[:, :10] if wanted.shape[1] > 10 else np.argsort(-wanted, axis=1)
        order = np.argsort(-np.take_along_axis(wanted, best, 1), axis=1, kind="stable")
        return np.take_along_axis(best, order, 1).astype(np.int32)

    return lists
