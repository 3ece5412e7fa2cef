"""Spacing of creators and categories: it holds unless nothing else is left, and relaxed constraints are reported."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.config import Config
from handsell.core.batches import NONE, Candidates, Ragged
from handsell.core.funnel import run_local
from handsell.eligibility.config import Surface
from handsell.eligibility.mask import Eligibility
from handsell.reranking.config import RerankingConfig
from handsell.reranking.spacing import CATEGORY_WINDOW, CREATOR_GAP
from handsell.reranking.stage import LocalReranking
from handsell.testing.small_catalog import draw_candidates, draw_requests, draw_snapshot


def stage(shelf, **dials):
    plain = {"selection": "mmr", "novelty": 0.0, "calibration": 0.0}
    config = Config(name="test", reranking=RerankingConfig(**{**plain, **dials}))
    return LocalReranking(shelf, Eligibility(shelf, (Surface(repeat="allow"),)), config)


def rerank(shelf, found, n, rng, **dials):
    return run_local(stage(shelf, **dials).rerank(draw_requests(rng, shelf, len(found)), found, n))


def find_near_creators(creator, gap):
    """(B, n) bool, positions whose creator is also that of one of the `gap` positions before them."""
    near = np.zeros(creator.shape, bool)
    for step in range(1, min(gap, creator.shape[1] - 1) + 1):
        near[:, step:] |= (creator[:, step:] == creator[:, :-step]) & (creator[:, step:] != NONE)
    return near


def find_repeated_tags(tags, window, most):
    """Return, for one slate's tags by position, which positions exceed `most` items of a tag within `window`."""
    found = []
    for at, own in enumerate(tags):
        before = tags[max(at - window + 1, 0) : at]
        found.append(any(sum(tag in other for other in before) >= most for tag in own))
    return found


def test_hand_made_rows():
    creator = np.array([[1, 2, 1, 1, NONE, NONE]])
    assert find_near_creators(creator, 0).tolist() == [[False] * 6]
    assert find_near_creators(creator, 1).tolist() == [[False, False, False, True, False, False]]
    assert find_near_creators(creator, 2).tolist() == [[False, False, True, True, False, False]]
    assert find_near_creators(creator, 50).sum() == 2


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    creators=st.integers(1, 12),
    n=st.integers(1, 30),
    gap=st.integers(0, 4),
    diversity=st.floats(0, 1),
)
def test_the_creator_gap_holds_unless_nothing_else_is_left(seed, creators, n, gap, diversity):
    rng = np.random.default_rng(seed)
    shelf = draw_snapshot(rng, items=60, creators=creators)
    found = draw_candidates(rng, shelf, rows=2, k=30)
    slates = rerank(shelf, found, n, rng, same_creator_gap=gap, diversity=diversity)
    creator = np.where(slates.item == NONE, NONE, shelf.creator[np.maximum(slates.item, 0)])
    near = find_near_creators(creator, gap)
    np.testing.assert_array_equal(slates.relaxed > 0, near)
    for b in range(2):
        assert slates.relaxed_constraints(b, n) == ([CREATOR_GAP] if near[b].any() else [])
    for b, position in zip(*np.nonzero(near), strict=True):
        left = set(found.item[b]) - set(slates.item[b, :position])
        before = set(creator[b, max(position - gap, 0) : position]) - {NONE}
        assert all(shelf.creator[item] in before for item in left)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), tags=st.integers(2, 12), n=st.integers(1, 30), window=st.integers(0, 8),
    most=st.integers(1, 3), gap=st.integers(0, 2), home=st.sampled_from([None, 0, 4]),
)  # fmt: skip
def test_the_category_window_holds_or_is_reported_as_relaxed(seed, tags, n, window, most, gap, home):
    rng = np.random.default_rng(seed)
    shelf = draw_snapshot(rng, items=60, creators=12, tags=tags, tags_per_item=2)
    found = draw_candidates(rng, shelf, rows=3, k=30)
    dials = RerankingConfig(category_window=window, category_most=most, same_creator_gap=gap)
    config = Config(name="test", reranking=dials, surfaces={"home": Surface(repeat="allow", category_window=home)})
    where = LocalReranking(shelf, Eligibility(shelf, tuple(config.surfaces.values())), config)
    slates = run_local(where.rerank(draw_requests(rng, shelf, 3), found, n))
    window = window if home is None else home
    for b in range(3):
        shown = [int(i) for i in slates.item[b] if i != NONE]
        rows = [shelf.item_tags.row(i).tolist() for i in shown]
        crowded = find_repeated_tags(rows, window, most)
        creator = shelf.creator[np.array(shown)]
        near = find_near_creators(creator[None], gap)[0]
        for at in range(len(shown)):
            said = slates.relaxed_constraints(b, at + 1)
            before = slates.relaxed_constraints(b, at)
            assert crowded[at] <= (CATEGORY_WINDOW in said) and near[at] <= (CREATOR_GAP in said)
            if set(said) - set(before):
                assert crowded[at] or near[at]
            left = sorted(set(found.item[b].tolist()) - set(shown[:at]))
            keeps_gap = [
                i for i in left if not find_near_creators(np.append(creator[:at], shelf.creator[i])[None], gap)[0, -1]
            ]
            assert not (near[at] and keeps_gap)  # the gap gives way last
            both = [
                i
                for i in keeps_gap
                if not find_repeated_tags([*rows[:at], shelf.item_tags.row(i).tolist()], window, most)[-1]
            ]
            assert not (crowded[at] and both)


