"""Warm-up of a replica: it answers its bundle's recorded requests before it serves.

This reads mapped pages and the columns of filters, and builds lazy parts of models. A stage that cannot answer them is
not put into service.
"""

from __future__ import annotations

import numpy as np

from handsell.bundles.warm_up_requests import load_warm_up_requests
from handsell.core.batches import NONE, Candidates, Requests
from handsell.core.errors import BundleError
from handsell.core.funnel import run_local
from handsell.eligibility.filters import get_filters
from handsell.reranking.stage import LocalReranking
from handsell.retrieval.sharding.sharded_stage import ShardedCandidates
from handsell.serving.graph.loading import OpenedBundle
from handsell.serving.graph.stages import LocalStages

SINGLES = 8  # requests answered one by one, before the micro-batch


def warm_up(stages: LocalStages, opened: OpenedBundle) -> LocalStages:
    """Let the stages answer the bundle's recorded requests; raises BundleError where one of them cannot."""
    try:
        get_filters(opened.snapshot).prepare()
        requests = load_warm_up_requests(opened.path)
        if requests is None:
            return stages
        some = min(len(requests), opened.config.serving.micro_batch)
        for rows in (*(slice(b, b + 1) for b in range(min(SINGLES, some))), slice(0, some)):
            _answer(stages, requests.take(rows), opened)
    except Exception as error:
        raise BundleError(
            f"bundle {opened.manifest.id} cannot answer the requests that it was evaluated on ({error!r}): "
            "train again, or roll back"
        ) from error
    return stages


def _answer(stages: LocalStages, requests: Requests, opened: OpenedBundle) -> None:
    """Run one batch; items of the catalog replace the answers of stages that are not in this process."""
    retrieval, ranking = opened.config.retrieval, opened.config.ranking
    found = spread_items(requests, len(opened.snapshot), retrieval.candidates, retrieval.enabled)
    candidates = stages.candidates
    if isinstance(candidates, ShardedCandidates):
        candidates = candidates.without_shards  # each shard warms up by itself
    if candidates is not None:
        found = run_local(candidates.candidates(requests, retrieval.candidates))
    ranked = found.take_columns(ranking.ranked)
    if stages.ranking is not None:
        ranked = run_local(stages.ranking.rank(requests, found, ranking.ranked))
    reranking = stages.reranking
    if isinstance(reranking, LocalReranking):
        reranking = reranking.without_counting
    if reranking is not None:
        run_local(reranking.rerank(requests, ranked, opened.config.serving.max_count))


def spread_items(requests: Requests, items: int, k: int, sources: tuple[str, ...]) -> Candidates:
    """Candidates (B, k) spread over the catalog, without source scores."""
    shape = (len(requests), k)
    item = np.full(shape, NONE, np.int32)
    spread = np.unique(np.linspace(0, max(items - 1, 0), min(k, items)).astype(np.int32))
    item[:, : len(spread)] = spread
    fused = np.broadcast_to(np.linspace(1, 0, k, dtype=np.float32), shape).copy()
    none = np.full((*shape, len(sources)), np.nan, np.float32)
    return Candidates(item, fused, none, none, fused, sources)
