"""EASE: the weights equal the closed form, also where lists or the catalog are cut."""

import numpy as np
import pytest

from handsell.retrieval.like_matrix import build_like_matrix
from handsell.retrieval.models.ease import EASEConfig, fit_ease
from handsell.testing.planted_taste import plant_blocks


@pytest.fixture
def planted(rng):
    return plant_blocks(rng)[0]


def by_the_book(r: np.ndarray, reg: float) -> np.ndarray:
    inverse = np.linalg.inv(r.T @ r + reg * np.eye(r.shape[1]))
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def test_weights_equal_the_closed_form(planted):
    r = build_like_matrix(planted).toarray().astype(np.float64)
    model = fit_ease(planted, EASEConfig(reg=20.0))
    assert np.allclose(model.neighbors.toarray(), by_the_book(r, 20.0), atol=1e-5)


def test_the_weights_minimize_the_loss(planted, rng):
    """|R - RB|² + reg |B|² with a zero diagonal: no small change of B is better."""
    r = build_like_matrix(planted).toarray().astype(np.float64)
    b = fit_ease(planted, EASEConfig(reg=20.0)).neighbors.toarray().astype(np.float64)

    def loss(weights):
        return ((r - r @ weights) ** 2).sum() + 20.0 * (weights**2).sum()

    for _ in range(10):
        change = rng.standard_normal(b.shape) * 1e-3
        np.fill_diagonal(change, 0)
        assert loss(b + change) > loss(b)


def test_degree_scaling_and_answer_exponent(planted):
    r = build_like_matrix(planted).toarray().astype(np.float64)
    known = r.sum(axis=0) > 0
    r = r[:, known]
    by_user, by_item = r.sum(axis=1), r.sum(axis=0)
    graph = by_user[:, None] ** -0.25 * r * by_item**-0.5
    reg = 20.0 * (graph**2).sum() / (r**2).sum()
    expected = by_item[:, None] ** -0.5 * by_the_book(graph, reg) * by_item**0.3
    model = fit_ease(planted, EASEConfig(reg=20.0, user_exponent=0.25, item_exponent=0.5, answer_exponent=0.3))
    assert np.allclose(model.neighbors[known][:, known].toarray(), expected, atol=1e-5)


def test_lists_keep_the_strongest_weights_of_either_sign(planted):
    whole = fit_ease(planted, EASEConfig()).neighbors.toarray()
    cut = fit_ease(planted, EASEConfig(neighbors=5)).neighbors.toarray()
    for full, row in zip(whole, cut, strict=True):
        assert np.count_nonzero(row) <= 5
        assert (row[row != 0] == full[row != 0]).all()
        assert np.abs(row[row != 0]).min(initial=9) >= np.abs(full[row == 0]).max(initial=0) or not row.any()


def test_above_max_items_only_the_most_liked_are_known(planted):
    popularity = build_like_matrix(planted).toarray().sum(axis=0)
    model = fit_ease(planted, EASEConfig(max_items=10))
    assert model.touched.sum() == 10
    assert popularity[model.touched].min() >= popularity[~model.touched].max()
    assert model.neighbors[~model.touched].nnz == model.neighbors[:, ~model.touched].nnz == 0
