"""The compiled kernels of lists of items and of sessions give what the NumPy code gives."""

from dataclasses import replace

import numpy as np
import pytest

from handsell.core.batches import NONE, Ragged, Seen
from handsell.core.kernels import compiled
from handsell.core.units import DAY_US, MINUTE_US
from handsell.eligibility import listed_items
from handsell.retrieval import sessions
from handsell.testing.small_catalog import draw_requests, draw_snapshot
from kernel_results import check_equal
from server_programs import report_missing


@pytest.fixture(autouse=True)
def require_kernels_of_lists():
    if compiled is None:
        report_missing("the kernels were not built: no C compiler at installation")


def draw_rows(rng, rows: int, lowest: int, highest: int) -> Ragged:
    """Rows of up to 30 numbers, one of them empty."""
    return Ragged.from_rows([rng.integers(lowest, highest, size * (b != 1)) for b, size in enumerate([30] * rows)])


@pytest.mark.parametrize("by_item", [False, True])
def test_listed_items_are_cleared(rng, monkeypatch, by_item):
    listed = draw_rows(rng, 4, -1, 60)  # some beyond the 50 columns
    items = rng.integers(-1, 60, (4, 50)).astype(np.int32) if by_item else None  # an item may occur twice
    start = rng.random((4, 50)) < 0.8
    if items is not None:
        start &= items != NONE

    def clear():
        flags = start.copy()
        listed_items.clear_listed(flags, listed, items)
        return (flags,)

    check_equal(monkeypatch, listed_items, clear)
    (flags,) = clear()
    assert (flags[1] == start[1]).all() and (flags[0] != start[0]).any()


@pytest.mark.parametrize("by_item", [False, True])
@pytest.mark.parametrize("after", [(0, 0, 0, 0), (DAY_US, 0, np.iinfo(np.int64).max, 3 * DAY_US)])
def test_repeats_are_cleared(rng, monkeypatch, by_item, after):
    seen = draw_rows(rng, 4, 0, 50)
    time = np.full(4, 9 * DAY_US)
    seen = Seen(seen, Ragged(rng.integers(0, 9 * DAY_US, len(seen.values)), seen.offsets))
    items = np.stack([rng.permutation(50) for _ in range(4)]).astype(np.int32) if by_item else None

    def clear():
        flags = np.ones((4, 50), bool)
        listed_items.clear_repeats(flags, seen, time, np.array(after, np.int64), items)
        return (flags,)

    check_equal(monkeypatch, listed_items, clear)
    assert clear()[0].all() != any(after)


def test_available_items(rng, monkeypatch):
    catalog = draw_snapshot(rng, items=80)
    published, expires = catalog.published.copy(), catalog.expires.copy()
    published[::3], expires[1::3] = 5 * DAY_US, 5 * DAY_US
    catalog = replace(catalog, published=published, expires=expires, available=rng.random(80) < 0.8)
    items, time = rng.integers(-1, 80, (3, 40)).astype(np.int32), np.array([4, 5, 6]) * DAY_US
    check_equal(monkeypatch, listed_items, lambda: (listed_items.flag_available(catalog, items, time),))
    with pytest.raises(ValueError, match="known items"):
        listed_items.flag_available(catalog, items + 1, time)


@pytest.mark.parametrize("gap", [0.5, 60.0, 1e6])
@pytest.mark.parametrize("least", [0.0, 0.7])
def test_current_sessions(rng, monkeypatch, gap, least):
    requests = draw_requests(rng, draw_snapshot(rng, items=30), 12)
    shape = requests.history.item.shape
    time = np.sort(rng.integers(0, 300 * MINUTE_US, shape), axis=1)
    history = replace(
        requests.history,
        item=rng.integers(-1, 35, shape).astype(np.int32),
        time=time,
        weight=rng.choice(np.array([-1, 0, 0.5, 0.7, 1], np.float32), shape),
    )
    requests = replace(requests, history=history, time=np.full(12, 299 * MINUTE_US))
    check_equal(monkeypatch, sessions, lambda: (sessions.find_current_sessions(requests, 30, gap, least),))
    found = sessions.find_current_sessions(requests, 30, gap, least)
    assert (found >= 0).any() and (found < 30).all()
