"""Metrics compared with values computed by hand and with scikit-learn, and their invariants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import ndcg_score

from handsell.core.batches import Ragged
from handsell.evaluation import list_metrics
from handsell.evaluation.metrics import DEFINITIONS, Relevant, gains, hit_rate, mrr, ndcg, recall


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def relevant(*rows: dict[int, float]) -> Relevant:
    return Relevant(
        Ragged.from_rows([list(r) for r in rows], np.int32),
        Ragged.from_rows([list(r.values()) for r in rows], np.float32),
    )


ITEMS = np.array([[5, 3, 9, 1], [7, 2, -1, -1], [1, 2, 3, 4]], np.int32)
WANTED = relevant({3: 2.0, 1: 1.0, 8: 3.0}, {0: 1.0}, {})


def test_gains_are_the_grades_at_their_places():
    assert gains(ITEMS, WANTED).tolist() == [[0, 2, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_a_repeated_item_counts_once_and_an_item_of_another_request_not_at_all():
    items = np.array([[3, 3, 1, 3], [3, 1, 8, 0]], np.int32)
    assert gains(items, relevant({3: 2.0, 1: 1.0, 8: 3.0}, {0: 1.0})).tolist() == [[2, 0, 1, 0], [0, 0, 0, 1]]


def test_padding_is_never_relevant():
    assert not gains(np.full((2, 3), -1, np.int32), relevant({0: 1.0}, {5: 1.0})).any()


def test_relevance_by_hand():
    gain = gains(ITEMS, WANTED)
    np.testing.assert_allclose(recall(gain, WANTED, 4), [2 / 3, 0, np.nan])
    np.testing.assert_allclose(recall(gain, WANTED, 2), [1 / 3, 0, np.nan])
    np.testing.assert_allclose(mrr(gain, WANTED, 4), [1 / 2, 0, np.nan])
    np.testing.assert_allclose(mrr(gain, WANTED, 1), [0, 0, np.nan])
    np.testing.assert_allclose(hit_rate(gain, WANTED, 4), [1, 0, np.nan])
    got = 2 / np.log2(3) + 1 / np.log2(5)
    best = 3 + 2 / np.log2(3) + 1 / 2
    np.testing.assert_allclose(ndcg(gain, WANTED, 4), [got / best, 0, np.nan])
    np.testing.assert_allclose(ndcg(gain, WANTED, 2)[0], (2 / np.log2(3)) / (3 + 2 / np.log2(3)))


def test_ndcg_equals_scikit_learn(rng):
    size, k = 30, 10
    for _ in range(20):
        grades = rng.integers(0, 4, (1, size)).astype(float)
        grades[0, 0] = 1.0
        scores = rng.permutation(size)[None].astype(float)
        order = np.argsort(-scores, axis=1).astype(np.int32)
        wanted = relevant({int(i): float(g) for i, g in enumerate(grades[0]) if g})
        assert ndcg(gains(order, wanted), wanted, k)[0] == pytest.approx(ndcg_score(grades, scores, k=k))


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_a_perfect_order_scores_one_and_nothing_scores_more(seed: int, k: int):
    rng = np.random.default_rng(seed)
    wanted = relevant(
        *[{int(i): float(rng.integers(1, 5)) for i in rng.choice(40, 6, replace=False)} for _ in range(4)]
    )
    best = np.stack([wanted.item.row(b)[np.argsort(-wanted.grade.row(b))] for b in range(4)])
    np.testing.assert_allclose(ndcg(gains(best, wanted), wanted, k), 1.0)
    drawn = np.stack([rng.permutation(40)[:10] for _ in range(4)]).astype(np.int32)
    gain = gains(drawn, wanted)
    for metric in (ndcg, recall, mrr, hit_rate):
        value = metric(gain, wanted, k)
        assert ((value >= 0) & (value <= 1 + 1e-12)).all()
    assert (recall(gain, wanted, k) <= recall(gain, wanted, k + 1)).all()


def test_a_batch_equals_its_rows(rng):
    wanted = relevant(*[{int(i): 1.0 for i in rng.choice(50, n, replace=False)} for n in (0, 1, 7, 20)])
    items = np.stack([rng.permutation(50)[:12] for _ in range(4)]).astype(np.int32)
    together = ndcg(gains(items, wanted), wanted, 10)
    alone = [
        ndcg(gains(items[b : b + 1], wanted.take(np.array([b]))), wanted.take(np.array([b])), 10)[0] for b in range(4)
    ]
    np.testing.assert_allclose(together, alone)


def test_relevant_rejects_grades_that_are_not_positive():
    with pytest.raises(ValueError, match="grades must be > 0"):
        relevant({1: 0.0})
    with pytest.raises(ValueError, match="same offsets"):
        Relevant(Ragged.from_rows([[1], [2]]), Ragged.from_rows([[1.0, 1.0]], np.float32))


def test_where_keeps_rows():
    kept = WANTED.where(WANTED.item.values == 0)
    assert kept.item.lengths.tolist() == [0, 1, 0] and kept.grade.row(1).tolist() == [1.0]


def test_coverage_and_gini_by_hand():
    catalog = np.array([True, True, True, True, False])
    lists = np.array([[0, 1], [0, -1]], np.int32)
    assert list_metrics.coverage(lists, catalog) == 2 / 4
    # exposures 0, 0, 1, 2: (−3·0 −1·0 +1·1 +3·2) / (4·3)
    assert list_metrics.gini(lists, catalog) == pytest.approx(7 / 12)
    assert list_metrics.gini(np.array([[0, 1, 2, 3]], np.int32), catalog) == 0
    assert np.isnan(list_metrics.gini(np.full((1, 2), -1, np.int32), catalog))


def test_diversity_equals_the_mean_over_all_pairs(rng):
    raw = rng.random((12, 5)) * (rng.random((12, 5)) < 0.5)
    raw[3] = 0  # an item without tags
    norm = np.linalg.norm(raw, axis=1, keepdims=True)
    tags = np.divide(raw, norm, out=np.zeros_like(raw), where=norm > 0)
    items = np.stack([rng.permutation(12)[:5] for _ in range(6)]).astype(np.int32)
    items[5, 2:] = -1
    items[4, 1:] = -1
    expected = []
    for row in items:
        v = tags[row[row >= 0]]
        pairs = [(v[i] @ v[j]) for i in range(len(v)) for j in range(i)]
        expected.append(1 - np.mean(pairs) if pairs else np.nan)
    np.testing.assert_allclose(list_metrics.intra_list_diversity(items, sparse.csr_matrix(tags)), expected, atol=1e-12)


def test_novelty_by_hand():
    surprise = list_metrics.self_information(np.array([5, 1, 0, 0]))  # smoothed 6, 2, 1, 1 of 10
    np.testing.assert_allclose(surprise, -np.log2([0.6, 0.2, 0.1, 0.1]))
    got = list_metrics.novelty(np.array([[0, 3], [2, -1], [-1, -1]], np.int32), surprise)
    np.testing.assert_allclose(got, [-(np.log2(0.6) + np.log2(0.1)) / 2, -np.log2(0.1), np.nan])


def test_serendipity_counts_hits_outside_the_popularity_list():
    items = np.array([[1, 2, 3, 4]], np.int32)
    gain = gains(items, relevant({1: 1.0, 3: 1.0}))
    assert list_metrics.serendipity(items, gain, np.array([[1, 9, 8, 7]], np.int32)).tolist() == [1 / 4]
    assert list_metrics.serendipity(items, gain, np.array([[1, 3, 8, 7]], np.int32)).tolist() == [0]


def test_every_definition_cites_a_source_that_exists():
    references = (Path(__file__).parents[2] / "docs" / "references.bib").read_text(encoding="utf-8")
    missing = [d.source for d in DEFINITIONS.values() if f"{{{d.source}," not in references]
    assert not missing, f"add to docs/references.bib: {missing}"
