"""Offline replay: the same test requests go through every contender, and through the funnel that serves.

The funnel is run once per chunk of requests and observed between its stages, so the blend (fused order),
the ranker (plain top of its scores) and the slate come from the very pass that serving would make.
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
from handsell.evaluation.replay_scores import DEPTHS, TOP, Replay, ReplayScorer, wide

BLEND, RANKER, FUNNEL, ORACLE = "blend", "ranker", "funnel", "oracle"
MASK_CELLS = 64_000_000  # eligibility mask held at once

Lists = Callable[[Requests], np.ndarray]  # requests → items (B, n) int32, best first, -1 padded


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
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Replay:
    """Replay R requests through single retrievers, blend, ranker, funnel, and given further contenders.

    `popularity` (I,) counts events of the fit window: it gives novelty and says which items were cold.
    `curve` re-ranks what the ranker gave in other ways, to show what variety costs.
    A retriever named "popularity" is what serendipity calls expected. Raises TrainingError without requests.
    """
    _check(requests, relevant)
    catalog = eligibility.reachable(requests)
    scorer, curve_scorer = (ReplayScorer(catalog, popularity, eligibility.snapshot) for _ in range(2))
    further = {name: (lists, "other") for name, lists in (others or {}).items()}
    if oracle is not None:
        further[ORACLE] = (oracle, ORACLE)
    step = chunk or max(1, min(256, MASK_CELLS // max(len(catalog), 1)))
    for start in range(0, len(requests), step):
        rows = slice(start, start + step)
        asked = requests.take(rows)
        scorer.start_chunk(relevant.take(rows), asked)
        _note_retrievers(scorer, retrievers, eligibility, asked)
        ranked = _note_funnel(scorer, funnel, asked)
        if curve:
            _note_curve(curve_scorer, curve, asked, relevant.take(rows), ranked)
        for name, (lists, kind) in further.items():
            scorer.add(name, kind, TOP, lambda f=lists, r=asked: f(r))  # type: ignore[misc]
        scorer.finish_chunk()
        progress(start + len(asked), len(requests))
    replay = scorer.finish(requests, segments_of(requests))
    return replace(replay, curve=curve_scorer.finish(requests, {}).models) if curve else replay


def recommend_slates(funnel: Funnel, requests: Requests, n: int = TOP, chunk: int = 256) -> np.ndarray:
    """(R, n) int32 items that the funnel answers: what the gate and the comparison of twins score."""
    cuts = range(0, len(requests), chunk)
    parts = [run_local(funnel.recommend(requests.take(slice(s, s + chunk)), n)).item for s in cuts]
    return np.concatenate([wide(p, n) for p in parts]) if parts else np.zeros((0, n), np.int32)


def segments_of(requests: Requests) -> dict[str, np.ndarray]:
    """(R,) bool by segment of users: how many interactions the request can see in its history."""
    known = (requests.history.item >= 0).sum(axis=1)
    return {
        "cold users (no history)": known == 0,
        "new users (1–4)": (known > 0) & (known < 5),
        "warm users": known > 4,
    }


class _Watched:
    """The candidate and ranking stages of a funnel, remembering what they handed on."""

    def __init__(self, funnel: Funnel):
        self._candidates: CandidateStage = funnel.candidates
        self._ranking: RankingStage = funnel.ranking
        self.found: Candidates | None = None
        self.ranked: Candidates | None = None

    async def candidates(self, requests: Requests, k: int) -> Candidates:
        self.found = await self._candidates.candidates(requests, k)
        return self.found

    async def rank(self, requests: Requests, candidates: Candidates, k: int) -> Candidates:
        self.ranked = await self._ranking.rank(requests, candidates, k)
        return self.ranked


def watch(funnel: Funnel, requests: Requests, n: int) -> tuple[Candidates, Candidates, Slates]:
    """One pass of the funnel, seen between its stages: candidates in fused order, in ranked order, and slates."""
    stages = _Watched(funnel)
    slates = run_local(replace(funnel, candidates=stages, ranking=stages).recommend(requests, n))
    assert stages.found is not None  # else `recommend` has raised
    ranked = stages.ranked if stages.ranked is not None else stages.found.take_columns(funnel.ranked)
    return stages.found, ranked, slates


def _note_retrievers(
    scorer: ReplayScorer, retrievers: Mapping[str, Retriever], eligibility: Eligibility, asked: Requests
) -> None:
    eligible = eligibility.mask(asked)
    k = min(DEPTHS[-1], eligible.shape[1])
    for name, retriever in retrievers.items():
        scorer.add(name, "retriever", DEPTHS[-1], lambda r=retriever: r.retrieve(asked, k, eligible)[0])  # type: ignore[misc]


def _note_curve(
    scorer: ReplayScorer, curve: Mapping[str, RerankingStage], asked: Requests, relevant: Relevant, ranked: Candidates
) -> None:
    scorer.start_chunk(relevant, asked)
    for name, stage in curve.items():
        scorer.add(name, "curve", TOP, lambda s=stage: run_local(s.rerank(asked, ranked, TOP)).item)  # type: ignore[misc]
    scorer.finish_chunk()


def _note_funnel(scorer: ReplayScorer, funnel: Funnel, asked: Requests) -> Candidates:
    """Note the funnel and its stages; what ranking handed on."""
    seen: list[tuple[Candidates, Candidates, Slates]] = []

    def answer() -> np.ndarray:
        seen.append(watch(funnel, asked, TOP))
        return seen[0][2].item

    scorer.add(FUNNEL, FUNNEL, TOP, answer)
    ((found, ranked, given),) = seen
    scorer.add(BLEND, BLEND, funnel.k, lambda: found.item)
    scorer.add(RANKER, RANKER, funnel.ranked, lambda: ranked.item)
    scorer.add_sources(found)
    scorer.add_degraded(given.degraded, len(asked))
    return ranked


def _check(requests: Requests, relevant: Relevant) -> None:
    if len(requests) != len(relevant):
        raise ValueError(f"one row of relevant items per request is expected; got {len(relevant)} for {len(requests)}")
    if not len(requests):
        raise TrainingError(
            "evaluation expected test requests, but none is left: lengthen split.test_days (or split.test_k), "
            'or use split.kind = "leave_last_k"'
        )
