"""Before a replica answers anybody it answers its bundle's recorded requests: mapped pages are read, lazy parts of
models are made, columns that filters ask for are read. A stage that cannot answer them is never put into service.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from handsell.bundles.warm_up_requests import load_warm_up_requests
from handsell.core.batches import NONE, Candidates, Requests
from handsell.core.errors import BundleError
from handsell.core.funnel import run_local
from handsell.eligibility.filters import filters_of
from handsell.reranking.stage import LocalReranking
from handsell.serving.graph.loading import OpenedBundle
from handsell.serving.graph.stages import LocalStages

ALONE = 8  # requests that come one by one, before the micro-batch


def warm_up(stages: LocalStages, opened: OpenedBundle) -> LocalStages:
    """The same stages, having answered; raises BundleError where one of them cannot."""
    try:
        filters_of(opened.snapshot).prepare()
        requests = load_warm_up_requests(opened.path)
        if requests is None:
            return stages
        some = min(len(requests), opened.config.serving.micro_batch)
        for rows in (*(slice(b, b + 1) for b in range(min(ALONE, some))), slice(0, some)):
            _answer(stages, requests.take(rows), opened)
    except Exception as error:
        raise BundleError(
            f"bundle {opened.manifest.id} cannot answer the requests that it was evaluated on ({error!r}): "
            "train again, or roll back"
        ) from error
    return stages


def _answer(stages: LocalStages, requests: Requests, opened: OpenedBundle) -> None:
    """One trip; stages that are not in this process are stood in for by items of the catalog."""
    retrieval, ranking = opened.config.retrieval, opened.config.ranking
    found = any_items(requests, len(opened.snapshot), retrieval.candidates, retrieval.enabled)
    if stages.candidate_stage is not None:
        found = run_local(stages.candidates(requests, retrieval.candidates))
    ranked = found.take_columns(ranking.ranked)
    if stages.ranking_stage is not None:
        ranked = run_local(stages.rank(requests, found, ranking.ranked))
    if isinstance(stages.reranking_stage, LocalReranking):
        stages = replace(stages, reranking_stage=stages.reranking_stage.unseen)
    if stages.reranking_stage is not None:
        run_local(stages.rerank(requests, ranked, opened.config.serving.max_count))


def any_items(requests: Requests, items: int, k: int, sources: tuple[str, ...]) -> Candidates:
    """Candidates (B, k) spread over the catalog, which no source found."""
    shape = (len(requests), k)
    item = np.full(shape, NONE, np.int32)
    spread = np.unique(np.linspace(0, max(items - 1, 0), min(k, items)).astype(np.int32))
    item[:, : len(spread)] = spread
    fused = np.broadcast_to(np.linspace(1, 0, k, dtype=np.float32), shape).copy()
    none = np.full((*shape, len(sources)), np.nan, np.float32)
    return Candidates(item, fused, none, none, fused, sources)
