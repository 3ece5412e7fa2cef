"""Evaluation of a model on labeled requests, in batches; metrics are means over requests with relevant items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.protocols.datasets import LabeledRequests
from handsell.core.batches import NONE, History, Profile, Ragged, Requests, Seen
from handsell.core.protocols import Retriever
from handsell.core.units import HOUR_US
from handsell.evaluation.metrics import Relevant, gains, hit_rate, mrr, ndcg, recall

BATCH = 256  # requests per batch; its eligibility mask is (BATCH, I)
OBJECTIVE = "ndcg"  # maximized by tuning, in every format


@dataclass(frozen=True, slots=True)
class Metric:
    """`per_cent` metrics are printed as 52.7, as in the session papers, not as .527."""

    compute: Callable[[np.ndarray, Relevant, int], np.ndarray]
    per_cent: bool = False


# the session papers call the hit rate with one target P@k
METRICS = {
    "recall": Metric(recall),
    "ndcg": Metric(ndcg),
    "hr": Metric(hit_rate),
    "p": Metric(hit_rate, per_cent=True),
    "mrr": Metric(mrr, per_cent=True),
}


def measure(
    model: Retriever, labeled: LabeledRequests, k: int, n_items: int, masks_history: bool,
    tick: Callable[[int], None] = lambda n: None,
) -> dict[str, float]:  # fmt: skip
    """Compute every metric of METRICS, as fractions; `tick` receives the number of requests of each batch."""
    found = np.full((len(labeled), k), NONE, np.int32)
    for rows, requests, eligible in split_batches(labeled, n_items, masks_history):
        found[rows], _ = model.retrieve(requests, k, eligible)
        tick(len(rows))
    return compute_metrics(found, labeled, k)


def compute_metrics(found: np.ndarray, labeled: LabeledRequests, k: int) -> dict[str, float]:
    """Compute the means of every metric for lists of items (B, k)."""
    target = labeled.target
    relevant = Relevant(target, Ragged(np.ones(len(target.values), np.float32), target.offsets))
    gain = gains(found, relevant)
    return {name: float(np.nanmean(metric.compute(gain, relevant, k))) for name, metric in METRICS.items()}


def split_batches(
    labeled: LabeledRequests, n_items: int, masks_history: bool
) -> Iterator[tuple[np.ndarray, Requests, np.ndarray]]:
    """Yield rows (b,), requests and eligible (b, I), sorted by history length to reduce padding."""
    order = np.argsort(labeled.history.lengths, kind="stable")
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        batch = labeled.take(rows)
        eligible = np.ones((len(rows), n_items), bool)
        if masks_history:
            eligible[batch.history.row_of_value, batch.history.values] = False
        yield rows, build_requests(batch), eligible


def build_requests(labeled: LabeledRequests) -> Requests:
    """Build requests whose events are `step_us` apart, as of one hour after the last event or later."""
    rows, lengths = len(labeled), labeled.history.lengths
    width = max(int(lengths.max(initial=0)), 1)
    past = History.empty(rows, width)
    row = labeled.history.row_of_value
    place = np.arange(len(row)) - labeled.history.offsets[row]
    at = (row, width - lengths[row] + place)
    past.item[at], past.type[at], past.weight[at] = labeled.history.values, 0, 1.0
    past.time[at] = labeled.start + place * labeled.step_us
    empty = np.zeros((rows, 0))
    return Requests(
        user=labeled.user,
        time=labeled.start + lengths * HOUR_US,
        surface=np.zeros(rows, np.int8),
        history=past,
        profile=Profile(*(empty.astype(kind) for kind in ("f4", "i4", "f4", "i4", "f4"))),
        seen=Seen(Ragged.empty(rows), Ragged.empty(rows, np.int64)),
        exclude=Ragged.empty(rows),
    )