def test_surfaces_of_one_batch_have_their_own_windows():
    rng = np.random.default_rng(6)
    shelf = draw_snapshot(rng, tags=5, tags_per_item=1)
    surfaces = {"home": Surface(repeat="allow", category_window=4, category_most=1), "feed": Surface(repeat="allow")}
    config = Config(name="test", reranking=RerankingConfig(same_creator_gap=0), surfaces=surfaces)
    where = LocalReranking(shelf, Eligibility(shelf, tuple(surfaces.values())), config)
    asked, found = draw_requests(rng, shelf, 6), draw_candidates(rng, shelf, 6)
    asked = replace(asked, surface=np.array([0, 1] * 3, np.int8))
    whole = run_local(where.rerank(asked, found, 12))
    for b in range(6):
        one = run_local(where.rerank(asked.take(slice(b, b + 1)), found.take(slice(b, b + 1)), 12))
        np.testing.assert_array_equal(one.item[0], whole.item[b])
        crowded = find_repeated_tags([shelf.item_tags.row(i).tolist() for i in whole.item[b]], 4, 1)
        np.testing.assert_array_equal(whole.relaxed[b] > 0, np.array(crowded) & (b % 2 == 0))


def test_a_window_of_categories_by_hand():
    tags = [[0], [0, 1], [1], [0], [], [1], [0]]
    assert find_repeated_tags(tags, 3, 1) == [False, True, True, True, False, False, False]
    assert find_repeated_tags(tags, 3, 2) == [False] * 7
    assert find_repeated_tags(tags, 4, 2) == [False, False, False, True, False, False, False]
    assert find_repeated_tags(tags, 0, 1) == [False] * 7


def test_one_creator_only_still_fills_the_slate_and_names_the_rule():
    rng = np.random.default_rng(0)
    shelf = draw_snapshot(rng, creators=1, without_creator=0.0)
    slates = rerank(shelf, draw_candidates(rng, shelf), 30, rng)
    assert (slates.item != NONE).all()
    assert slates.relaxed_constraints(0, 30) == [CREATOR_GAP] and slates.relaxed_constraints(0, 1) == []


