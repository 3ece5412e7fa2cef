"""The validation window as tuning uses it: retrieve for its requests, and score the lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.errors import TrainingError
from handsell.core.paths import Layout
from handsell.core.protocols import Retriever
from handsell.eligibility.mask import Eligibility
from handsell.evaluation.metrics import gains, ndcg
from handsell.evaluation.replay import MASK_CELLS
from handsell.jobs.train.requests import EvaluationRequests, load_evaluation_requests

WINDOW = "validation"
TOP = 10

RankedLists = tuple[np.ndarray, np.ndarray]  # items and scores (R, k), best first


@dataclass(frozen=True)
class ValidationWindow:
    """Requests with their relevant and their eligible items."""

    evaluation: EvaluationRequests
    eligibility: Eligibility

    @classmethod
    def load(cls, config: Config, run: Path, otherwise: str) -> ValidationWindow:
        """Load all requests that have a relevant item.

        Raises TrainingError if there is none; `otherwise` says what to do instead of a longer window.
        """
        snapshot = Snapshot.load(Layout(config.state).snapshot)
        evaluation = load_evaluation_requests(config, run, WINDOW, snapshot)
        if not len(evaluation):
            raise TrainingError(
                f"expected requests in the {WINDOW} window with an eligible item that was liked, got none: lengthen "
                f"split.validation_days (or split.validation_k), or {otherwise}"
            )
        return cls(evaluation, Eligibility.of(snapshot, config))

    def retrieve(self, model: Retriever, k: int) -> RankedLists:
        """(R, k) items and scores of the model among the eligible items of each request."""
        items, scores = [], []
        step = max(1, min(256, MASK_CELLS // max(len(self.eligibility.snapshot), 1)))
        for start in range(0, len(self.evaluation), step):
            requests = self.evaluation.requests.take(slice(start, start + step))
            mask = self.eligibility.mask(requests)
            found, score = model.retrieve(requests, min(k, mask.shape[1]), mask)
            items.append(found)
            scores.append(score)
        return np.concatenate(items), np.concatenate(scores)

    def ndcg(self, items: np.ndarray) -> float:
        """Return the mean NDCG@10 of lists (R, k)."""
        relevant = self.evaluation.relevant
        return float(np.nanmean(ndcg(gains(items[:, :TOP], relevant), relevant, TOP)))

    def model_ndcg(self, model: Retriever) -> float:
        return self.ndcg(self.retrieve(model, TOP)[0])
