"""A model is asked all questions in batches; the metrics are means over the questions with something to find."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.protocols.datasets import Questions
from handsell.core.batches import NONE, History, Profile, Ragged, Requests, Seen
from handsell.core.protocols import Retriever
from handsell.core.units import HOUR_US
from handsell.evaluation.metrics import Relevant, gains, hit_rate, mrr, ndcg, recall

BATCH = 256  # requests at a time; the eligibility mask of a batch is (BATCH, I)
OBJECTIVE = "ndcg"  # what tuning goes by, in every format


@dataclass(frozen=True, slots=True)
class Metric:
    """`per_cent`: written as the field writes it, 52.7 rather than .527."""

    of: Callable[[np.ndarray, Relevant, int], np.ndarray]
    per_cent: bool = False


# precision at k with one target is written P@k by the session papers and is the hit rate
METRICS = {
    "recall": Metric(recall),
    "ndcg": Metric(ndcg),
    "hr": Metric(hit_rate),
    "p": Metric(hit_rate, per_cent=True),
    "mrr": Metric(mrr, per_cent=True),
}


def measure(
    model: Retriever, questions: Questions, k: int, n_items: int, masks_history: bool, tick: Callable[[int], None]
) -> dict[str, float]:
    """Every metric of METRICS by name, as fractions; `tick` is told how many requests were answered."""
    found = np.full((len(questions), k), NONE, np.int32)
    for rows, requests, eligible in batches(questions, n_items, masks_history):
        found[rows], _ = model.retrieve(requests, k, eligible)
        tick(len(rows))
    return figures(found, questions, k)


def figures(found: np.ndarray, questions: Questions, k: int) -> dict[str, float]:
    """Means over the questions of what lists (B, k) are worth."""
    target = questions.target
    relevant = Relevant(target, Ragged(np.ones(len(target.values), np.float32), target.offsets))
    gain = gains(found, relevant)
    return {name: float(np.nanmean(metric.of(gain, relevant, k))) for name, metric in METRICS.items()}


def batches(
    questions: Questions, n_items: int, masks_history: bool
) -> Iterator[tuple[np.ndarray, Requests, np.ndarray]]:
    """Rows (b,), requests and eligible (b, I): histories of like length together, so that little is padding."""
    order = np.argsort(questions.history.lengths, kind="stable")
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        asked = questions.take(rows)
        eligible = np.ones((len(rows), n_items), bool)
        if masks_history:
            eligible[asked.history.row_of_value, asked.history.values] = False
        yield rows, as_requests(asked), eligible


def as_requests(questions: Questions) -> Requests:
    """Histories an hour between events, asked an hour after the last."""
    rows, lengths = len(questions), questions.history.lengths
    width = max(int(lengths.max(initial=0)), 1)
    past = History.empty(rows, width)
    row = questions.history.row_of_value
    place = np.arange(len(row)) - questions.history.offsets[row]
    at = (row, width - lengths[row] + place)
    past.item[at], past.type[at], past.weight[at] = questions.history.values, 0, 1.0
    past.time[at] = questions.start + place * HOUR_US
    nothing = np.zeros((rows, 0))
    return Requests(
        user=questions.user,
        time=questions.start + lengths * HOUR_US,
        surface=np.zeros(rows, np.int8),
        history=past,
        profile=Profile(*(nothing.astype(kind) for kind in ("f4", "i4", "f4", "i4", "f4"))),
        seen=Seen(Ragged.empty(rows), Ragged.empty(rows, np.int64)),
        exclude=Ragged.empty(rows),
    )
