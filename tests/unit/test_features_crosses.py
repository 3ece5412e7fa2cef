"""Crosses against a loop over pairs, and the on-demand form against the funnel's."""

import numpy as np
import pytest

from handsell.catalog.snapshot import ALWAYS
from handsell.core.units import DAY_US, HOUR_US
from handsell.features.crosses import compute_crosses
from handsell.features.definitions import cross
from handsell.features.on_demand import compute_pair_crosses
from handsell.features.registry import Feature, find_features
from handsell.features.views import list_cross_columns
from handsell.testing.small_catalog import NOW, draw_requests, draw_snapshot

CROSSES = tuple(find_features("cross"))
IN_CROSS_MODULE = {found.name for found in vars(cross).values() if isinstance(found, Feature)}


def naive(asked, b: int, item: int, shelf) -> dict[str, float]:
    """One request, one candidate, one event at a time."""
    creator, tags = int(shelf.creator[item]), set(shelf.item_tags.row(item).tolist())
    past = [(int(i), int(t)) for i, t in zip(asked.history.item[b], asked.history.time[b], strict=True) if i >= 0]
    by_creator = [t for i, t in past if creator >= 0 and shelf.creator[i] == creator]
    by_item = [t for i, t in past if i == item]
    last_seen = max((n for n, (i, _) in enumerate(past) if i == item), default=None)
    liked = dict(zip(asked.profile.creator[b].tolist(), asked.profile.creator_weight[b].tolist(), strict=True))
    tagged = dict(zip(asked.profile.tag[b].tolist(), asked.profile.tag_weight[b].tolist(), strict=True))
    last = set(shelf.item_tags.row(past[-1][0]).tolist()) if past else set()
    both = len(last & tags)
    published = int(shelf.published[item])
    return {
        "creator_affinity": liked.get(creator, 0.0) if creator >= 0 else 0.0,
        "tag_affinity": sum(tagged.get(t, 0.0) for t in tags) / max(len(tags), 1),
        "times_in_history": len(by_item),
        "hours_since_item": min((NOW - max(by_item)) / HOUR_US, 90 * 24) if by_item else np.nan,
        "history_place": np.nan if last_seen is None else len({i for i, _ in past[last_seen + 1 :]}),
        "hours_since_creator": min((NOW - max(by_creator)) / HOUR_US, 90 * 24) if by_creator else np.nan,
        "creator_share": len(by_creator) / max(len(past), 1),
        "last_item_similarity": both / np.sqrt(len(last) * len(tags)) if both else 0.0,
        "item_age_days": (NOW - published) / DAY_US if published != ALWAYS else np.nan,
    }


def distinct(profile_keys: np.ndarray) -> None:
    """Make the keys of each row distinct, as a profile's are; in place."""
    for row in profile_keys:
        _, first = np.unique(row, return_index=True)
        repeated = np.setdiff1d(np.arange(len(row)), first)
        row[repeated] = -1


@pytest.fixture
def case(rng):
    shelf = draw_snapshot(rng, items=40, creators=6, tags=5)
    asked = draw_requests(rng, shelf, rows=6, history=12)
    distinct(asked.profile.creator)
    distinct(asked.profile.tag)
    asked.history.item[0] = -1  # one request knows nothing
    asked.history.time[0] = 0
    return shelf, asked, rng.integers(0, 40, (6, 25)).astype(np.int32)


@pytest.mark.parametrize("dense", [0, 10**6])
def test_every_cross_equals_the_loop(case, dense, monkeypatch):
    """By table and by search alike."""
    monkeypatch.setattr("handsell.features.crosses.DENSE", dense)
    shelf, asked, items = case
    found = compute_crosses(asked, items, shelf)
    assert found.dtype == np.float32 and found.shape == (6, 25, len(CROSSES))
    for b in range(6):
        for k in range(25):
            expected = naive(asked, b, int(items[b, k]), shelf)
            assert set(expected) == IN_CROSS_MODULE, "features of other modules are compared in their own tests"
            for name, value in expected.items():
                got = found[b, k, CROSSES.index(name)]
                np.testing.assert_allclose(got, value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_padding_is_nan_and_touches_nothing_else(case):
    shelf, asked, items = case
    whole = compute_crosses(asked, items, shelf)
    padded = items.copy()
    padded[:, 20:] = -1
    found = compute_crosses(asked, padded, shelf)
    assert np.isnan(found[:, 20:]).all()
    np.testing.assert_array_equal(found[:, :20], whole[:, :20])


def test_a_batch_is_its_requests_one_by_one(case):
    shelf, asked, items = case
    whole = compute_crosses(asked, items, shelf)
    for b in range(6):
        np.testing.assert_array_equal(compute_crosses(asked.take(np.array([b])), items[b : b + 1], shelf)[0], whole[b])


def test_pairs_of_strings_give_the_same(case):
    shelf, asked, items = case
    item = items[:, 0]

    def ids(vocabulary, rows):
        return [vocabulary.ids(row[row >= 0]) for row in rows]

    def beside(values, keys):
        return [v[k >= 0].tolist() for v, k in zip(values, keys, strict=True)]

    profile, history = asked.profile, asked.history
    columns = {
        "item": shelf.items.ids(item),
        "creator": [shelf.creators.ids([c])[0] if c >= 0 else None for c in shelf.creator[item]],
        "tags": [shelf.tags.ids(shelf.item_tags.row(i)) for i in item],
        "published_us": [None if p == ALWAYS else p for p in shelf.published[item]],
        "history_item_ids": ids(shelf.items, history.item),
        "history_times_us": beside(history.time, history.item),
        "top_creators": ids(shelf.creators, profile.creator),
        "top_creator_weights": beside(profile.creator_weight, profile.creator),
        "top_tags": ids(shelf.tags, profile.tag),
        "top_tag_weights": beside(profile.tag_weight, profile.tag),
        "history_weights": beside(history.weight, history.item),
        "request_time_us": asked.time,
    }
    columns["history_item_ids"][0] = columns["history_times_us"][0] = None  # what Feast gives for a new user
    found, expected = compute_pair_crosses(columns), compute_crosses(asked, items, shelf)[:, 0]
    assert list(found) == [name for name, _ in list_cross_columns()]
    for name, column in found.items():
        np.testing.assert_allclose(column, expected[:, CROSSES.index(name)], rtol=1e-6, atol=1e-6, err_msg=name)
