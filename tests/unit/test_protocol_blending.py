"""Weights of a blend: never worse than a part, trials that are what the blend would answer."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from benchmarks.protocols.blending import normalize_weights, tune_weights
from benchmarks.protocols.datasets import LabeledRequests
from benchmarks.protocols.protocol import measure

from handsell.core.batches import Ragged
from handsell.retrieval.index.topk import gather, pad_rows, select_top
from handsell.retrieval.models.blend import Blend

ITEMS, USERS, K = 30, 40, 5


@dataclass(frozen=True)
class ByUser:
    """A table of scores by user; NaN is unknown."""

    scores: np.ndarray  # (U, I) float32

    def retrieve(self, requests, k, eligible):
        rows = []
        for may, own in zip(eligible, self.scores[requests.user], strict=True):
            item = np.flatnonzero(may & ~np.isnan(own)).astype(np.int32)
            rows.append(select_top(item, own[item], k))
        return pad_rows(rows, k)

    def score(self, requests, items):
        return gather(self.scores[requests.user], items, np.ones(ITEMS, bool))


@pytest.fixture
def labeled(rng) -> LabeledRequests:
    """Each user has three items in the history and three others to find."""
    lines = [rng.permutation(ITEMS)[:6].astype(np.int32) for _ in range(USERS)]
    history, target = (Ragged.from_rows([np.sort(line[part]) for line in lines]) for part in (slice(3), slice(3, 6)))
    return LabeledRequests(np.arange(USERS, dtype=np.int32), history, target)


@pytest.fixture
def make_part(rng, labeled):
    def make(signal: float, unknown: float = 0.0) -> ByUser:
        """Scores of whole numbers, hence with ties, that are higher by `signal` for the items to find."""
        scores = rng.integers(0, 6, (USERS, ITEMS)).astype(np.float32)
        scores[labeled.target.row_of_value, labeled.target.values] += signal
        scores[rng.random(scores.shape) < unknown] = np.nan
        return ByUser(scores)

    return make


def blend(*parts: ByUser) -> Blend:
    return Blend({f"part{s}": part for s, part in enumerate(parts)}, (1 / len(parts),) * len(parts), 12, ITEMS)


def ndcg(model, labeled: LabeledRequests) -> float:
    return measure(model, labeled, K, ITEMS, True)["ndcg"]


@pytest.mark.parametrize("budget_s", [0.0, 60.0])
def test_a_blend_is_never_worse_than_its_parts(make_part, labeled, budget_s):
    parts = make_part(3.0), make_part(0.0, unknown=0.5), make_part(0.0)
    weights, search = tune_weights(blend(*parts), labeled, K, True, budget_s)
    best = max(ndcg(part, labeled) for part in parts)
    assert search.best.value >= best > ndcg(blend(*parts), labeled)
    assert ndcg(replace(blend(*parts), weights=weights), labeled) == search.best.value


def test_parts_that_complement_each_other_are_mixed(make_part, labeled):
    parts = make_part(2.0), make_part(2.0)
    weights, search = tune_weights(blend(*parts), labeled, K, True, 60.0)
    assert min(weights) > 0 and search.best.value > max(ndcg(part, labeled) for part in parts)


def test_the_value_of_a_trial_is_that_of_the_blend(make_part, labeled):
    """Also where a part has no weight, whose items are then no candidates."""
    mixed = blend(make_part(2.0, unknown=0.2), make_part(1.0), make_part(0.5, unknown=0.4))
    _, search = tune_weights(mixed, labeled, K, True, 60.0)
    for trial in search.trials:
        weights = normalize_weights(trial.params)
        assert trial.value == ndcg(replace(mixed, weights=weights), labeled) >= 0, weights
    assert any(sum(weight > 0 for weight in trial.params.values()) == 2 for trial in search.trials)


def test_no_trial_is_without_a_weight(make_part, labeled):
    _, search = tune_weights(blend(make_part(1.0), make_part(1.0)), labeled, K, True, 60.0)
    assert all(any(trial.params.values()) for trial in search.trials)
