"""Item activity by day: exact on every day, from rows on days of change only."""

import numpy as np
import pytest

from handsell.core.units import DAY_US
from handsell.features.item import (
    DailyValues,
    ItemDays,
    compute_item_rows,
    count_days,
    get_untouched_values,
    merge_days,
)
from handsell.features.registry import find_features

ITEM_FEATURES = tuple(find_features("item"))


def naive(item: int, day: int, item_of, time, weight, acted) -> np.ndarray:
    """The values of one item at the start of one day, counted event by event."""

    def count(days, what):
        return sum(
            1 for n in range(len(time))
            if item_of[n] == item and what[n] and day - days <= time[n] // DAY_US < day
        )  # fmt: skip

    positive = weight > 0
    one, seven, month = (count(d, positive) for d in (1, 7, 28))
    events = count(28, acted)
    total, ever = count(10_000, positive), count(10_000, acted | positive)
    if not ever:
        return get_untouched_values()
    trend = np.log((seven + 1) / (month / 4 + 1))
    return np.array([one, seven, month, events, month / events if events else np.nan, trend, total], np.float32)


def log(rng, n=150, items=4, days=50):
    time = np.sort(rng.integers(20_000 * DAY_US, (20_000 + days) * DAY_US, n))
    weight = rng.choice([-0.5, 0.0, 1.0], n)
    return rng.integers(0, items, n), time, weight, weight != 0


def test_every_day_equals_a_count_event_by_event(rng):
    events = log(rng)
    values = DailyValues.of(compute_item_rows(merge_days(count_days(*events))), np.zeros((5, 0), np.float32))
    for day in range(19_998, 20_085):
        at = values.gather(np.arange(5)[None], np.array([day * DAY_US + 17]))[0]
        for item in range(5):
            np.testing.assert_allclose(at[item], naive(item, day, *events), rtol=1e-6, err_msg=f"{item} on {day}")


def test_parts_merge_to_the_whole(rng):
    item, time, weight, acted = log(rng)
    whole = compute_item_rows(merge_days(count_days(item, time, weight, acted)))
    mine = rng.random(len(item)) < 0.5
    parts = [count_days(item[m], time[m], weight[m], acted[m]) for m in (mine, ~mine)]
    columns = (np.concatenate([getattr(part, f) for part in parts]) for f in ("item", "day", "values"))
    together = compute_item_rows(merge_days(ItemDays(*columns)))
    np.testing.assert_array_equal(whole.values, together.values)
    np.testing.assert_array_equal(whole.day, together.day)


def test_rows_stand_only_on_days_of_change():
    rows = compute_item_rows(
        merge_days(count_days(np.array([3]), np.array([100 * DAY_US]), np.ones(1), np.ones(1, bool)))
    )
    assert rows.day.tolist() == [101, 102, 108, 129]
    assert rows.values[:, ITEM_FEATURES.index("item_positives_1d")].tolist() == [1, 0, 0, 0]
    assert rows.values[:, ITEM_FEATURES.index("item_positives_7d")].tolist() == [1, 1, 0, 0]
    assert rows.values[:, ITEM_FEATURES.index("item_positives_28d")].tolist() == [1, 1, 1, 0]
    assert rows.values[:, ITEM_FEATURES.index("item_positives_total")].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("n", [0, 1])
def test_an_item_nobody_touched_and_no_item(n):
    events = (np.zeros(n, int), np.full(n, 100 * DAY_US), np.ones(n), np.ones(n, bool))
    values = DailyValues.of(compute_item_rows(merge_days(count_days(*events))), np.array([[7.0], [8.0]], np.float32))
    at = values.gather(np.array([[1, -1]]), np.array([200 * DAY_US]))[0]
    np.testing.assert_array_equal(at[0], [*get_untouched_values(), 8.0])
    assert np.isnan(at[1]).all()
