"""Offline replay: every model answers the same test requests, and so does the funnel that is served.

The funnel runs once per chunk of requests and is observed between its stages: the blend (fused order), the ranker
(candidates by its score) and the slate come from the same pass that serving makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from handsell.core.batches import Candidates, Requests, Slates
from handsell.core.errors import TrainingError
from handsell.core.funnel import Funnel, run_local
from handsell.core.protocols import CandidateStage, RankingStage, RerankingStage, Retriever
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.metrics import Relevant
from handsell.evaluation.replay_scores import DEPTHS, TOP, Replay, ReplayScorer, cut_or_pad

BLEND, RANKER, FUNNEL, ORACLE = "blend", "ranker", "funnel", "oracle"
MASK_CELLS = 64_000_000  # size of the eligibility mask in memory at a time

Lists = Callable[[Requests], np.ndarray]  # requests → items (B, n) int32, best first, padded with -1


def replay_requests(
    requests: Requests,
    relevant: Relevant,
    *,
    funnel: Funnel,
    retrievers: Mapping[str, Retriever],
    eligibility: Eligibility,
    popularity: np.ndarray,
    oracle: Lists | None = None,
    others: Mapping[str, Lists] | None = None,
    curve: Mapping[str, RerankingStage] | None = None,
    chunk: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Replay:
    """Score R requests with each retriever, the blend, the ranker, the funnel, the oracle and `others`.

    `popularity` (I,) counts events of the fit window: it gives novelty, and shows which items were cold.
    `curve` re-ranks the ranker's candidates in other ways, to show what variety costs.
    The retriever named "popularity" defines what is expected, for serendipity.
    Raises TrainingError without requests, ValueError if `relevant` has another number of rows.
    """
    _check(requests, relevant)
    catalog = eligibility.find_reachable(requests)
    scorer, curve_scorer = (ReplayScorer(catalog, popularity, eligibility.snapshot) for _ in range(2))
    further = {name: (lists, "other") for name, lists in (others or {}).items()}
    if oracle is not None:
        further[ORACLE] = (oracle, ORACLE)
    for rows in mask_chunks(len(requests), len(catalog), chunk):
        batch = requests.take(rows)
        scorer.start_chunk(relevant.take(rows), batch)
        _add_retrievers(scorer, retrievers, eligibility, batch)
        ranked = _add_funnel(scorer, funnel, batch)
        if curve:
            _add_curve(curve_scorer, curve, batch, relevant.take(rows), ranked)
        for name, (lists, kind) in further.items():
            scorer.add(name, kind, TOP, lambda f=lists, r=batch: f(r))  # type: ignore[misc]
        scorer.finish_chunk()
        progress(rows.start + len(batch), len(requests))
    replay = scorer.finish(requests, segment_requests(requests))
    return replace(replay, curve=curve_scorer.finish(requests, {}).models) if curve else replay


def mask_chunks(requests: int, items: int, chunk: int | None = None) -> list[slice]:
    """Cut R requests into slices whose eligibility mask (B, I) has at most MASK_CELLS cells."""
    step = chunk or max(1, min(256, MASK_CELLS // max(items, 1)))
    return [slice(start, start + step) for start in range(0, requests, step)]


def recommend_slates(funnel: Funnel, requests: Requests, n: int = TOP, chunk: int = 256) -> np.ndarray:
    """Return the funnel's slates (R, n) int32, padded with -1."""
    starts = range(0, len(requests), chunk)
    parts = [run_local(funnel.recommend(requests.take(slice(s, s + chunk)), n)).item for s in starts]
    return np.concatenate([cut_or_pad(part, n) for part in parts]) if parts else np.zeros((0, n), np.int32)


def segment_requests(requests: Requests) -> dict[str, np.ndarray]:
    """Return segment of users → (R,) bool, by the number of interactions in the history of the request."""
    known = (requests.history.item >= 0).sum(axis=1)
    return {
        "cold users (no history)": known == 0,
        "new users (1–4)": (known > 0) & (known < 5),
        "warm users": known > 4,
    }


class _ObservedStages:
    """The candidate and ranking stages of a funnel; keeps what each returned last."""

    def __init__(self, funnel: Funnel):
        self._candidates: CandidateStage = funnel.candidates
        self._ranking: RankingStage = funnel.ranking
        self.retrieved: Candidates | None = None
        self.ranked: Candidates | None = None

    async def candidates(self, requests: Requests, k: int) -> Candidates:
        self.retrieved = await self._candidates.candidates(requests, k)
        return self.retrieved

    async def rank(self, requests: Requests, candidates: Candidates, k: int) -> Candidates:
        self.ranked = await self._ranking.rank(requests, candidates, k)
        return self.ranked


def run_observed(funnel: Funnel, requests: Requests, n: int) -> tuple[Candidates, Candidates, Slates]:
    """Run the funnel once; return the candidates in fused order, the candidates in ranked order, and the slates."""
    stages = _ObservedStages(funnel)
    slates = run_local(replace(funnel, candidates=stages, ranking=stages).recommend(requests, n))
    assert stages.retrieved is not None  # otherwise `recommend` has raised
    ranked = stages.ranked if stages.ranked is not None else stages.retrieved.take_columns(funnel.ranked)
    return stages.retrieved, ranked, slates


def _add_retrievers(
    scorer: ReplayScorer, retrievers: Mapping[str, Retriever], eligibility: Eligibility, requests: Requests
) -> None:
    eligible = eligibility.mask(requests)
    k = min(DEPTHS[-1], eligible.shape[1])
    for name, retriever in retrievers.items():
        scorer.add(name, "retriever", DEPTHS[-1], lambda r=retriever: r.retrieve(requests, k, eligible)[0])  # type: ignore[misc]


def _add_curve(
    scorer: ReplayScorer,
    curve: Mapping[str, RerankingStage],
    requests: Requests,
    relevant: Relevant,
    ranked: Candidates,
) -> None:
    scorer.start_chunk(relevant, requests)
    for name, stage in curve.items():
        scorer.add(name, "curve", TOP, lambda s=stage: run_local(s.rerank(requests, ranked, TOP)).item)  # type: ignore[misc]
    scorer.finish_chunk()


def _add_funnel(scorer: ReplayScorer, funnel: Funnel, requests: Requests) -> Candidates:
    """Add the funnel, the blend and the ranker; return the ranked candidates."""
    observed: list[tuple[Candidates, Candidates, Slates]] = []

    def recommend() -> np.ndarray:
        observed.append(run_observed(funnel, requests, TOP))
        return observed[0][2].item

    scorer.add(FUNNEL, FUNNEL, TOP, recommend)
    ((retrieved, ranked, slates),) = observed
    scorer.add(BLEND, BLEND, funnel.k, lambda: retrieved.item)
    scorer.add(RANKER, RANKER, funnel.ranked, lambda: ranked.item)
    scorer.add_sources(retrieved)
    scorer.add_degraded(slates.degraded, len(requests))
    return ranked


def _check(requests: Requests, relevant: Relevant) -> None:
    if len(requests) != len(relevant):
        raise ValueError(f"expected one row of relevant items per request, got {len(relevant)} for {len(requests)}")
    if not len(requests):
        raise TrainingError(
            "evaluation expected test requests, got none: increase split.test_days (or split.test_k), or set "
            'split.kind = "leave_last_k"'
        )
