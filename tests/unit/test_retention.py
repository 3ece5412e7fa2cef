"""Trimming keeps every row that somebody still reads, at any combination of positions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handsell.core.units import DAY_US
from handsell.maintenance.retention import Included, Positions, compute_impressions_window_us, compute_limits

OFFSET = st.integers(0, 40)
INCLUDED = st.builds(Included, OFFSET, OFFSET)
BUNDLES = st.lists(INCLUDED, max_size=4)
POSITIONS = st.builds(
    Positions, OFFSET, OFFSET, OFFSET, OFFSET, INCLUDED, BUNDLES, BUNDLES, OFFSET, OFFSET, OFFSET, OFFSET
)


def is_event_needed(offset: int, at: Positions) -> bool:
    """The rule, said again by asking each reader for itself."""
    readers = [at.compacted_events, at.processor, at.data.events]
    is_counted = offset > at.uncounted and any(bundle.events < offset for bundle in at.served)
    return any(position < offset for position in readers) or is_counted or offset > at.old_events


@given(at=POSITIONS)
def test_exactly_the_rows_that_nobody_needs_are_removed(at):
    limits = compute_limits(at)
    for offset in range(1, limits.events + 1):
        assert not is_event_needed(offset, at)
    assert is_event_needed(limits.events + 1, at)
    readers = [at.compacted_changes, *(part.changes for part in (at.data, *at.served, *at.bundles))]
    assert all(position >= limits.catalog_changes for position in readers)
    assert any(position < limits.catalog_changes + 1 for position in readers)
    assert limits.trimmed_keys == min(limits.events, at.old_keys), "a key stays at least as long as its event"
    assert limits.slates == min(at.compacted_slates, at.old_slates)


def test_a_deployment_without_a_bundle_or_a_compaction_keeps_everything():
    nothing = Positions(0, 0, 0, 0, Included(0, 0), (), (), 0, 100, 100, 100)
    limits = compute_limits(nothing)
    assert (limits.events, limits.slates, limits.catalog_changes) == (0, 0, 0)


@pytest.mark.parametrize(
    ("surface", "days"),
    [
        ("", 2.0),
        ('seen_on = ["home"]\nshown_days = 30', 30.0),
        ("shown_days = 30", 2.0),  # of no surface
        ("item_cap = { times = 2, days = 9 }", 9.0),
        ("cap = { slates = 1, days = 14.5 }", 14.5),
        ("cap = { slates = 1, days = 0.5 }", 2.0),
    ],
)
def test_impressions_are_kept_for_as_long_as_a_surface_counts_them(configured, surface, days):
    config = configured(
        f'name = "kept"\n[surfaces.home]\n[surfaces.email]\n{surface}\n[retention]\nimpressions_days = 2'
    )
    assert compute_impressions_window_us(config) == int(days * DAY_US)


def test_impressions_are_kept_for_the_daily_quotas_of_rules(configured):
    config = configured('name = "kept"\n[reranking]\nrules = "rules.toml"\n[retention]\nimpressions_days = 0')
    assert compute_impressions_window_us(config) == 2 * DAY_US
