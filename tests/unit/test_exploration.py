"""Exploration: logged propensities equal observed frequencies, and draws depend only on the seed."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from handsell.config import Config
from handsell.core.batches import NONE
from handsell.core.funnel import run_local
from handsell.eligibility.config import Surface
from handsell.eligibility.mask import Eligibility
from handsell.reranking.config import ExplorationConfig, RerankingConfig
from handsell.reranking.exploration import Exploration, draw_uniform
from handsell.reranking.mmr import MarginalRelevance
from handsell.reranking.reasons import CODE
from handsell.reranking.selection import Pool, select
from handsell.reranking.spacing import CREATOR_GAP, ItemGap
from handsell.reranking.stage import LocalReranking
from handsell.serving.graph.users import derive_seed
from handsell.testing.small_catalog import draw_candidates, draw_requests, draw_snapshot

DRAWS = 100_000


def slates_of(seed, share=0.4, positions=(1, 3), n=4, pin=None):
    """The same eight candidates for every seed: two of a creator at the top, one that may not be shown, one NaN."""
    rows = len(seed)
    score = np.tile(np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, np.nan]), (rows, 1))
    creator = np.array([0, 0, 1, 1, 2, 3, 4, 5])
    same = np.broadcast_to(creator[:, None] == creator, (rows, 8, 8))
    allowed = np.tile(np.arange(8) != 6, (rows, 1))
    pool = Pool(np.nan_to_num(score), allowed, np.isfinite(score), pin=pin)
    explore = Exploration(share, frozenset(p - 1 for p in positions), seed)
    diversity = [MarginalRelevance(same.astype(float), np.full(rows, 0.3))]
    return select(pool, n, diversity, [ItemGap(same, 1, CREATOR_GAP)], explore)


def test_propensities_are_the_frequencies():
    """χ² of every position's item given those above it, over all histories that occur often enough."""
    found = slates_of(np.arange(DRAWS, dtype=np.uint64))
    tested = 0
    for position in range(4):
        above, group = np.unique(found.column[:, :position], axis=0, return_inverse=True)
        for g in range(len(above)):
            rows = group.ravel() == g
            item, first, often = np.unique(found.column[rows, position], return_index=True, return_counts=True)
            chance = found.propensity[rows, position][first].astype(float)
            assert (
                np.ptp([np.ptp(found.propensity[rows, position][found.column[rows, position] == i]) for i in item]) == 0
            )
            if rows.sum() * chance.min() < 20:
                continue
            assert chance.sum() == pytest.approx(1, abs=1e-6)  # nothing that could happen is missing
            if len(item) > 1:
                assert chisquare(often, rows.sum() * chance / chance.sum()).pvalue > 1e-4, (above[g], item, often)
                tested += 1
    assert tested >= 6


def test_propensities_equal_the_formula():
    found = slates_of(np.arange(2_000, dtype=np.uint64), share=0.4, positions=(1,))
    usual = found.column[:, 0] == 0
    np.testing.assert_allclose(found.propensity[usual, 0], 0.6 + 0.4 / 6, rtol=1e-6)  # six of eight are open
    np.testing.assert_allclose(found.propensity[~usual, 0], 0.4 / 6, rtol=1e-6)
    assert (found.propensity[:, 1:] == 1).all() and (found.explored[:, 0] == ~usual).all()
    assert not (found.column == 6).any() and not (found.column[:, 0] == 7).any()


def test_exploring_breaks_no_constraint_that_can_hold():
    found = slates_of(np.arange(5_000, dtype=np.uint64), share=1.0, positions=(1, 2, 3))
    creator = np.array([0, 0, 1, 1, 2, 3, 4, 5])[found.column]
    near = creator[:, 1:] == creator[:, :-1]
    np.testing.assert_array_equal(found.broken[:, 1:] > 0, near)
    assert not near.any()


def test_a_pinned_position_never_explores():
    pin = np.full((2_000, 4), NONE)
    pin[:, 0] = 3
    found = slates_of(np.arange(2_000, dtype=np.uint64), share=1.0, positions=(1, 2), pin=pin)
    assert (found.column[:, 0] == 3).all() and (found.propensity[:, 0] == 1).all() and not found.explored[:, 0].any()
    assert found.explored[:, 1].any() and not (found.column[:, 1:] == 3).any()


def test_draws_are_uniform_and_streams_independent():
    seed = np.arange(DRAWS, dtype=np.uint64)
    a, b = draw_uniform(seed, 0), draw_uniform(seed, 1)
    for values in (a, b, (a + b) % 1):
        assert chisquare(np.bincount((values * 50).astype(int), minlength=50)).pvalue > 1e-4
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.02


def stage(shelf, share):
    dials = RerankingConfig(exploration=ExplorationConfig(share=share, positions=(1, 2, 5)))
    config = Config(name="test", reranking=dials)
    return LocalReranking(shelf, Eligibility(shelf, (Surface(repeat="allow"),)), config)


def test_draws_depend_on_the_seed_and_not_on_the_batch():
    rng = np.random.default_rng(0)
    shelf = draw_snapshot(rng)
    asked, found = draw_requests(rng, shelf, 8), draw_candidates(rng, shelf, 8)
    asked = replace(asked, seed=np.arange(8, dtype=np.uint64) + 5)
    where = stage(shelf, 0.7)
    whole = run_local(where.rerank(asked, found, 10))
    assert (whole.propensity < 1).any()
    for b in range(8):
        one = run_local(where.rerank(asked.take(slice(b, b + 1)), found.take(slice(b, b + 1)), 6))
        np.testing.assert_array_equal(one.item[0], whole.item[b, :6])
        np.testing.assert_array_equal(one.propensity[0], whole.propensity[b, :6])
    other = run_local(where.rerank(replace(asked, seed=asked.seed + np.uint64(1)), found, 10))
    assert (other.item != whole.item).any()
    unseeded = replace(asked, seed=None)
    np.testing.assert_array_equal(*(run_local(where.rerank(unseeded, found, 10)).item for _ in range(2)))


def test_drawn_items_have_the_reason_explore_and_exploration_is_off_by_default():
    rng = np.random.default_rng(1)
    shelf = draw_snapshot(rng)
    asked, found = draw_requests(rng, shelf, 40), draw_candidates(rng, shelf, 40)
    usual, drawn = (run_local(stage(shelf, share).rerank(asked, found, 10)) for share in (0.0, 0.5))
    told = drawn.reason == CODE["explore"]
    assert told[:, [0, 1, 4]].any() and not told[:, [2, 3, 5]].any() and (drawn.reason_item[told] == NONE).all()
    assert (told[:, 0] == (drawn.item[:, 0] != usual.item[:, 0])).all()
    assert (usual.propensity == 1).all() and not (usual.reason == CODE["explore"]).any()


def test_an_answers_id_gives_its_seed():
    assert derive_seed("a") == derive_seed("a") != derive_seed("b") and 0 <= derive_seed("a") < 2**64
