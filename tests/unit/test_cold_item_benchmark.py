"""The benchmark of cold items: after which step they are gone, and what moving them up costs."""

import numpy as np
import pytest
from benchmarks.quality.cold_items import (
    FACTORS,
    MARGINS,
    ScoredWindow,
    count_hits,
    count_losses,
    find_used,
    price_factors,
    price_margins,
)

from handsell.core.batches import Ragged
from handsell.core.units import DAY_US
from handsell.evaluation.metrics import Relevant
from handsell.features.item import DailyValues, ItemDays

ROWS, K, COLD_PLACE = 12, 60, 30
COLD = np.arange(200) == 150


@pytest.fixture
def scored():
    """Every request likes its first candidate and the cold item 150, whose raw score is 2.6 below that of place 10."""
    item = np.tile(np.arange(K, dtype=np.int32), (ROWS, 1))
    item[:, COLD_PLACE] = 150
    item[:, -1] = -1
    raw = np.tile(-np.arange(K, dtype=np.float32) / 8, (ROWS, 1))
    raw[:, -1] = np.nan
    look = (np.arange(K) < 40) & (item >= 0)
    look[0, COLD_PLACE] = False
    rows = Ragged.from_rows([[0, 150, 199] if b == 1 else [0, 150] for b in range(ROWS)])  # 199 is not retrieved
    relevant = Relevant(rows, Ragged(np.ones(len(rows.values), np.float32), rows.offsets))
    cold = COLD | (np.arange(200) == 199)
    used = np.zeros(len(rows.values), bool)
    used[1] = True  # item 150 of the first request
    return ScoredWindow(item, raw, raw + 10, look, 25, cold, used, relevant, np.arange(ROWS))


def test_the_relevant_cold_items_are_counted_after_each_step(scored):
    assert [row["count"] for row in count_losses(scored)] == [ROWS + 1, ROWS, ROWS - 1, 0, 0]


def test_cold_items_with_events_since_the_fit_are_counted_apart(scored):
    assert [row["with events since the fit"] for row in count_losses(scored)] == [1, 1, 0, 0, 0]


def test_an_item_is_used_once_it_has_positive_events_before_the_day_of_the_request():
    days = ItemDays(np.array([3], np.int32), np.array([10]), np.array([[1.0] * 6 + [2.0]], np.float32))
    values = DailyValues.of(days, np.zeros((5, 0), np.float32))
    rows = Ragged.from_rows([[3], [3, 4]])
    relevant = Relevant(rows, Ragged(np.ones(3, np.float32), rows.offsets))
    time = np.array([9, 10], np.int64) * DAY_US
    assert find_used(relevant, time, values).tolist() == [False, True, False]


def test_hits_are_those_of_a_place_and_of_the_best_cold_item(scored):
    found = {row["item"]: row["relevant"] for row in count_hits(scored)}
    assert found == {"place 1": 1, "place 10": 0, "place 25": 0, "best cold item": 1}


def test_a_margin_that_lifts_cold_items_into_the_list_finds_them(scored):
    rows = {row["margin"]: row for row in price_margins(scored)}
    assert tuple(rows) == MARGINS
    assert rows[0.0]["cold recall@10"] == rows[2.0]["cold recall@10"] == 0 and rows[0.0]["difference"] == 0
    assert rows[3.0]["cold recall@10"] == (ROWS - 0.5) / ROWS and rows[3.0]["difference"] > 0
    assert [rows[margin]["cold items in a list"] for margin in (2.0, 3.0)] == [0, 1]


def test_a_factor_lifts_them_in_the_fused_order(scored):
    """Fused scores are 10 at place 1, 8.9 at place 10 and 6.25 of the cold item: 8.1 and 9.4 with these factors."""
    rows = {row["factor"]: row for row in price_factors(scored)}
    assert tuple(rows) == FACTORS
    assert [rows[factor]["cold items in a list"] for factor in (1.0, 1.3, 1.5)] == [0, 0, 1]
