"""Reasons are true: each is checked against its definition in plain Python on random requests."""

from dataclasses import replace

import numpy as np
import pytest

from handsell.catalog.snapshot import ALWAYS
from handsell.config import Config
from handsell.core.batches import NONE, Ragged
from handsell.core.funnel import run_local
from handsell.core.units import DAY_US
from handsell.data.config import EventsConfig, EventType
from handsell.eligibility.config import Surface
from handsell.eligibility.mask import Eligibility
from handsell.reranking.reasons import CODE, LEAST_SIMILARITY, NEW_DAYS, REASONS, TASTE_TAGS, find_liked_weight
from handsell.reranking.stage import LocalReranking
from handsell.testing.small_catalog import draw_candidates, draw_requests, draw_snapshot

SOURCES = ("popularity", "item_knn", "content", "trending")


def explained(shelf, asked, found, n=30):
    stage = LocalReranking(shelf, Eligibility(shelf, (Surface(repeat="allow"),)), Config(name="test"))
    return run_local(stage.rerank(asked, found, n))


def alike(shelf, a, b):
    x, y = set(shelf.item_tags.row(a)), set(shelf.item_tags.row(b))
    same = shelf.creator[a] == shelf.creator[b] != NONE
    return max(len(x & y) / np.sqrt(max(len(x) * len(y), 1)), float(same))


def truths(shelf, asked, b, item, found_by):
    """Every reason that holds for an item, with the history items that it may speak of."""
    history = asked.history
    past = [(int(i), float(w)) for i, w in zip(history.item[b], history.weight[b], strict=True) if i != NONE]
    personal = bool(found_by - {"popularity", "trending"})
    near = {bar: {i for i, w in past if w >= bar and alike(shelf, item, i) >= LEAST_SIMILARITY} for bar in (2.0, 1e-9)}
    profile = asked.profile
    played = {c for c, w in zip(profile.creator[b], profile.creator_weight[b], strict=True) if w > 0 and c != NONE}
    tags = list(zip(profile.tag[b], profile.tag_weight[b], strict=True))[:TASTE_TAGS]
    age = asked.time[b] - shelf.published[item] if shelf.published[item] != ALWAYS else np.inf
    found = {
        "listen_again": any(i == item for i, _ in past),
        "because_you_liked": personal and near[2.0],
        "similar_to_recent": personal and near[1e-9],
        "from_creator_you_play": shelf.creator[item] in played,
        "new_release": found_by == {"content"} and 0 <= age <= NEW_DAYS * DAY_US,
        "matches_your_taste": personal and bool({t for t, w in tags if w > 0} & set(shelf.item_tags.row(item))),
        "popular": found_by == {"popularity"},
    }
    return {name: value for name, value in found.items() if value}


@pytest.mark.parametrize("seed", range(6))
def test_every_reason_is_true_and_the_most_specific(seed):
    rng = np.random.default_rng(seed)
    shelf = draw_snapshot(rng, creators=60, tags=40)
    asked, found = (
        draw_requests(rng, shelf, 6, history=6, affinities=8),
        draw_candidates(rng, shelf, 6, sources=SOURCES),
    )
    slates = explained(shelf, asked, found)
    for (b, at), item in np.ndenumerate(slates.item):
        found_by = {name for s, name in enumerate(SOURCES) if slates.source[b, at] >> s & 1}
        true = truths(shelf, asked, b, item, found_by)
        code, about = REASONS[slates.reason[b, at]], slates.reason_item[b, at]
        assert code == min(true, key=REASONS.index, default="recommended_for_you")
        if code in ("because_you_liked", "similar_to_recent"):
            assert about in true[code]
        else:
            assert about == NONE


def test_all_reasons_occur():
    rng = np.random.default_rng(9)
    shelf = draw_snapshot(rng, creators=60, tags=40)
    shelf.published[::2] = draw_requests(rng, shelf, 1).time[0] - 3 * DAY_US
    asked, found = draw_requests(rng, shelf, 60, history=6), draw_candidates(rng, shelf, 60, sources=SOURCES)
    assert set(np.unique(explained(shelf, asked, found, 40).reason)) == set(range(len(REASONS))) - {CODE["explore"]}


def test_liked_names_the_most_similar_item_and_the_latest_of_equals():
    rng = np.random.default_rng(0)
    shelf = draw_snapshot(rng, without_creator=1.1)
    shelf = replace(shelf, item_tags=Ragged.from_rows([[0, 1], [0, 1], [0, 2], [0, 1], *[[5]] * 196]))
    asked = draw_requests(rng, shelf, 1, history=4)
    history = replace(
        asked.history, item=np.int32([[1, 3, 2, 7]]), weight=np.float32([[2, 2, 2, -1]]), type=np.int8([[1, 1, 1, 1]])
    )
    found = draw_candidates(rng, shelf, 1, k=2, sources=("item_knn",))
    found = replace(found, item=np.int32([[0, 9]]))
    slates = explained(shelf, replace(asked, history=history), found, 2)
    liked = slates.item[0] == 0
    assert slates.reason[0][liked] == CODE["because_you_liked"] and slates.reason_item[0][liked] == 3
    assert slates.reason[0][~liked] != CODE["because_you_liked"]  # 9 is like 7 only, which was skipped


def test_the_reason_for_a_cold_user_is_popular():
    rng = np.random.default_rng(1)
    shelf = draw_snapshot(rng)
    asked = draw_requests(rng, shelf, 2)
    nobody = replace(asked.history, item=np.full_like(asked.history.item, NONE), weight=asked.history.weight * 0)
    blank = replace(asked.profile, creator=asked.profile.creator * 0 - 1, tag=asked.profile.tag * 0 - 1)
    slates = explained(
        shelf, replace(asked, history=nobody, profile=blank), draw_candidates(rng, shelf, 2, sources=("popularity",))
    )
    assert (slates.reason == CODE["popular"]).all() and (slates.reason_item == NONE).all()


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ({"click": EventType(weight=1), "like": EventType(weight=2), "share": EventType(weight=3)}, 2),
        ({"buy": EventType(weight=1), "skip": EventType(weight=-1)}, 1),
        ({"rating": EventType(weight=0, weight_by_value=((0, -1), (3.5, 0.5), (4.5, 2)))}, 2),
        ({"impression": EventType(weight=0)}, np.inf),
    ],
)
def test_liked_means_stronger_than_the_weakest_positive_event(types, expected):
    assert find_liked_weight(EventsConfig(types=types)) == expected
