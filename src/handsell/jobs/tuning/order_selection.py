"""Choose the order for users without any event, on the validation window: the ranker's, or the fused one.

The window's requests are answered as if their users had no events. Few examples of the ranker are of such users, so
that its order may be worse than that of the sources, which is mostly popularity (docs/decisions/052).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from handsell.bundles.stages import load_candidates
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.batches import Candidates, Requests
from handsell.core.funnel import run_local
from handsell.core.paths import Layout
from handsell.core.protocols import RankingStage
from handsell.evaluation.metrics import Relevant, gains, ndcg
from handsell.jobs.cluster import run_tasks
from handsell.jobs.train.examples import load_item_values
from handsell.jobs.train.requests import load_evaluation_requests
from handsell.jobs.tuning.new_users import forget_all_but
from handsell.jobs.tuning.validation_window import TOP, WINDOW
from handsell.ranking.ranker_files import load_ranker
from handsell.ranking.stage import LocalRanking

MAX_REQUESTS, CHUNK = 500, 128


def choose_order_without_events(config: Config, run: Path, models: Path) -> bool:
    """Save with the ranker of `models` whether it orders requests of users without events; return it."""
    return bool(run_tasks(compare_orders, [(config, run, models)])[0])


def compare_orders(config: Config, run: Path, models: Path) -> bool:
    """Return whether the ranker has the higher NDCG@10 for users without events, and save that. A Ray task."""
    snapshot = Snapshot.load(Layout(config.state).snapshot)
    values = load_item_values(config, run, WINDOW, snapshot)
    ranker = replace(load_ranker(models / "ranker"), ranks_without_events=True)
    ranking = LocalRanking(ranker, snapshot, values, config)
    asked = load_evaluation_requests(config, run, WINDOW, snapshot).sample(MAX_REQUESTS)
    columns = tuple(pq.read_schema(run / "rows" / f"{WINDOW}.parquet").names)
    stage, gain = load_candidates(models, config, snapshot), 0.0
    for start in range(0, len(asked), CHUNK):
        some = asked.take(slice(start, start + CHUNK))
        requests = forget_all_but(some.requests, 0, columns, snapshot, config)
        found = run_local(stage.candidates(requests, config.retrieval.candidates))
        gain += measure_gain(requests, some.relevant, found, ranking)
    replace(ranker, ranks_without_events=gain > 0).save(models / "ranker")
    return gain > 0


def measure_gain(requests: Requests, relevant: Relevant, found: Candidates, ranking: RankingStage) -> float:
    """Return the sum over requests of NDCG@10 of the ranked candidates minus that of their fused order."""
    ranked = run_local(ranking.rank(requests, found, TOP))
    ours, fused = (ndcg(gains(c.item[:, :TOP], relevant), relevant, TOP) for c in (ranked, found))
    return float(np.nansum(ours - fused))
