"""Choose the strength of re-ranking on the validation window.

The strength is one factor that scales diversity, calibration, novelty and serendipity of `[reranking]`. The chosen one
is the largest with which the slates lose at most `reranking.tolerance` of the ranker's own NDCG@10.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from handsell.bundles.stages import load_stages
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.funnel import run_local
from handsell.core.paths import Layout
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.intervals import Comparison, compare
from handsell.evaluation.metrics import gains, ndcg
from handsell.jobs.cluster import run_tasks
from handsell.jobs.train.examples import load_item_values
from handsell.jobs.train.requests import load_evaluation_requests
from handsell.jobs.tuning.validation_window import TOP, WINDOW
from handsell.reranking.stage import LocalReranking

STRENGTHS = (1.0, 0.7, 0.5, 0.35, 0.2, 0.1, 0.0)
MAX_REQUESTS = 1_000
MIN_REQUESTS_FOR_INTERVAL = 200  # with fewer, the mean decides instead of the interval's bound
CHUNK = 128


@dataclass(frozen=True, slots=True)
class StrengthChoice:
    """The chosen factor, and the relative change of NDCG@10 at each factor that was tried."""

    value: float
    tried: tuple[dict[str, float], ...]  # strength, relative, relative_low
    requests: int
    by_bound: bool
    tolerance: float

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "window": WINDOW, "sentence": str(self)}

    def __str__(self) -> str:
        at = next(one for one in self.tried if one["strength"] == self.value)
        bound = f", at worst {at['relative_low']:+.1%}" if self.by_bound else ""
        by = "the interval's bound" if self.by_bound else f"the mean, as {self.requests} requests are few"
        return (
            f"strength {self.value:g} of re-ranking: {at['relative']:+.1%} NDCG@10{bound} on "
            f"{self.requests:,} {WINDOW} requests (at most −{self.tolerance:.1%} by {by})"
        )


def choose_strength(config: Config, run: Path, models: Path) -> tuple[Config, StrengthChoice | None]:
    """Return the config with the chosen strength; a configured strength is kept."""
    if config.reranking.strength != "auto":
        return config, None
    choice = run_tasks(try_strengths, [(config, run, models)])[0]
    return with_strength(config, choice.value), choice


def with_strength(config: Config, strength: float) -> Config:
    return config.model_copy(update={"reranking": config.reranking.model_copy(update={"strength": strength})})


def try_strengths(config: Config, run: Path, models: Path) -> StrengthChoice:
    """Rank some requests of the window once and re-rank them with every strength. A Ray task."""
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    values = load_item_values(config, run, WINDOW, snapshot)
    stages = load_stages(models, config, snapshot=snapshot, items=values)
    evaluation = load_evaluation_requests(config, run, WINDOW, snapshot).sample(MAX_REQUESTS)
    eligibility = Eligibility.of(snapshot, config)
    rerankers = {s: LocalReranking(snapshot, eligibility, with_strength(config, s), values) for s in STRENGTHS}
    plain: list[np.ndarray] = []
    slates: dict[float, list[np.ndarray]] = {s: [] for s in STRENGTHS}
    for start in range(0, len(evaluation), CHUNK):
        chunk = evaluation.take(slice(start, start + CHUNK))
        requests, relevant = chunk.requests, chunk.relevant
        found = run_local(stages.candidates.candidates(requests, config.retrieval.candidates))
        ranked = run_local(stages.ranking.rank(requests, found, config.ranking.ranked))
        plain.append(ndcg(gains(ranked.item[:, :TOP], relevant), relevant, TOP))
        for strength, reranker in rerankers.items():
            items = run_local(reranker.rerank(requests, ranked, TOP)).item
            slates[strength].append(ndcg(gains(items, relevant), relevant, TOP))
    base = np.concatenate(plain) if plain else np.zeros(0)
    changes = {s: compare(np.concatenate(v), base, evaluation.requests.user) for s, v in slates.items() if v}
    return pick_strength(changes, len(evaluation), config.reranking.tolerance)


def pick_strength(changes: dict[float, Comparison], requests: int, tolerance: float) -> StrengthChoice:
    """Return the largest strength whose loss is within the tolerance; 0 if there is none, or nothing to compare."""
    by_bound = requests >= MIN_REQUESTS_FOR_INTERVAL
    tried = tuple(
        {"strength": s, "relative": c.relative, "relative_low": c.relative_low} for s, c in changes.items()
    ) or ({"strength": 0.0, "relative": 0.0, "relative_low": 0.0},)  # fmt: skip
    key = "relative_low" if by_bound else "relative"
    good = [one["strength"] for one in tried if one[key] >= -tolerance]
    return StrengthChoice(max(good, default=0.0), tried, requests, by_bound, tolerance)
