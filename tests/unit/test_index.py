"""The vector index: exact where it says so, indifferent to batches, honest about masks and ties."""

import numpy as np
import pytest

from handsell.retrieval.index import SPARE, VectorIndex, fit_index

ITEMS, SIZE = 3000, 16


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def vectors(rng):
    return rng.standard_normal((ITEMS, SIZE)).astype(np.float32)


def naive(query, vectors, allowed, k):
    """Every product in turn, sorted by score, then item."""
    scored = [(-float(np.einsum("kd,d->k", vectors[i : i + 1], query)[0]), i) for i in np.flatnonzero(allowed)]
    return [i for _, i in sorted(scored)[:k]]


@pytest.mark.parametrize("share", [1.0, 0.5, 0.02, 0.002, 0.0])
def test_search_is_exact_at_every_pass_rate(rng, vectors, share):
    index = VectorIndex.exact(vectors)
    queries = rng.standard_normal((3, SIZE)).astype(np.float32)
    allowed = rng.random((3, ITEMS)) < share
    items, _ = index.search(queries, 25, allowed)
    for b in range(3):
        expected = naive(queries[b], vectors, allowed[b], 25)
        assert items[b].tolist() == expected + [-1] * (25 - len(expected))


def test_ties_across_the_cut_go_to_the_lower_number(rng, vectors):
    vectors[rng.choice(ITEMS, 500, replace=False)] = vectors[7]  # far more equals than SPARE
    items, scores = VectorIndex.exact(vectors).search(vectors[[7]], 20, np.ones((1, ITEMS), bool))
    equals = np.flatnonzero((vectors == vectors[7]).all(axis=1))
    best = naive(vectors[7], vectors, np.ones(ITEMS, bool), 20)
    assert items[0].tolist() == best
    assert np.isin(equals[:5], items[0]).all() and SPARE < 480
    assert (scores[0][np.isin(items[0], equals)] == scores[0][np.isin(items[0], equals)][0]).all()


def test_bits_do_not_depend_on_the_batch(rng, vectors):
    index = VectorIndex.exact(vectors)
    queries = rng.standard_normal((9, SIZE)).astype(np.float32)
    allowed = rng.random((9, ITEMS)) < 0.7
    together = index.search(queries, 100, allowed)
    for b in range(9):
        alone = index.search(queries[b : b + 1], 100, allowed[b : b + 1])
        assert np.array_equal(alone[0][0], together[0][b]) and np.array_equal(alone[1][0], together[1][b])
    assert np.array_equal(index.score(queries, together[0]), together[1])


def test_many_queries_at_once_give_the_bits_of_one(rng, vectors):
    index = VectorIndex.exact(vectors)
    queries = rng.standard_normal((150, vectors.shape[1])).astype(np.float32)  # more than one block of them
    queries[[3, 140]] = 0
    allowed = rng.random((150, len(vectors))) < 0.5
    allowed[7] = False
    allowed[8, 5:] = False  # fewer than k
    together = index.search(queries, 9, allowed)
    for b in range(150):
        alone = index.search(queries[b : b + 1], 9, allowed[b : b + 1])
        for a, t in zip(alone, together, strict=True):
            assert np.array_equal(a[0], t[b], equal_nan=True)


def test_zero_vectors_are_unknown_and_zero_queries_find_nothing(vectors):
    vectors[[3, 5]] = 0
    index = VectorIndex.exact(vectors)
    queries = np.stack([np.zeros(SIZE, np.float32), vectors[0]])
    items, _ = index.search(queries, ITEMS, np.ones((2, ITEMS), bool))
    assert (items[0] == -1).all()
    assert not np.isin([3, 5], items[1]).any() and (items[1] != -1).sum() == ITEMS - 2
    assert np.isnan(index.score(queries, np.array([[3, 5], [3, 5]]))).all()


def test_ivf_reaches_its_recall_and_fills_k_under_a_narrow_mask(rng, tmp_path):
    centres = rng.standard_normal((40, SIZE)) * 3
    vectors = (centres[rng.integers(0, 40, 6000)] + rng.standard_normal((6000, SIZE))).astype(np.float32)
    approximate, exact = fit_index(vectors, flat_below=1000), VectorIndex.exact(vectors)
    assert approximate.ivf is not None and approximate.nprobe >= 1
    approximate.save(tmp_path)
    loaded = VectorIndex.load(tmp_path)
    queries, k = vectors[rng.choice(6000, 40)], 100
    everything = np.ones((40, 6000), bool)
    truth, found = exact.search(queries, k, everything)[0], loaded.search(queries, k, everything)[0]
    recall = np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)])
    assert recall > 0.9
    narrow = np.zeros((40, 6000), bool)
    narrow[:, rng.choice(6000, 150, replace=False)] = True
    items, _ = loaded.search(queries, k, narrow)
    assert (items != -1).all() and narrow[np.arange(40)[:, None], items].all()


def test_small_catalogues_stay_exact(vectors):
    assert fit_index(vectors, flat_below=ITEMS).ivf is None
