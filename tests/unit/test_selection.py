"""Greedy selection with pins, boosts, calibration, DPP, novelty and personal diversity."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.config import Config
from handsell.core.batches import NONE
from handsell.core.funnel import run_local
from handsell.eligibility.config import Surface
from handsell.eligibility.mask import Eligibility
from handsell.features.registry import find_features
from handsell.reranking.calibrated import ALPHA, TasteCalibration, compute_tag_mix
from handsell.reranking.config import RerankingConfig
from handsell.reranking.dpp import Determinantal, build_kernel
from handsell.reranking.selection import Pool, select
from handsell.reranking.spacing import CREATOR_GAP, ItemGap
from handsell.reranking.stage import LocalReranking
from handsell.reranking.utility import NEUTRAL, POPULARITY, compute_breadth, personalize_diversity
from handsell.testing.small_catalog import draw_candidates, draw_requests, draw_snapshot

ITEM_FEATURES = tuple(find_features("item"))

EVERYTHING = {
    "selection": "dpp", "diversity": 0.2, "diversity_by_taste": 0.5, "calibration": 0.1, "novelty": 0.1,
    "serendipity": 0.1, "same_creator_gap": 1, "category_window": 4, "category_most": 2,
    "exploration": {"share": 0.3, "positions": (2, 5)},
}  # fmt: skip


def shop(rng, **options):
    shelf = draw_snapshot(rng, **options)
    values = rng.integers(0, 500, (len(shelf), len(ITEM_FEATURES))).astype(np.float32)
    return replace(shelf, values=values, value_names=ITEM_FEATURES)


def stage(shelf, **dials):
    off = {"selection": "mmr", "novelty": 0.0, "calibration": 0.0}
    config = Config(name="test", reranking=RerankingConfig.model_validate({**off, **dials}))
    return LocalReranking(shelf, Eligibility(shelf, (Surface(repeat="allow"),)), config)


def pool(score, **more):
    score = np.array(score, float)
    return Pool(score, np.ones(score.shape, bool), np.ones(score.shape, bool), **more)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 40), kind=st.sampled_from(["mmr", "dpp"]))
def test_with_every_setting_on_no_item_is_lost_or_duplicated_and_batch_equals_single(seed, n, kind):
    rng = np.random.default_rng(seed)
    shelf = shop(rng, tags=8)
    asked, found = draw_requests(rng, shelf, 3), draw_candidates(rng, shelf, 3, k=20, pad=2)
    where = stage(shelf, **{**EVERYTHING, "selection": kind})
    whole = run_local(where.rerank(asked, found, n))
    for b in range(3):
        shown = whole.item[b][whole.item[b] != NONE]
        assert len(set(shown)) == len(shown) == min(n, 18) and set(shown) <= set(found.item[b, :18])
        one = run_local(where.rerank(asked.take(slice(b, b + 1)), found.take(slice(b, b + 1)), n))
        for name in ("item", "propensity", "reason", "relaxed"):
            np.testing.assert_array_equal(getattr(one, name)[0], getattr(whole, name)[b], err_msg=name)


def test_pins_keep_their_position_even_next_to_their_own_creator():
    same = np.zeros((1, 5, 5), bool)
    same[0, 0, 3] = same[0, 3, 0] = True
    pin = np.array([[NONE, 3, 0, NONE]])
    found = select(pool([[5.0, 4, 3, 2, 1]], pin=pin), 4, constraints=[ItemGap(same, 1, CREATOR_GAP)])
    assert found.column.tolist() == [[1, 3, 0, 2]]
    assert found.broken.tolist() == [[0, 0, 1, 0]]  # the pin broke it, and it is said


def test_a_pin_that_is_not_allowed_or_too_late_changes_nothing():
    some = replace(
        pool([[3.0, 2, 1]], pin=np.array([[NONE, 0, NONE, NONE, 2]])), allowed=np.array([[False, True, True]])
    )
    assert select(some, 5).column.tolist() == [[1, 2, NONE, NONE, NONE]]


def test_boosts_do_not_override_a_constraint():
    same = np.zeros((1, 3, 3), bool)
    same[0, 0, 1] = same[0, 1, 0] = True
    score = [[0.9, 0.5, 0.1]]
    assert select(pool(score, boost=np.array([[0, 0, 0.85]])), 3).column.tolist() == [[2, 0, 1]]
    found = select(pool(score, boost=np.array([[0, 1e9, 0]])), 3, constraints=[ItemGap(same, 1, CREATOR_GAP)])
    assert found.column.tolist() == [[1, 2, 0]] and not found.broken.any()


def test_the_cost_of_calibration_equals_the_papers_formula():
    shares = np.array([[[1, 0], [0.5, 0.5], [0, 0]]], np.float32)
    wanted = np.array([[0.25, 0.75]], np.float32)
    cost = TasteCalibration(shares, wanted, 2.0)

    def kl(q):
        q = (1 - ALPHA) * np.array(q) + ALPHA * wanted[0]
        return 2 * (wanted[0] * np.log(wanted[0] / q)).sum()

    np.testing.assert_allclose(cost.cost[0], [kl([1, 0]), kl([0.5, 0.5]), kl([0, 0])], atol=2e-5)
    cost.add(0, np.array([1]))
    np.testing.assert_allclose(cost.cost[0], [kl([0.75, 0.25]), kl([0.5, 0.5]), kl([0.5, 0.5])], atol=2e-5)


def test_more_calibration_approaches_the_users_mix():
    rng = np.random.default_rng(2)
    shelf = shop(rng, items=400, tags=10, tags_per_item=2)
    asked, found = draw_requests(rng, shelf, 40), draw_candidates(rng, shelf, 40)
    error = []
    for strength in (0.0, 0.1, 0.5):
        slates = run_local(stage(shelf, diversity=0, calibration=strength, same_creator_gap=0).rerank(asked, found, 10))
        share = np.asarray(shelf.tag_matrix.todense()) ** 2
        mix = share[slates.item].sum(axis=1)
        mix /= np.maximum(mix.sum(axis=1, keepdims=True), 1e-9)
        history = np.where((asked.history.item != NONE)[:, :, None], share[np.maximum(asked.history.item, 0)], 0)
        p = compute_tag_mix(asked.history, history.astype(np.float32))
        error.append(np.abs(p - mix).sum(axis=1).mean())
    assert error[0] > error[1] > error[2]


def test_a_dpp_is_the_greedy_maximum_of_the_log_determinant():
    rng = np.random.default_rng(3)
    vectors = rng.random((2, 12, 4))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    same = rng.random((2, 12, 12)) < 0.1
    same |= same.transpose(0, 2, 1)
    gram = build_kernel(vectors @ vectors.transpose(0, 2, 1), np.zeros_like(same))
    score, theta = rng.random((2, 12)), 0.3
    found = select(pool((1 - theta) * score), 8, [Determinantal(gram, np.full(2, theta), 8)]).column
    for b in range(2):
        chosen: list[int] = []
        for _ in range(8):

            def value(k, b=b, chosen=chosen):
                both = [*chosen, k]
                gain = np.linalg.slogdet(gram[b][np.ix_(both, both)])[1]
                return (1 - theta) * score[b, k] + theta * gain

            chosen.append(max((k for k in range(12) if k not in chosen), key=value))
        assert found[b].tolist() == chosen


def test_novelty_prefers_the_unpopular_and_serendipity_the_relevant_among_them():
    rng = np.random.default_rng(4)
    shelf = shop(rng)
    asked, found = draw_requests(rng, shelf, 30), draw_candidates(rng, shelf, 30)
    popular, column = [], ITEM_FEATURES.index(POPULARITY)
    for dials in ({}, {"novelty": 0.3}, {"novelty": 1.0}):
        slates = run_local(stage(shelf, diversity=0, same_creator_gap=0, **dials).rerank(asked, found, 10))
        popular.append(shelf.values[slates.item, column].mean())
    assert popular[0] > popular[1] > popular[2]
    plain, odd = (
        run_local(stage(shelf, diversity=0, same_creator_gap=0, serendipity=s).rerank(asked, found, 10))
        for s in (0, 1.0)
    )
    assert shelf.values[odd.item, column].mean() < shelf.values[plain.item, column].mean()
    best = found.score.argmax(axis=1)
    assert (found.item[np.arange(30), best] == plain.item[:, 0]).all()


def test_broad_tastes_get_more_diversity_than_narrow_ones():
    rng = np.random.default_rng(5)
    profile = draw_requests(rng, draw_snapshot(rng), 4, affinities=4).profile
    tag = np.array([[0, 1, 2, 3], [0, 1, NONE, NONE], [0, NONE, NONE, NONE], [0, 1, NONE, NONE]], np.int32)
    weight = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [3, 0, 0, 0], [-1, -2, 0, 0]], np.float32)
    profile = replace(profile, tag=tag, tag_weight=weight)
    np.testing.assert_allclose(compute_breadth(profile, 50), [1, 0.5, 0, NEUTRAL])
    dials = RerankingConfig(diversity=0.2, diversity_by_taste=0.5)
    np.testing.assert_allclose(personalize_diversity(dials, profile, 50), [0.3, 0.2, 0.1, 0.2])
    assert personalize_diversity(RerankingConfig(diversity=0.2), profile, 50) == pytest.approx([0.2] * 4)
