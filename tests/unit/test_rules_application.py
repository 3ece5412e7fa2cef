"""Effects of rules on slates: each kind alone, all kinds together, and compared with re-ranking without rules."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from handsell.core.batches import NONE, Ragged
from handsell.core.funnel import run_local
from handsell.core.units import DAY_US
from handsell.eligibility.config import Surface
from handsell.eligibility.mask import Eligibility
from handsell.reranking.stage import LocalReranking
from handsell.testing.rule_catalog import CONFIG, build_stage, compile_rules, draw_rule_catalog, write_rule
from handsell.testing.small_catalog import NOW, draw_candidates, draw_requests

N = 10
SHELF = draw_rule_catalog(np.random.default_rng(3))


def year(item):
    return np.where(item == NONE, -1, 2000 + item % 20)


def asked(seed, rows=3, k=40, exclude=0):
    rng = np.random.default_rng(seed)
    ask, found = draw_requests(rng, SHELF, rows), draw_candidates(rng, SHELF, rows, k)
    return replace(ask, exclude=Ragged.from_rows([found.item[b, :exclude] for b in range(rows)])), found


def slates(text, ask, found, n=N):
    return run_local(build_stage(SHELF, text).rerank(ask, found, n))


def plain(ask, found, n=N):
    reranking = LocalReranking(SHELF, Eligibility(SHELF, (Surface(repeat="allow"),) * 2), CONFIG)
    return run_local(reranking.rerank(ask, found, n))


seeds = st.integers(0, 10**6)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, y=st.integers(2000, 2019))
def test_excluded_items_are_never_shown_and_slates_stay_full(seed, y):
    ask, found = asked(seed)
    got = slates(write_rule("out", "exclude", items=f"item.year == {y} or item.explicit"), ask, found)
    assert (got.item != NONE).all()
    assert not (year(got.item) == y).any() and not (got.item % 10 == 0).any()


@settings(max_examples=60, deadline=None)
@given(seed=seeds, y=st.integers(2000, 2019), position=st.integers(1, N), exclude=st.integers(0, 14))
def test_a_pinned_item_is_at_its_position(seed, y, position, exclude):
    """The best eligible candidate of the rule; an item of the catalog if there is none."""
    ask, found = asked(seed, k=25, exclude=exclude)
    got = slates(write_rule("here", "pin", items=f"item.year == {y}", position=position), ask, found)
    for b in range(len(ask)):
        assert "rule:here" not in got.relaxed_constraints(b, N)
        assert year(got.item[b, position - 1]) == y
        may = [i for i in found.item[b] if year(i) == y and i not in found.item[b, :exclude]]
        assert got.item[b, position - 1] == may[0] if may else got.item[b, position - 1] not in found.item[b]
        assert len(set(got.item[b])) == N


@settings(max_examples=40, deadline=None)
@given(seed=seeds, y=st.integers(2000, 2019), within=st.integers(1, N))
def test_an_included_item_is_within_its_positions(seed, y, within):
    ask, found = asked(seed, k=15)
    got = slates(write_rule("in", "include", items=f"item.year == {y}", within=within), ask, found)
    assert (year(got.item[:, :within]) == y).any(axis=1).all()


@settings(max_examples=60, deadline=None)
@given(seed=seeds, least=st.sampled_from([0.0, 0.1, 0.3]), more=st.sampled_from([0.0, 0.2, 0.7]))
def test_a_quota_of_each_slate_keeps_both_bounds(seed, least, more):
    ask, found = asked(seed, k=45)
    text = write_rule("q", "quota", items="item.year >= 2010", per="slate", min_share=least, max_share=least + more)
    own = (year(slates(text, ask, found).item) >= 2010).sum(axis=1)
    assert (own >= np.ceil(least * N - 1e-9)).all()
    assert (own <= np.floor((least + more) * N + 1e-9)).all()


@settings(max_examples=60, deadline=None)
@given(seed=seeds, rows=st.integers(1, 5), pad=st.integers(0, 12))
@example(seed=1740, rows=1, pad=0)  # five others
def test_all_kinds_together_keep_their_precedence(seed, rows, pad):
    rng = np.random.default_rng(seed)
    ask, found = draw_requests(rng, SHELF, rows), draw_candidates(rng, SHELF, rows, 30, pad=pad)
    text = (
        write_rule("most", "quota", items="item.year >= 2010", per="slate", max_share=0.3)
        + write_rule("up", "boost", items="item.year >= 2010", factor=3, add=0.5)
        + write_rule("down", "bury", items="item.year == 2018", subtract=2)
        + write_rule("in", "include", items="item.year == 2018", within=3)
        + write_rule("here", "pin", items="item.year == 2019", position=1)
        + write_rule("there", "pin", items="item.year == 2019", position=1)
        + write_rule("never", "pin", items="item.explicit", position=2)
        + write_rule("out", "exclude", items="item.explicit")
    )
    got = slates(text, ask, found)
    years = year(got.item)
    assert (years[:, 0] == 2019).all()  # pinned
    assert (years[:, :3] == 2018).any(axis=1).all()  # included though buried
    others = ((found.item != NONE) & (year(found.item) < 2010) & (found.item % 10 != 0)).sum(axis=1)
    # no more than the quota leaves, however boosted, but where there are too few others
    assert ((years >= 2010).sum(axis=1) <= np.maximum(3, N - others)).all()
    assert not ((got.item % 10 == 0) & (got.item != NONE)).any()  # excluded, so not pinned
    for b in range(rows):
        real = got.item[b][got.item[b] != NONE]
        assert len(set(real)) == len(real)
        assert {"rule:there", "rule:never"} <= set(got.relaxed_constraints(b, N))
        assert "rule:here" not in got.relaxed_constraints(b, N)


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_a_single_request_gets_the_same_slate_as_in_a_batch(seed):
    ask, found = asked(seed, rows=4, k=20)
    text = (
        write_rule("up", "boost", items="item.year >= 2010", factor=2)
        + write_rule("here", "pin", items="item.year == 2019", position=4)
        + write_rule("q", "quota", items="item.year < 2003", per="slate", min_share=0.2)
        + write_rule("out", "exclude", items="item.explicit")
    )
    together = slates(text, ask, found)
    for b in range(4):
        alone = slates(text, ask.take(slice(b, b + 1)), found.take(slice(b, b + 1)))
        assert alone.item[0].tolist() == together.item[b].tolist()


def test_inactive_rules_change_nothing():
    ask, found = asked(5)
    text = write_rule("out", "exclude", items="item.year > 0", surfaces=["email"]) + write_rule(
        "old", "pin", items="item.year > 0", position=1, newer_than_days=1
    ).replace('kind = "pin"', 'kind = "pin"\nuntil = 2001-01-01')
    without, got = plain(ask, found), slates(text, ask, found)
    assert got.item.tolist() == without.item.tolist() and got.score.tolist() == without.score.tolist()
    assert got.rules is not None and without.rules is None


def test_a_file_without_rules_changes_nothing():
    ask, found = asked(5)
    got = slates("", ask, found)
    assert got.item.tolist() == plain(ask, found).item.tolist() and got.rules.shares == ()


def test_boost_and_bury_change_relevance_by_factor_and_addend():
    ask, found = asked(6)
    none = (year(plain(ask, found).item) >= 2010).mean()
    up = (
        year(slates(write_rule("up", "boost", items="item.year >= 2010", factor=1.5), ask, found).item) >= 2010
    ).mean()
    down = (
        year(slates(write_rule("d", "bury", items="item.year >= 2010", factor=0.5), ask, found).item) >= 2010
    ).mean()
    assert down < none < up
    applied = compile_rules(SHELF, write_rule("up", "boost", items="item.year >= 2010", factor=1.5, add=0.25)).apply(
        ask, found, np.ones(found.item.shape, bool), N
    )
    low, high = found.score.min(axis=1, keepdims=True), found.score.max(axis=1, keepdims=True)
    expected = np.where(year(found.item) >= 2010, (found.score - low) / (high - low) * 0.5 + 0.25, 0)
    np.testing.assert_allclose(applied.boost, expected, atol=1e-6)


def test_items_are_selected_by_age_and_by_size_of_their_creator():
    published = SHELF.published.copy()
    published[:6] = NOW - np.array([1, 29, 31, -1, 0, 400]) * DAY_US
    shelf = replace(SHELF, published=published, creator=np.repeat([0, 1, 2], [2, 5, 193]).astype(np.int32))
    item, time = np.arange(8, dtype=np.int32)[None], np.array([NOW])
    new = compile_rules(shelf, write_rule("n", "exclude", newer_than_days=30)).ruleset.matches(item, time)[0, 0]
    assert new.tolist() == [True, True, False, False, True, False, False, False]
    small = compile_rules(shelf, write_rule("s", "exclude", creator_items_at_most=5)).ruleset.matches(item, time)[0, 0]
    assert small.tolist() == [True] * 7 + [False]


def test_items_from_the_catalog_are_eligible_and_match_the_users_tags():
    ask, found = asked(7, rows=1, k=20)
    missing = next(y for y in range(2000, 2020) if not (year(found.item) == y).any())
    own = np.flatnonzero(year(np.arange(len(SHELF))) == missing)
    ask = replace(ask, exclude=Ragged.from_rows([own[:-2]]))
    tags = SHELF.item_tags.row(int(own[-1]))
    profile = replace(
        ask.profile, tag=np.full_like(ask.profile.tag, NONE), tag_weight=np.ones_like(ask.profile.tag_weight)
    )
    profile.tag[0, : len(tags)] = tags
    text = write_rule("here", "pin", items=f"item.year == {missing}", position=2)
    got = slates(text, replace(ask, profile=profile), found)
    other = SHELF.item_tags.row(int(own[-2]))
    if len(set(tags) - set(other)):
        assert got.item[0, 1] == own[-1]
    assert got.score[0, 1] == pytest.approx(found.score.min())
    nothing = replace(ask, exclude=Ragged.from_rows([own]))
    refused = slates(text, nothing, found)
    assert refused.relaxed_constraints(0, N) == ["rule:here"] and (refused.item != NONE).all()
    assert not (year(refused.item) == missing).any()


def test_a_pin_beyond_the_end_of_a_slate_is_reported():
    ask, found = asked(9, rows=1, k=25, exclude=21)
    got = slates(write_rule("here", "pin", items="item.year == 2019", position=8), ask, found)
    assert (got.item[0] != NONE).sum() < 8 and "rule:here" in got.relaxed_constraints(0, N)


def test_rules_hold_within_the_positions_that_the_caller_sees():
    ask, found = asked(8, k=45)
    ask = replace(ask, count=np.array([3, 5, 10], np.int16))
    text = write_rule("in", "include", items="item.year == 2019") + write_rule(
        "late", "pin", items="item.year == 2018", position=5
    )
    got = slates(text, ask, found)
    for b, count in enumerate((3, 5, 10)):
        assert (year(got.item[b, :count]) == 2019).any()
        assert (year(got.item[b, 4]) == 2018) or count < 5
        assert not {"rule:in", "rule:late"} & set(got.relaxed_constraints(b, N))
