"""Availability by spans of time equals comparing times, also at the time of a change."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.catalog.snapshot import ALWAYS, NEVER
from handsell.eligibility.availability import CACHED_SPANS, Availability
from handsell.testing.small_catalog import draw_snapshot

MOMENT = st.integers(0, 12)


@settings(deadline=None)
@given(
    windows=st.lists(st.tuples(st.none() | MOMENT, st.none() | MOMENT, st.booleans()), min_size=1, max_size=12),
    times=st.lists(st.integers(-2, 14), min_size=1, max_size=30),
)
def test_availability_equals_comparing_times(windows, times):
    shelf = draw_snapshot(np.random.default_rng(0), len(windows))
    shelf = replace(
        shelf,
        published=np.array([ALWAYS if begin is None else begin for begin, _, _ in windows], np.int64),
        expires=np.array([NEVER if end is None else end for _, end, _ in windows], np.int64),
        available=np.array([open_ for _, _, open_ in windows]),
    )
    availability, time = Availability(shelf), np.array(times, np.int64)
    expected = (shelf.published <= time[:, None]) & (time[:, None] < shelf.expires) & shelf.available
    for _ in range(2):  # found, then remembered
        found = availability.at(time)
        np.testing.assert_array_equal(found, expected)
        found[:] = False  # the caller's to change
    assert len(availability._rows) <= CACHED_SPANS
