"""Sequential rules, against values computed by hand, and a planted chain."""

import numpy as np
import pytest
from scipy import sparse
from test_sessions import log

from handsell.retrieval.index.item_to_item import keep_strongest
from handsell.retrieval.models.transitions import TransitionsConfig, fit_transitions
from handsell.testing.planted_taste import allow_all, build_requests

PLAIN = {
    "steps": 2, "distance_half_life": 1.0, "backward": 0.0, "repeat": 0.0, "position_half_life": 1.0,
    "half_life_days": 1e9, "length_exponent": 0.0, "source_exponent": 0.0, "popularity_exponent": 0.0, "shrinkage": 0.0,
}  # fmt: skip
LINES = ((0, 0, 0), (0, 1, 1), (0, 2, 2), (0, 3, 3), (1, 0, 10), (1, 2, 11))


def rules(*lines, **options) -> np.ndarray:
    return fit_transitions(log(*lines, n_items=4), TransitionsConfig(**{**PLAIN, **options})).lists.toarray()


def test_rules_weight_pairs_by_distance():
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[1, 2] = expected[2, 3] = 1
    expected[0, 2], expected[1, 3] = 0.5 + 1, 0.5
    assert np.array_equal(rules(*LINES), expected)


def test_each_setting_has_its_effect():
    plain = rules(*LINES)
    assert np.array_equal(rules(*LINES, backward=0.5), plain + 0.5 * plain.T)
    assert np.array_equal(rules(*LINES, repeat=0.5), plain + np.diag([1, 0.5, 1, 0.5]))
    assert rules(*LINES, steps=1)[0].tolist() == [0, 1, 1, 0]
    assert rules(*LINES, length_exponent=1.0)[0] == pytest.approx([0, 1 / 4, 1 / 8 + 1 / 2, 0])
    count = np.array([2, 1, 2, 1]) + 3.0  # events per item, shrunk
    assert np.allclose(rules(*LINES, source_exponent=1.0, shrinkage=3.0), plain / count[:, None])
    assert np.allclose(rules(*LINES, popularity_exponent=0.5, shrinkage=3.0), plain / np.sqrt(count))
    aged = rules(*LINES[:4], (1, 0, 1440), (1, 2, 1441), half_life_days=1.0)
    assert aged[0] == pytest.approx([0, 0.5, 0.25 + 1, 0])


def test_the_last_item_has_the_largest_weight():
    model = fit_transitions(log(*LINES), TransitionsConfig(**PLAIN))
    asked = build_requests([(1, 1.0), (0, 1.0)])
    assert model.score(asked, np.arange(4)[None])[0].tolist()[1:] == [1.0, 1.5 + 0.5 * 1, 0.5 * 0.5]


def test_a_planted_chain_is_followed_forwards(rng):
    """Every user follows 0 → 1 → … → 9 from their own start."""
    starts = rng.integers(0, 7, 60)
    lines = [(u, int(start) + n, 100 * u + n) for u, start in enumerate(starts) for n in range(4)]
    model = fit_transitions(log(*lines), TransitionsConfig(**{**PLAIN, "backward": 0.6}))
    asked = build_requests(*([(i, 1.0)] for i in range(9)))
    items, _ = model.retrieve(asked, 1, allow_all(asked, 10))
    assert items[:, 0].tolist() == list(range(1, 10))


def test_the_strongest_rules_of_a_row_with_ties_by_item_number():
    pairs = sparse.csr_matrix(np.array([[1.0, 3.0, 1.0, -2.0], [0, 0, 0, 5.0], [0, 0, 0, 0], [2.0, 2.0, 2.0, 2.0]]))
    kept = keep_strongest(pairs, 2).toarray()
    assert kept.tolist() == [[1, 3, 0, 0], [0, 0, 0, 5], [0] * 4, [2, 2, 0, 0]]
