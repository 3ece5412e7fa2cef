"""The spectral filter equals its formula on dense matrices; SVD is a special case."""

import numpy as np
import pytest

from handsell.retrieval.like_matrix import build_like_matrix
from handsell.retrieval.models.spectral import SpectralConfig, SVDConfig, find_leading_directions, fit_spectral, fit_svd
from handsell.testing.planted_taste import build_requests, plant_blocks


@pytest.fixture
def planted(rng):
    return plant_blocks(rng)[0]


def test_directions_are_the_singular_vectors(planted):
    matrix = build_like_matrix(planted)
    directions, squares = find_leading_directions(matrix, 6, seed=0)
    _, values, right = np.linalg.svd(matrix.toarray())
    assert np.allclose(squares, values[:6] ** 2, rtol=5e-3)
    assert np.allclose(np.abs(np.einsum("id,di->d", directions[:, :4], right[:4])), 1, atol=1e-2)
    assert np.allclose(directions.T @ directions, np.eye(6), atol=1e-4)


def test_scores_equal_the_formula(planted):
    config = SpectralConfig(
        embedding_size=80, ridge=0.1, user_exponent=0.3, item_exponent=0.4, answer_exponent=0.2, half_life_days=1e9
    )
    model = fit_spectral(planted, config)
    r = build_like_matrix(planted).toarray().astype(np.float64)
    by_user, by_item = r.sum(axis=1), np.maximum(r.sum(axis=0), 1e-30)
    graph = by_user[:, None] ** -0.3 * r * by_item**-0.4 * (r.sum(axis=0) > 0)
    _, s, vt = np.linalg.svd(graph, full_matrices=False)
    kept = vt.T @ np.diag(s**2 / (s**2 + 0.1 * s[0] ** 2)) @ vt
    history = [(0, 1.0), (4, 2.0), (1, -1.0)]
    given = np.zeros(80)
    given[[0, 4, 1]] = 1.0, 2.0, -1.0
    expected = (given * by_item**-0.4) @ kept * by_item**0.2
    known = r.sum(axis=0) > 0
    found = model.score(build_requests(history), np.arange(80)[None])[0]
    assert np.allclose(found[known], expected[known], atol=1e-4)
    assert np.isnan(found[~known]).all()


def test_a_ridge_reduces_weak_directions_more_than_strong_ones(planted):
    ideal = fit_spectral(planted, SpectralConfig(embedding_size=8, ridge=0.0)).vectors
    soft = fit_spectral(planted, SpectralConfig(embedding_size=8, ridge=0.3)).vectors
    share = np.linalg.norm(soft, axis=0) / np.linalg.norm(ideal, axis=0)
    assert (np.diff(share) < 1e-6).all() and share[0] == pytest.approx((1 / 1.3) ** 0.5, abs=1e-3)


def test_svd_projects_the_history(planted):
    model = fit_svd(planted, SVDConfig(embedding_size=5, half_life_days=1e9))
    _, _, vt = np.linalg.svd(build_like_matrix(planted).toarray())
    scores = model.score(build_requests([(2, 1.0), (6, 1.0)]), np.arange(70)[None])[0]
    directions = model.vectors
    assert np.allclose(scores, (directions[2] + directions[6]) @ directions[:70].T, atol=1e-4)
    assert np.abs(np.einsum("id,di->d", directions[:, :4], vt[:4])).min() > 0.99


def test_old_likes_count_less(planted):
    model = fit_spectral(planted, SpectralConfig(embedding_size=8, half_life_days=1.0))
    asked = build_requests([(0, 1.0), (1, 1.0)])
    even = model.score(asked, np.array([[8, 9]]))[0]
    asked.history.time[0, -2] -= 10 * 86_400_000_000
    late = model.score(asked, np.array([[8, 9]]))[0]
    assert late[0] < even[0] and late[1] == pytest.approx(even[1], rel=0.3)


def test_dimensions_beyond_the_rank_are_zeros(rng):
    events, _ = plant_blocks(rng, users=5, items=16, per_user=4)
    model = fit_spectral(events, SpectralConfig(embedding_size=64))
    assert model.vectors.shape == (16, 64) and not model.vectors[:, 16:].any() and np.isfinite(model.vectors).all()
