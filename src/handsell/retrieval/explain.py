"""Explain one item in the candidate stage: the filters that remove it, its score in each source, its fused rank."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from handsell.core.batches import Candidates, Requests
from handsell.eligibility.filter_reasons import find_removals
from handsell.retrieval.stage import Found, LocalCandidates

RETURNED = "returned"
BEYOND_K = "beyond_k"  # the source has a score for the item, which is not among its k best
NO_EVIDENCE = "no_evidence"  # the source has no score of this item for this user
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SourceExplanation:
    name: str
    k: int  # items requested from the source
    outcome: str  # RETURNED, BEYOND_K, NO_EVIDENCE or FAILED
    score: float | None  # on the source's own scale
    rank: int | None  # 0 = the source's best eligible item


@dataclass(frozen=True, slots=True)
class CandidateExplanation:
    """For an item that a filter removes, the other fields are as if it were eligible."""

    removed_by: tuple[str, ...]  # names of handsell.eligibility.filter_reasons.FILTERS
    sources: tuple[SourceExplanation, ...]
    fused: float | None
    rank: int | None  # in the fused order, 0 = best; None where no source returned it
    of: int  # items found
    k: int  # candidates passed on to ranking

    @property
    def kept(self) -> bool:
        """Whether the item is a candidate."""
        return not self.removed_by and self.rank is not None and self.rank < self.k


async def explain_candidate(
    stage: LocalCandidates, requests: Requests, item: int, k: int
) -> tuple[Candidates, CandidateExplanation]:
    """Find the candidates of one request (B = 1) and explain one item; returns candidates and explanation.

    An item that is not among the k candidates is appended to them.
    """
    wanted = np.array([[item]], np.int32)
    removed_by = tuple(find_removals(stage.eligibility, requests, wanted))
    eligible = stage.eligibility.mask(requests)
    eligible[0, item] = True
    found, degraded = await stage.retrieve_all(requests, eligible, item)
    everything = stage.fuse(requests, eligible, found, degraded, max(k, sum(items.shape[1] for items, _ in found)))
    place = np.flatnonzero(everything.item[0] == item)
    rank = int(place[0]) if len(place) else None
    sources = (
        _source(stage, requests, item, eligible, s, None if f"retriever:{name}" in degraded else found[s])
        for s, name in enumerate(stage.sources)
    )
    explanation = CandidateExplanation(
        removed_by,
        tuple(sources),
        None if rank is None else float(everything.fused[0, rank]),
        rank,
        int((everything.item[0] >= 0).sum()),
        k,
    )
    return _with_item(everything, wanted, rank, k), explanation


def _source(
    stage: LocalCandidates, requests: Requests, item: int, eligible: np.ndarray, s: int, found: Found | None
) -> SourceExplanation:
    """Explain the item in source `s`; `found` is what the source returned, None where it failed."""
    name = stage.sources[s]
    k = stage.config[name].k
    if found is None:
        return SourceExplanation(name, k, FAILED, None, None)
    items, scores = found
    place = np.flatnonzero(items[0] == item)
    if len(place):
        return SourceExplanation(name, k, RETURNED, float(scores[0, place[0]]), int(place[0]))
    if (items[0] >= 0).sum() < k:  # every item with a score was returned
        return SourceExplanation(name, k, NO_EVIDENCE, None, None)
    score, rank = _full_rank(stage, requests, item, eligible, name)
    return SourceExplanation(name, k, NO_EVIDENCE if score is None else BEYOND_K, score, rank)


def _full_rank(
    stage: LocalCandidates, requests: Requests, item: int, eligible: np.ndarray, name: str
) -> tuple[float | None, int | None]:
    """Score and rank of an item that the source did not return, from its scores of all eligible items."""
    every = np.flatnonzero(eligible[0]).astype(np.int32)
    score = stage.retrievers[name].score(requests, every[None])[0]
    own = score[np.searchsorted(every, item)]
    if not np.isfinite(own):
        return None, None
    before = (score > own) | ((score == own) & (every < item))
    return float(own), int(np.count_nonzero(before))


def _with_item(everything: Candidates, item: np.ndarray, rank: int | None, k: int) -> Candidates:
    top = everything.take_columns(k)
    if rank is not None and rank < k:
        return top
    if rank is not None:
        last = everything.reorder(np.array([[rank]]))
    else:
        blank = np.full((1, 1, len(everything.sources)), np.nan, np.float32)
        zero = np.zeros((1, 1), np.float32)
        last = replace(everything, item=item, fused=zero, score=zero, source_score=blank, source_rank=blank)
    names = ("item", "fused", "score", "source_score", "source_rank")
    both: dict[str, Any] = {n: np.concatenate([getattr(top, n), getattr(last, n)], axis=1) for n in names}
    return replace(top, **both)
