"""Whether lines are in the order of time: generated histories, the same lines in other orders, and too few of them."""

from collections import Counter

import numpy as np
import pytest
from benchmarks.protocols.line_order import estimate_mean, find_line_order

BLOCKS, PER_BLOCK, LENGTH = 12, 25, 20
ITEMS = BLOCKS * PER_BLOCK


def walk(rng: np.random.Generator, lines: int, length: int = LENGTH) -> list[np.ndarray]:
    """Lines of distinct items of people who stay with a block of items for a while, then move on to another."""
    found = []
    for _ in range(lines):
        block = np.cumsum(rng.random(3 * length) < 0.15) * int(rng.integers(1, BLOCKS)) + rng.integers(BLOCKS)
        row = block % BLOCKS + BLOCKS * rng.integers(PER_BLOCK, size=3 * length)
        found.append(np.array(list(dict.fromkeys(row.tolist()))[:length], np.int32))
    return found


def sort_by(lines, key) -> list[np.ndarray]:
    return [np.array(sorted(line.tolist(), key=key), np.int32) for line in lines]


def shuffle(rng, lines) -> list[np.ndarray]:
    return [rng.permutation(line) for line in lines]


def test_histories_are_in_the_order_of_time(rng):
    found = find_line_order(walk(rng, 400), ITEMS)
    assert found.is_time and found.lines > 150 and str(found).startswith("order of the lines: time (recency ")
    assert found.recency.low > 0.05 and found.fixed.high < 0.1


def test_shuffled_lines_have_no_order():
    """The interval covers chance: no false alarm, and 0 is inside, for each of 40 orders."""
    lines = walk(np.random.default_rng(1), 200)
    for seed in range(40):
        found = find_line_order(shuffle(np.random.default_rng(seed), lines), ITEMS, seed)
        assert not found.is_time and found.recency.low < 0 < found.recency.high and found.fixed.mean < 0.05


def test_sorted_lines_have_no_order(rng):
    """Even where neighbors are alike: items of a block are numbered one after the other, or sorted with some noise."""
    lines = walk(rng, 600)
    count = Counter(int(item) for line in lines for item in line)
    keys = {
        "number": lambda item: item,
        "name": str,
        "block": lambda item: (item % BLOCKS, item),
        "popularity": lambda item: (count[item], item),
        "number, with noise": lambda item: item + ITEMS / 12 * rng.standard_normal(),
    }
    for name, key in keys.items():
        found = find_line_order(sort_by(lines, key), ITEMS)
        assert found.fixed.low > 0.5 and not found.is_time, name
    alike = find_line_order(sort_by(lines, keys["block"]), ITEMS)
    assert alike.recency.low > 0 and "places depend on the item" in str(alike)


def test_the_order_of_a_hash_table_is_none(rng):
    """It depends on the length of the line, by which lines are compared."""
    lines = [line for length in (5, 12, 40, 100) for line in walk(rng, 300, length)]
    found = find_line_order([np.array(list({7 * int(item) for item in line}), np.int32) // 7 for line in lines], ITEMS)
    assert not found.is_time and found.fixed.low > 0.5


@pytest.mark.parametrize("lines", [0, 1, 2, 3, 8])
def test_few_lines_do_not_tell(lines):
    for seed in range(10):
        found = find_line_order(walk(np.random.default_rng(seed), lines), ITEMS, seed)
        assert not found.is_time and found.recency.low <= 0


def test_lines_that_agree_by_chance_do_not_tell():
    """Without a spread between lines, the interval is that of orders drawn by chance."""
    assert estimate_mean([(1.0, 3)] * 3).low < 0 < estimate_mean([(1.0, 3)] * 60).low
    assert estimate_mean([None, (1.0, 9)]).low == -1 and estimate_mean([]).high == 1


def test_short_lines_do_not_tell(rng):
    found = find_line_order(walk(rng, 500, length=3), ITEMS)
    assert not found.is_time and found.lines == 0 and "none, recency is not shown to be above 0" in str(found)


def test_a_repeated_item_counts_once(rng):
    lines = walk(rng, 300)
    again = [np.concatenate([line[-3:-1], line]) for line in lines]
    assert find_line_order(again, ITEMS) == find_line_order(lines, ITEMS)
    assert find_line_order([np.zeros(9, np.int32)] * 50, ITEMS).lines == 0
