"""Sparse scores: top items and lookup, against dense arrays."""

import numpy as np
import pytest
from scipy import sparse

from handsell.retrieval.sparse_rows import load_rows, read_entries, save_rows, select_top_entries

ITEMS = 40


@pytest.fixture
def found(rng) -> sparse.csr_matrix:
    dense = np.where(rng.random((7, ITEMS)) < 0.3, rng.integers(-3, 9, (7, ITEMS)), 0).astype(np.float32)
    dense[3] = 0  # nothing found
    rows = sparse.csr_matrix(dense)
    rows.sort_indices()
    return rows


def test_top_items_are_positive_eligible_and_sorted_with_ties_by_number(found, rng):
    eligible = rng.random((7, ITEMS + 5)) < 0.7
    items, scores = select_top_entries(found, 6, eligible)
    for b, row in enumerate(found.toarray()):
        want = sorted((-s, i) for i, s in enumerate(row.tolist()) if s > 0 and eligible[b, i])[:6]
        kept = items[b] != -1
        assert list(zip(items[b][kept].tolist(), scores[b][kept].tolist(), strict=True)) == [(i, -s) for s, i in want]
        assert np.isnan(scores[b][~kept]).all()


def test_entries_are_those_of_the_dense_rows(found, rng):
    known = rng.random(ITEMS) < 0.8
    items = rng.integers(-1, ITEMS + 3, (7, 25)).astype(np.int32)
    got = read_entries(found, items, known)
    dense = found.toarray()
    for b in range(7):
        for item, score in zip(items[b].tolist(), got[b].tolist(), strict=True):
            if 0 <= item < ITEMS and known[item]:
                assert score == dense[b, item]
            else:
                assert np.isnan(score)


@pytest.mark.parametrize("shape", [(3, 0), (0, 5), (3, 5)])
def test_known_items_without_entry_have_score_zero(shape):
    none = sparse.csr_matrix(shape, dtype=np.float32)
    items = np.tile(np.array([[0, -1]], np.int32), (shape[0], 1))
    got = read_entries(none, items, np.ones(shape[1], bool))
    assert got.shape == items.shape and np.isnan(got[:, 1]).all()
    assert (got[:, 0] == 0).all() or shape[1] == 0


def test_loaded_rows_equal_saved_ones(found, tmp_path):
    save_rows(found, tmp_path)
    assert (load_rows(tmp_path, ITEMS) != found).nnz == 0
