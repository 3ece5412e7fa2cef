"""Requests that the protocols build, and metrics against values computed by hand."""

import numpy as np
import pytest
from benchmarks.protocols import protocol
from benchmarks.protocols.datasets import START_US, LabeledRequests

from handsell.core.batches import Ragged
from handsell.core.units import HOUR_US


def labeled(*rows: tuple[list[int], list[int]]) -> LabeledRequests:
    histories, targets = zip(*rows, strict=True)
    return LabeledRequests(
        np.arange(len(rows), dtype=np.int32), Ragged.from_rows(list(histories)), Ragged.from_rows(list(targets))
    )


def test_requests_have_the_history_oldest_first_and_are_one_hour_later():
    asked = protocol.build_requests(labeled(([4, 2, 9], [1]), ([], [1]), ([7], [1])))
    assert asked.history.item.tolist() == [[4, 2, 9], [-1, -1, -1], [-1, -1, 7]]
    assert ((asked.history.time[0] - START_US) // HOUR_US).tolist() == [0, 1, 2]
    assert ((asked.time - START_US) // HOUR_US).tolist() == [3, 0, 1]
    assert asked.history.weight.tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 1]]
    assert asked.user.tolist() == [0, 1, 2]


def test_metrics_by_hand():
    found = np.array([[5, 1, 7, -1], [3, 9, 8, 2]], np.int32)
    figures = protocol.compute_metrics(found, labeled(([], [1, 2, 7]), ([], [8])), 3)
    # first: hits at places 2 and 3 of 3 relevant; second: at place 3 of 1 relevant
    gain = 1 / np.log2(3) + 1 / np.log2(4)
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert figures["recall"] == pytest.approx((2 / 3 + 1) / 2)
    assert figures["ndcg"] == pytest.approx((gain / ideal + 1 / np.log2(4)) / 2)
    assert figures["hr"] == figures["p"] == 1
    assert figures["mrr"] == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_the_ideal_is_cut_at_k():
    """Five relevant items, lists of two: NDCG is 1 and recall is two fifths."""
    figures = protocol.compute_metrics(np.array([[1, 2]], np.int32), labeled(([], [1, 2, 3, 4, 5])), 2)
    assert figures["ndcg"] == pytest.approx(1) and figures["recall"] == pytest.approx(0.4)


class InOrder:
    """Return the lowest eligible item numbers."""

    def retrieve(self, requests, k, eligible):
        rows = [np.flatnonzero(row)[:k] for row in eligible]
        return np.array(rows, np.int32), np.zeros((len(rows), k), np.float32)


@pytest.mark.parametrize(("masks", "hits"), [(True, 1.0), (False, 0.0)])
def test_only_the_own_history_is_masked(masks, hits):
    asked = labeled(([0, 1], [2]), ([1, 0], [2]))
    assert protocol.measure(InOrder(), asked, 1, 5, masks, lambda n: None)["hr"] == hits


def test_every_request_is_in_one_batch_with_its_row():
    rng = np.random.default_rng(0)
    rows = [(rng.permutation(40)[: rng.integers(0, 9)].tolist(), [0]) for _ in range(3 * protocol.BATCH // 2)]
    asked = labeled(*rows)
    seen = np.zeros(len(asked), int)
    for at, requests, eligible in protocol.split_batches(asked, 40, True):
        seen[at] += 1
        assert len(requests) <= protocol.BATCH and eligible.shape == (len(at), 40)
        for b, row in enumerate(at):
            history = requests.history.item[b]
            assert history[history >= 0].tolist() == asked.history.row(row).tolist()
            assert np.flatnonzero(~eligible[b]).tolist() == sorted(rows[row][0])
    assert (seen == 1).all()


def test_a_perfect_model_has_perfect_metrics():
    asked = labeled(([9], [1, 3]), ([], [2]), ([1, 2], [0]))

    class Knows:
        def retrieve(self, requests, k, eligible):
            rows = [np.r_[asked.target.row(u), np.full(k, -1)][:k] for u in requests.user]
            return np.array(rows, np.int32), None

    figures = protocol.measure(Knows(), asked, 4, 10, True, lambda n: None)
    assert set(figures) == set(protocol.METRICS) and all(v == pytest.approx(1) for v in figures.values())
