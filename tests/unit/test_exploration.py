"""Exploration: logged propensities equal observed frequencies, and draws depend only on the seed."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from handsell.config import Config
from handsell.core.batches import NONE
from handsell.core.funnel import run_local
from handsell.core.hashing import derive_seed
from handsell.eligibility.config import Surface
from handsell.eligibility.mask import Eligibility
from handsell.reranking.config import ExplorationConfig, RerankingConfig
from handsell.reranking.exploration import Exploration, NewItemFloor, UniformChoice, draw_uniform
from handsell.reranking.mmr import MarginalRelevance
from handsell.reranking.reasons import CODE
from handsell.reranking.selection import Pool, select
from handsell.reranking.spacing import CREATOR_GAP, ItemGap
from handsell.reranking.stage import LocalReranking
from handsell.reranking.thompson import ThompsonChoice
from handsell.testing.small_catalog import draw_candidates, draw_requests, draw_snapshot

DRAWS = 100_000


SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, np.nan])
EVENTS = np.array([500, 500, 5, 0, 20, 0, 0, 0])
NEW = np.array([0, 0, 0, 1, 0, 1, 1, 0], bool)  # of them, number 6 may not be shown


def choose(name, rows):
    tiled = (np.tile(row, (rows, 1)) for row in (SCORES, EVENTS))
    return ThompsonChoice.of(*tiled, prior_strength=2.0) if name == "thompson" else UniformChoice()


def slates_of(seed, share=0.4, positions=(1, 3), n=4, pin=None, choice="uniform", floor=0.0, drawn_only=None):
    """The same eight candidates for every seed: two of a creator at the top, one that may not be shown, one NaN."""
    rows = len(seed)
    score = np.tile(SCORES, (rows, 1))
    creator = np.array([0, 0, 1, 1, 2, 3, 4, 5])
    same = np.broadcast_to(creator[:, None] == creator, (rows, 8, 8))
    allowed = np.tile(np.arange(8) != 6, (rows, 1))
    pool = Pool(np.nan_to_num(score), allowed, np.isfinite(score), pin=pin)
    if drawn_only is not None:
        pool = replace(pool, drawn_only=np.tile(drawn_only, (rows, 1)))
    new = NewItemFloor(np.full(rows, floor), np.tile(NEW, (rows, 1))) if floor else None
    explore = Exploration(share, frozenset(p - 1 for p in positions), seed, choose(choice, rows), new)
    diversity = [MarginalRelevance(same.astype(float), np.full(rows, 0.3))]
    return select(pool, n, diversity, [ItemGap(same, 1, CREATOR_GAP)], explore)


LAST_ONLY_DRAWN = np.arange(8) >= 5


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"choice": "thompson", "share": 0.8},
        {"choice": "thompson", "share": 0.3, "floor": 0.3},
        {"share": 0.0, "floor": 0.5},
        {"choice": "thompson", "share": 0.5, "floor": 0.2, "drawn_only": LAST_ONLY_DRAWN},
    ],
    ids=["uniform", "thompson", "thompson and new", "new", "carried"],
)
def test_propensities_are_the_frequencies(how):
    """χ² of every position's item given those above it, over all histories that occur often enough."""
    found = slates_of(np.arange(DRAWS if how.get("choice") is None else DRAWS // 5, dtype=np.uint64), **how)
    tested, rare = 0, 1e-6 if how.get("choice") is None else 2e-3
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
            assert chance.sum() == pytest.approx(1, abs=rare)  # nothing that is likely is missing
            if len(item) > 1:
                assert chisquare(often, rows.sum() * chance / chance.sum()).pvalue > 1e-4, (above[g], item, often)
                tested += 1
    assert tested >= 3


def test_propensities_equal_the_formula():
    found = slates_of(np.arange(2_000, dtype=np.uint64), share=0.4, positions=(1,))
    usual = found.column[:, 0] == 0
    np.testing.assert_allclose(found.propensity[usual, 0], 0.6 + 0.4 / 6, rtol=1e-6)  # six of eight are open
    np.testing.assert_allclose(found.propensity[~usual, 0], 0.4 / 6, rtol=1e-6)
    assert (found.propensity[:, 1:] == 1).all() and (found.explored[:, 0] == ~usual).all()
    assert not (found.column == 6).any() and not (found.column[:, 0] == 7).any()


def test_thompson_draws_are_those_of_independent_normal_values(rng):
    """Against a million draws of the values themselves; the grid is exact to half a percent."""
    choice = choose("thompson", 1)
    open_ = np.arange(8)[None] < 7
    chance = choice.compute_chances(open_)[0]
    value = rng.normal(choice.mean[0, :7], choice.deviation[0, :7], (1_000_000, 7))
    often = np.bincount(value.argmax(axis=1), minlength=8) / 1e6
    np.testing.assert_allclose(chance, often, atol=5e-3)
    assert chance.sum() == pytest.approx(1) and chance[7] == 0
    fewer = choice.compute_chances(open_ & (np.arange(8) > 1))[0]
    assert fewer[:2].sum() == 0 and fewer.sum() == pytest.approx(1)
    assert choice.compute_chances(np.zeros((1, 8), bool)).sum() == 0


def test_uncertain_items_are_drawn_more_often_than_certain_ones_of_the_same_score():
    choice = ThompsonChoice.of(np.full((1, 4), 0.05), np.array([[1000, 100, 10, 0]]), 20.0)
    chance = choice.compute_chances(np.ones((1, 4), bool))[0]
    assert (np.diff(chance) > 0).all() and chance[3] > 2 * chance[0]


def test_candidates_that_only_exploration_may_show_are_never_a_greedy_choice():
    only = np.arange(8) >= 2
    usual = slates_of(np.arange(500, dtype=np.uint64), share=0.0, drawn_only=only)
    assert (usual.column[:, :2] < 2).all() and (usual.column[:, 2:] == NONE).all()  # no others are left
    drawn = slates_of(np.arange(5_000, dtype=np.uint64), choice="thompson", share=0.5, floor=0.2, drawn_only=only)
    carried = only[drawn.column] & (drawn.column != NONE)
    assert carried[:, 0].any() and (drawn.explored == carried)[:, 0].all() and not (drawn.column == 6).any()
    empty = drawn.column == NONE
    assert (empty[:, 1:] >= empty[:, :-1]).all()  # a slate has no holes


def test_new_items_get_their_chance_where_one_is_open():
    found = slates_of(np.arange(DRAWS, dtype=np.uint64), share=0.0, positions=(1,), floor=0.3)
    assert np.isin(found.column[:, 0], [0, 3, 5]).all()
    assert (found.column[:, 0] != 0).mean() == pytest.approx(0.3, abs=0.01)
    np.testing.assert_allclose(found.propensity[found.column[:, 0] == 3, 0], 0.15, rtol=1e-6)
    none = slates_of(
        np.arange(500, dtype=np.uint64), share=0.0, positions=(1,), floor=0.3, pin=np.tile([3, NONE, 5, NONE], (500, 1))
    )
    assert (none.propensity == 1).all()


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