def test_unknown_creators_never_conflict():
    rng = np.random.default_rng(0)
    shelf = draw_snapshot(rng, without_creator=1.1)
    found = draw_candidates(rng, shelf)
    slates = rerank(shelf, found, 30, rng, same_creator_gap=5, diversity=0)
    np.testing.assert_array_equal(slates.item, found.item[:, :30])
    assert slates.relaxed_constraints(0, 30) == []


def test_of_equal_candidates_the_earlier_comes_first_however_many_tags_they_have():
    """Float32 cosines of like items differ in the last place by the number of their tags."""
    rng = np.random.default_rng(5)
    shelf = draw_snapshot(rng, without_creator=1.1, tags=9)
    kinds = [[0], [1, 2], [3, 4, 5], [6, 7, 8, 0, 1]]
    shelf = replace(shelf, item_tags=Ragged.from_rows([kinds[i % 4] for i in range(len(shelf))]))
    found = draw_candidates(rng, shelf)
    found = replace(found, score=np.full(found.score.shape, 0.5, np.float32))
    slates = rerank(shelf, found, 50, rng, diversity=0.5)
    for b, shown in enumerate(slates.item):
        place = {item: k for k, item in enumerate(found.item[b])}
        first = {min(places) for places in ([place[i] for i in shown if i % 4 == kind] for kind in range(4))}
        later = [place[item] for item in shown if place[item] not in first]
        assert later == sorted(later)


def test_ineligible_items_are_not_shown_whatever_their_score():
    rng = np.random.default_rng(1)
    shelf = draw_snapshot(rng)
    found, asked = draw_candidates(rng, shelf), draw_requests(rng, shelf)
    shelf.available[found.item[:, 0]] = False
    strict = LocalReranking(shelf, Eligibility(shelf, (Surface(repeat="exclude"),)), Config(name="test"))
    slates = run_local(strict.rerank(asked, found, 50))
    for b in range(len(found)):
        seen = set(asked.seen.item.row(b))
        shown = {int(item) for item in slates.item[b] if item != NONE}
        assert shown and not shown & seen and shelf.available[list(shown)].all()
        assert shown == {i for i in found.item[b] if i not in seen and shelf.available[i]}  # none lost


def test_slates_carry_score_sources_and_propensity_of_their_items():
    rng = np.random.default_rng(2)
    shelf = draw_snapshot(rng)
    found = draw_candidates(rng, shelf, pad=5)
    slates = rerank(shelf, found, 60, rng)
    assert slates.item.shape == (4, 60) and slates.sources == found.sources
    for b in range(4):
        place = {item: k for k, item in enumerate(found.item[b])}
        for at, item in enumerate(slates.item[b]):
            if item == NONE:
                assert slates.score[b, at] == 0 and slates.source[b, at] == 0 and slates.reason[b, at] == 0
                continue
            k = place[item]
            assert slates.score[b, at] == found.score[b, k]
            returned = np.isfinite(found.source_rank[b, k])
            assert [bool(slates.source[b, at] >> s & 1) for s in range(3)] == returned.tolist()
    assert (slates.propensity == 1).all()


@pytest.mark.parametrize("k", [0, 1])
def test_few_candidates_give_padded_slates(k):
    rng = np.random.default_rng(3)
    shelf = draw_snapshot(rng)
    found = draw_candidates(rng, shelf, rows=3, k=5).take_columns(k)
    slates = rerank(shelf, found, 10, rng)
    assert slates.item.shape == (3, 10) and (slates.item != NONE).sum() == 3 * k


def test_bare_lists_and_a_catalog_without_tags_work():
    rng = np.random.default_rng(4)
    shelf = draw_snapshot(rng, tags_per_item=0)
    bare = draw_candidates(rng, shelf)
    nan = np.full((4, 50, 0), np.nan, np.float32)
    found = Candidates(bare.item, bare.fused, nan, nan, bare.score, ())
    slates = rerank(shelf, found, 10, rng)
    assert (slates.item != NONE).all() and (slates.source == 0).all()
