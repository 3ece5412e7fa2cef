"""Fold-in at request time is the solver's own step, and the normal equations hold."""

import numpy as np
from scipy import sparse

from handsell.core.config.retrieval import ALSConfig
from handsell.retrieval.als import ALSEncoder, confidence, fit_als
from planted_taste import blocks, request


def test_folding_in_equals_the_users_side_of_the_solver(rng):
    from implicit.cpu.als import AlternatingLeastSquares

    vectors = rng.standard_normal((20, 6)).astype(np.float32)
    gram = vectors.T.astype(np.float64) @ vectors + 0.1 * np.eye(6)
    encoder = ALSEncoder(vectors, gram, alpha=5.0, half_life_days=1e9)
    history = [(3, 1.0), (7, 2.0), (3, 1.0), (9, -1.0)]
    folded = encoder.encode(request(history))[0]
    weight = np.array([2.0, 2.0, -1.0])  # of items 3, 7, 9
    row = sparse.csr_matrix(
        ((np.sign(weight) * confidence(weight, 5.0)).astype(np.float32), [3, 7, 9], [0, 3]), shape=(1, 20)
    )
    solver = AlternatingLeastSquares(factors=6, regularization=0.1, num_threads=1)
    solver.item_factors = vectors
    assert np.allclose(folded, solver.recalculate_user(0, row), atol=1e-4)


def test_old_likes_count_less(rng):
    vectors = np.eye(4, dtype=np.float32)
    encoder = ALSEncoder(vectors, vectors.T @ vectors + 0.1 * np.eye(4), alpha=5.0, half_life_days=1.0)
    asked = request([(0, 1.0), (1, 1.0)])
    asked.history.time[0, -2] -= 10 * 86_400_000_000
    old, new = encoder.encode(asked)[0, :2]
    assert 0 < old < new


def test_the_same_seed_gives_the_same_factors_and_untouched_items_stay_zero(rng):
    events, _ = blocks(rng)
    one, two = (fit_als(events, ALSConfig(embedding_size=4, seed=3)) for _ in range(2))
    assert np.array_equal(one.vectors, two.vectors)
    assert not one.vectors[-8:].any() and one.vectors[:60].any(axis=1).mean() > 0.9
