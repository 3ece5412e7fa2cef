"""How much variety this data affords: the strength of re-ranking, chosen on the validation window.

The dials of re-ranking say what variety is wanted; one factor turns them all down until the slates lose no more than
`reranking.tolerance` of the ranker's own NDCG@10.
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
from handsell.jobs.cluster import spread
from handsell.jobs.train.examples import day_values
from handsell.jobs.train.scoring import judged_requests
from handsell.reranking.stage import LocalReranking

WINDOW = "validation"
STRENGTHS = (1.0, 0.7, 0.5, 0.35, 0.2, 0.1, 0.0)
MOST_REQUESTS = 1_000
ENOUGH_REQUESTS = 200  # from which on the bound of the interval decides rather than the mean
TOP, CHUNK = 10, 128


@dataclass(frozen=True, slots=True)
class Strength:
    """The factor that was chosen, and the relative change of NDCG@10 at each that was tried."""

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
        judge = "the interval's bound" if self.by_bound else f"the mean, as {self.requests} requests are few"
        return (
            f"strength {self.value:g} of the dials of variety: {at['relative']:+.1%} NDCG@10{bound} on "
            f"{self.requests:,} {WINDOW} requests (at most −{self.tolerance:.1%} by {judge})"
        )


def choose_strength(config: Config, run: Path, models: Path) -> tuple[Config, Strength | None]:
    """The config with its dials of variety turned to what the window affords; a configured strength is kept."""
    dials = config.reranking
    if dials.strength != "auto":
        return with_strength(config, dials.strength), None
    found = spread(try_strengths, [(config, run, models)])[0]
    return with_strength(config, found.value), found


def with_strength(config: Config, strength: float) -> Config:
    return config.model_copy(update={"reranking": config.reranking.model_copy(update={"strength": strength})})


def try_strengths(config: Config, run: Path, models: Path) -> Strength:
    """Rank some requests of the window once and re-rank them at every strength. A Ray task."""
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    values = day_values(config, run, WINDOW, snapshot)
    stages = load_stages(models, config, snapshot=snapshot, items=values)
    judged = judged_requests(config, run, WINDOW, snapshot)
    rows = np.sort(np.random.default_rng(0).permutation(len(judged.requests))[:MOST_REQUESTS])
    requests, relevant = judged.requests.take(rows), judged.relevant.take(rows)
    eligibility = Eligibility.of(snapshot, config)
    ways = {s: LocalReranking(snapshot, eligibility, with_strength(config, s), values) for s in STRENGTHS}
    plain: list[np.ndarray] = []
    slates: dict[float, list[np.ndarray]] = {s: [] for s in STRENGTHS}
    for start in range(0, len(requests), CHUNK):
        part = slice(start, start + CHUNK)
        asked, wanted = requests.take(part), relevant.take(part)
        found = run_local(stages.candidates.candidates(asked, config.retrieval.candidates))
        ranked = run_local(stages.ranking.rank(asked, found, config.ranking.ranked))
        plain.append(ndcg(gains(ranked.item[:, :TOP], wanted), wanted, TOP))
        for strength, way in ways.items():
            items = run_local(way.rerank(asked, ranked, TOP)).item
            slates[strength].append(ndcg(gains(items, wanted), wanted, TOP))
    base = np.concatenate(plain) if plain else np.zeros(0)
    changes = {s: compare(np.concatenate(v), base, requests.user) for s, v in slates.items() if v}
    return pick_strength(changes, len(requests), config.reranking.tolerance)


def pick_strength(changes: dict[float, Comparison], requests: int, tolerance: float) -> Strength:
    """The largest strength whose loss is within the tolerance; 0 where none is, or where nothing can be said."""
    by_bound = requests >= ENOUGH_REQUESTS
    tried = tuple(
        {"strength": s, "relative": c.relative, "relative_low": c.relative_low} for s, c in changes.items()
    ) or ({"strength": 0.0, "relative": 0.0, "relative_low": 0.0},)  # fmt: skip
    key = "relative_low" if by_bound else "relative"
    good = [one["strength"] for one in tried if one[key] >= -tolerance]
    return Strength(max(good, default=0.0), tried, requests, by_bound, tolerance)
