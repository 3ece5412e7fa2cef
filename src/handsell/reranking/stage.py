"""The re-ranking stage: eligible, varied, spaced and explained slates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from handsell.catalogue.snapshot import Snapshot
from handsell.core.batches import NONE, Candidates, Requests, Slates
from handsell.core.config import Config
from handsell.core.funnel import source_bits
from handsell.eligibility.mask import Eligibility
from handsell.reranking.mmr import select
from handsell.reranking.reasons import Evidence, explain, liked_weight
from handsell.reranking.similarity import creators, same_creator, tag_cosines
from handsell.reranking.spacing import NAME, too_near


@dataclass(frozen=True)
class LocalReranking:
    """Eligibility is checked once more and fails closed: what is not allowed is never shown."""

    snapshot: Snapshot
    eligibility: Eligibility
    config: Config

    async def rerank(self, requests: Requests, candidates: Candidates, n: int) -> Slates:
        """Slates of exactly n positions, padded with -1 where fewer than n candidates are allowed."""
        if not candidates.item.shape[1]:
            return _nothing(candidates, n)
        k = candidates.item.shape[1]
        allowed = self.eligibility.allows(requests, candidates.item)
        likeness, related = self._likeness(requests, candidates)
        dials = self.config.reranking
        chosen = select(
            candidates.score, allowed, likeness[:, :, :k], related[:, :, :k], n, dials.diversity, dials.same_creator_gap
        )
        filled, order = chosen != NONE, np.maximum(chosen, 0)
        row = np.arange(len(order))[:, None]
        item = np.where(filled, candidates.item[row, order], NONE)
        source = np.where(filled, source_bits(candidates.source_rank[row, order]), 0).astype(np.uint32)
        evidence = Evidence(item, source, candidates.sources, likeness[row, order, k:])
        reason, reason_item = explain(requests, evidence, self.snapshot, self._liked)
        crowded = too_near(creators(self.snapshot, item), dials.same_creator_gap).any()
        return Slates(
            item=item,
            score=np.where(filled, candidates.score[row, order], 0).astype(np.float32),
            source=source,
            reason=reason,
            reason_item=reason_item,
            propensity=np.ones(item.shape, np.float32),
            sources=candidates.sources,
            relaxed=(NAME,) if crowded else (),
            degraded=candidates.degraded,
        )

    @cached_property
    def _liked(self) -> float:
        return liked_weight(self.config.events)

    def _likeness(self, requests: Requests, candidates: Candidates) -> tuple[np.ndarray, np.ndarray]:
        """Likeness (B, K, K + T) of each candidate to all candidates and the history; 1 for the same creator.

        Also (B, K, K + T) bool, whether the creator is the same.
        """
        k = candidates.item.shape[1]
        others = np.concatenate([candidates.item, requests.history.item], axis=1)
        related = same_creator(self.snapshot, candidates.item, others)
        return np.maximum(tag_cosines(self.snapshot, others, k), related), related


def _nothing(candidates: Candidates, n: int) -> Slates:
    """Slates without an item."""
    shape = (len(candidates), n)
    return Slates(
        item=np.full(shape, NONE, np.int32),
        score=np.zeros(shape, np.float32),
        source=np.zeros(shape, np.uint32),
        reason=np.zeros(shape, np.int8),
        reason_item=np.full(shape, NONE, np.int32),
        propensity=np.ones(shape, np.float32),
        sources=candidates.sources,
        degraded=candidates.degraded,
    )
