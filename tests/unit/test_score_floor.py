"""The floor of re-ranking: variety does not take a candidate whose score is far below the best one left."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.config import Config
from handsell.core.batches import NONE, Ragged
from handsell.core.funnel import run_local
from handsell.eligibility.config import Surface
from handsell.eligibility.mask import Eligibility
from handsell.reranking import compiled_selection
from handsell.reranking.config import RerankingConfig
from handsell.reranking.dpp import Determinantal, build_kernel
from handsell.reranking.selection import Pool, ScoreFloor, select
from handsell.reranking.spacing import CREATOR_GAP, ItemGap
from handsell.reranking.stage import LocalReranking
from handsell.testing.small_catalog import draw_candidates, draw_requests, draw_snapshot

STEEP = np.float32([0.5, 0.4, 0.02, 0.019, 0.018, 0.017, 0.002, 0.002, 0.002, 0.002])


def stage(shelf, **dials):
    config = Config(name="floor", reranking=RerankingConfig.model_validate(dials))
    return LocalReranking(shelf, Eligibility(shelf, (Surface(repeat="allow"),)), config)


def with_floor(utility, share, score=None, boost=None, ignored=None, **more):
    utility = np.array(utility, float)
    score = utility if score is None else np.array(score)
    usable = np.ones(utility.shape, bool)
    return Pool(utility, usable, usable, boost=boost, floor=ScoreFloor.of(share, score, boost, ignored), **more)


@pytest.mark.parametrize("selection", ["dpp", "mmr"])
def test_a_flat_tail_is_filled_with_the_same_town_and_not_with_anything(rng, selection):
    town = np.zeros(200, int)
    town[6:10] = 1 + np.arange(4)  # hotels elsewhere, each in a town of its own
    shelf = replace(draw_snapshot(rng), creator=np.full(200, NONE), item_tags=Ragged.from_rows(town[:, None]))
    asked, found = draw_requests(rng, shelf, 1), draw_candidates(rng, shelf, 1, k=10)
    found = replace(found, item=np.arange(10, dtype=np.int32)[None], score=STEEP[None])
    places = {
        floor: run_local(stage(shelf, selection=selection, floor=floor).rerank(asked, found, 6)).item[0]
        for floor in (0.0, 0.5)
    }
    assert (town[places[0.0]] > 0).sum() >= 3  # what the floor is for
    assert sorted(places[0.5]) == [0, 1, 2, 3, 4, 5]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.0, 0.3, 0.7, 1.0]), kind=st.sampled_from(["mmr", "dpp"]))
def test_no_place_is_below_the_floor_and_a_shorter_slate_is_the_beginning_of_a_longer_one(seed, share, kind):
    rng = np.random.default_rng(seed)
    shelf = draw_snapshot(rng)
    asked, found = draw_requests(rng, shelf, 3), draw_candidates(rng, shelf, 3, k=30, pad=2)
    found = replace(found, score=found.score**3)
    where = stage(shelf, selection=kind, floor=share, same_creator_gap=0, diversity=0.3)
    slates = run_local(where.rerank(asked, found, 12))
    np.testing.assert_array_equal(run_local(where.rerank(asked, found, 7)).item, slates.item[:, :7])
    for b in range(3):
        left = dict(zip(found.item[b, :28].tolist(), found.score[b, :28].tolist(), strict=True))
        for item in slates.item[b].tolist():
            assert left[item] >= share * max(left.values())
            del left[item]


def test_a_constraint_holds_and_the_floor_is_that_of_the_candidates_that_keep_it():
    same = np.zeros((1, 4, 4), bool)
    same[0, :2, :2] = True
    score = [[0.9, 0.8, 0.02, 0.001]]
    wish = np.array([[0.9, 0.8, 0.1, 0.5]])
    found = select(with_floor(wish, 0.5, score), 4, constraints=[ItemGap(same, 1, CREATOR_GAP)])
    assert found.column.tolist() == [[0, 2, 1, 3]] and not found.broken.any()


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("score", [[0.5, -0.2, -0.9], [-0.1, -0.2, -0.9], [0.5, 0.0, 0.0], [-1.0, -np.inf, -3.0]])
def test_scores_that_are_not_positive_shorten_no_slate(monkeypatch, score, compiled):
    if not compiled:
        monkeypatch.setattr(compiled_selection, "compiled", None)
    utility = np.nan_to_num([score], neginf=-9)
    assert sorted(select(with_floor(utility, 0.5, [score]), 3).column[0]) == [0, 1, 2]


def test_a_rule_may_raise_an_item_from_below_the_floor():
    score = [[0.9, 0.8, 0.01]]
    boost = np.array([[0, 0, 1.0]])
    assert select(with_floor(score, 0.9, boost=boost), 3).column.tolist() == [[2, 0, 1]]


def test_buried_and_ignored_items_do_not_hold_the_others_back():
    score, utility = [[0.9, 0.3, 0.29]], [[0.1, 0.3, 0.4]]
    assert select(with_floor(utility, 0.9, score), 3).column.tolist() == [[0, 2, 1]]
    buried = with_floor(utility, 0.9, score, boost=np.array([[-1.0, 0, 0]]))
    ignored = with_floor(utility, 0.9, score, ignored=np.array([[3, 0, 0]]))
    for pool in (buried, ignored):
        assert select(pool, 3).column.tolist() == [[2, 1, 0]]


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_the_compiled_selection_has_the_same_floor(rng, monkeypatch, share):
    if compiled_selection.compiled is None:
        pytest.skip("the kernels are not built")
    rows, width, n = 8, 40, 12
    related = rng.integers(0, 6, (rows, width))
    related = related[:, :, None] == related[:, None]
    vectors = rng.random((rows, width, 5)) / 3
    kernel = build_kernel(vectors @ vectors.transpose(0, 2, 1), related)
    score = rng.random((rows, width)) ** 4
    score[0], score[1, 3:] = 0, np.nan
    score[2], score[3, 5:] = -score[2], -score[3, 5:]
    boost = np.where(rng.random((rows, width)) < 0.1, rng.normal(size=(rows, width)), 0)
    utility, allowed, finite = rng.random((rows, width)), rng.random((rows, width)) < 0.8, np.isfinite(score)

    def choose(share):
        floor = ScoreFloor.of(share, score, boost, None)
        pool = Pool(utility, allowed, finite, boost=boost, floor=floor)
        criteria = [Determinantal(kernel, np.full(rows, 0.3), n)], [ItemGap(related, 1, CREATOR_GAP)]
        return select(pool, n, *criteria)

    found = choose(share)
    assert (found.column != choose(0.0).column).any()
    monkeypatch.setattr(compiled_selection, "compiled", None)
    plain = choose(share)
    np.testing.assert_array_equal(found.column, plain.column)
    np.testing.assert_array_equal(found.broken, plain.broken)
