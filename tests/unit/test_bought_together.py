"""Complements, against values computed by hand: lift with shrinkage and support, and substitutes."""

from math import log

import numpy as np
import pytest
from test_sessions import log as events

from handsell.retrieval.models.bought_together import BoughtTogetherConfig, fit_bought_together
from handsell.testing.planted_taste import allow_all, build_requests

DAY = 24 * 60
BASKETS = ([0, 1], [0, 1, 1], [0, 2], [2, 3], [4])  # the last holds one item: it says nothing of pairs


def baskets(*rows: list[int], weight=1.0):
    return [(0, item, 2 * DAY * n + m, weight) for n, row in enumerate(rows) for m, item in enumerate(row)]


def strengths(lines, **options) -> np.ndarray:
    config = BoughtTogetherConfig(**{"shrinkage": 1.0, "min_support": 1, **options})
    return fit_bought_together(events(*lines, n_items=5), config).lists.toarray()


def test_strength_is_the_shrunk_log_of_observed_over_expected():
    found = strengths(baskets(*BASKETS))
    assert found[0, 1] == found[1, 0] == pytest.approx(log((2 + 1) / (3 * 2 / 4 + 1)))
    assert found[2, 3] == pytest.approx(log((1 + 1) / (2 * 1 / 4 + 1)))
    assert found[0, 2] == 0, "together less often than chance has it: 1 of an expected 3 · 2 / 4"
    assert not found.diagonal().any() and not found[4].any()


def test_a_pair_needs_support():
    assert np.count_nonzero(strengths(baskets(*BASKETS), min_support=2)) == 2


def test_a_basket_ends_with_the_session():
    # 0 and 3 are a minute apart at the border of two users, and days apart within one
    assert strengths([(0, 0, 0), (0, 1, 1), (1, 3, 2), (1, 2, 3)])[0, 3] == 0


def shop():
    """Kettles 0 and 1 are compared, one of them is bought with descaler 2; 3 is bought with 4, and 5 with 6."""
    lines = []
    for visit in range(20):
        at, kettle = 2 * DAY * visit, visit % 2
        lines += [(0, 0, at), (0, 1, at + 1), (0, kettle, at + 2, 3.0)]
        lines += [(0, 2, at + 3, 3.0)] if visit % 5 else [(0, 1 - kettle, at + 3, 3.0)]
        lines += [(1, 3, at, 3.0), (1, 4, at + 1, 3.0), (2, 5, at, 3.0), (2, 6, at + 1, 3.0)]
        lines += [(3, 5, at), (3, 6, at + 1)]
    return events(*sorted(lines, key=lambda line: (line[0], line[2])), n_items=7)


def test_only_events_of_min_weight_are_in_the_basket():
    model = fit_bought_together(shop(), BoughtTogetherConfig(min_weight=2.0, substitutes=0.0))
    asked = build_requests([(3, 3.0), (0, 1.0)], [(0, 1.0)])
    items, _ = model.retrieve(asked, 1, allow_all(asked, 7))
    assert items[:, 0].tolist() == [4, 2], "the basket of the first is 3; the second has looked at 0 only"


def test_items_viewed_together_are_substitutes_and_rank_lower():
    lines = shop()
    both = fit_bought_together(lines, BoughtTogetherConfig(min_weight=0.0, substitutes=0.0)).lists.toarray()
    assert both[0, 1] > both[0, 2], "all interest taken alike, the other kettle is nearest"
    bought = fit_bought_together(lines, BoughtTogetherConfig(min_weight=2.0, substitutes=1.0)).lists.toarray()
    plain = fit_bought_together(lines, BoughtTogetherConfig(min_weight=2.0, substitutes=0.0)).lists.toarray()
    off = log((20 + 1) / (20 * 20 / 40 + 1))  # both kettles are in each of 20 sessions of looking, out of 40
    assert bought[0, 1] == pytest.approx(max(plain[0, 1] - off, 0))
    assert bought[0, 2] == plain[0, 2] > bought[0, 1]
