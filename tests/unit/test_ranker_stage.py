"""The ranking stage: order by raw score, calibrated scores, padding and non-finite scores last."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.config import Config
from handsell.core.batches import NONE, Candidates, Requests
from handsell.core.errors import FeatureError
from handsell.core.funnel import Funnel, run_local
from handsell.features.config import FeaturesConfig
from handsell.features.matrix import SnapshotValues, build_matrix, list_features
from handsell.features.registry import find_features
from handsell.features.user import list_user_features
from handsell.ranking.explain import explain_ranking
from handsell.ranking.stage import FusedRanking, LocalRanking, best_first
from handsell.testing.small_catalog import draw_candidates, draw_requests, draw_snapshot

ITEM_FEATURES = tuple(find_features("item"))

CONFIG = Config(name="test", features=FeaturesConfig(item_columns=()))


@dataclass(frozen=True)
class ColumnRanker:
    """Raw score = one column of the matrix; calibrated to a coarse step, so that many tie."""

    features: tuple[str, ...]
    column: str = "item_positives_7d"
    broken: bool = False

    def raw(self, x, trees=0, use=True):
        raw = np.where(use, x[..., self.features.index(self.column)], np.float32(np.nan))
        return np.full_like(raw, np.nan) if self.broken else np.where(raw > 1.5, np.inf, raw)

    def calibrate(self, raw):
        return (np.clip(np.floor(raw), -2, 2) / 4 + 0.5).astype(np.float32)

    def score(self, x):
        return self.calibrate(self.raw(x))


@dataclass(frozen=True)
class RankerForAll(ColumnRanker):
    """Found by training to help users without events, too."""

    ranks_without_events: bool = True


@pytest.fixture
def asked() -> tuple[LocalRanking, Requests, Candidates]:
    rng = np.random.default_rng(0)
    shelf = draw_snapshot(rng)
    shelf = replace(
        shelf,
        values=rng.normal(size=(len(shelf), len(ITEM_FEATURES))).astype(np.float32),
        value_names=ITEM_FEATURES,
    )
    batch, found = draw_requests(rng, shelf, 5), draw_candidates(rng, shelf, 5, 40, pad=4)
    features = rng.normal(size=(5, len(list_user_features(CONFIG)))).astype(np.float32)
    batch = replace(batch, profile=replace(batch.profile, features=features))
    ranker = ColumnRanker(list_features(CONFIG, found.sources))
    return LocalRanking(ranker, shelf, SnapshotValues(shelf), CONFIG), batch, found


def naive(stage, batch, found):
    """Per request, item numbers by raw score; infinite ones and then padding last."""
    x = build_matrix(batch, found, stage.items, stage.snapshot, CONFIG)
    raw = stage.ranker.raw(x)
    rows = []
    for b, items in enumerate(found.item):
        real = [k for k in range(len(items)) if items[k] >= 0]
        good = sorted((k for k in real if np.isfinite(raw[b, k])), key=lambda k: (-raw[b, k], k))
        bad = [k for k in real if not np.isfinite(raw[b, k])]
        rows.append([*items[good + bad], *[-1] * (len(items) - len(real))])
    return np.array(rows), raw


def test_orders_by_the_raw_score_and_reports_the_calibrated(asked):
    stage, batch, found = asked
    expected, raw = naive(stage, batch, found)
    ranked = run_local(stage.rank(batch, found, 40))
    np.testing.assert_array_equal(ranked.item, expected)
    assert len(np.unique(ranked.score)) < 10 and ranked.score.dtype == np.float32  # the calibrated scores tie
    assert np.isinf(raw[found.item >= 0]).any()  # the case was really there
    for b in range(5):
        place = {item: k for k, item in enumerate(found.item[b])}
        for item, score in zip(ranked.item[b], ranked.score[b], strict=True):
            value = raw[b, place[item]]
            good = item >= 0 and np.isfinite(value)
            assert score == (stage.ranker.calibrate(value) if good else 0)


def test_keeps_k_candidates_with_their_columns(asked):
    stage, batch, found = asked
    ranked = run_local(stage.rank(batch, found, 10))
    assert ranked.item.shape == (5, 10) and ranked.source_rank.shape == (5, 10, 3)
    for b in range(5):
        at = [found.item[b].tolist().index(item) for item in ranked.item[b]]
        np.testing.assert_array_equal(ranked.source_score[b], found.source_score[b, at])
        np.testing.assert_array_equal(ranked.fused[b], found.fused[b, at])
    everything = run_local(stage.rank(batch, found, 40))
    np.testing.assert_array_equal(everything.item[:, :10], ranked.item)
    assert run_local(stage.rank(batch, found, 500)).item.shape == (5, 40)


def test_batch_equals_single(asked):
    stage, batch, found = asked
    whole = run_local(stage.rank(batch, found, 15))
    for b in range(5):
        one = run_local(stage.rank(batch.take(slice(b, b + 1)), found.take(slice(b, b + 1)), 15))
        np.testing.assert_array_equal(one.item[0], whole.item[b])
        np.testing.assert_array_equal(one.score[0], whole.score[b])


def test_a_list_from_the_caller_is_ranked_completely(asked):
    stage, batch, found = asked
    nan = np.full((5, 6, 3), np.nan, np.float32)
    own = Candidates(
        found.item[:, :6], np.zeros((5, 6), np.float32), nan, nan, np.zeros((5, 6), np.float32), found.sources
    )
    ranked = run_local(stage.rank(batch, own, 6))
    np.testing.assert_array_equal(np.sort(ranked.item), np.sort(own.item))
    np.testing.assert_array_equal(ranked.item, naive(stage, batch, own)[0])


def test_columns_are_matched_by_name(asked):
    stage, batch, found = asked
    expected = run_local(stage.rank(batch, found, 40))
    fewer = ColumnRanker(("item_age_days", "item_positives_7d"))
    ranked = run_local(replace(stage, ranker=fewer).rank(batch, found, 40))
    np.testing.assert_array_equal(ranked.item, expected.item)
    with pytest.raises(FeatureError, match=r"missing: src_als_rank"):
        run_local(replace(stage, ranker=ColumnRanker(("src_als_rank",))).rank(batch, found, 5))


class Given:
    def __init__(self, found):
        self.found = found

    async def candidates(self, requests, k):
        return self.found


def test_a_failing_ranker_is_named_in_degraded(asked):
    stage, batch, found = asked
    broken = replace(stage, ranker=replace(stage.ranker, broken=True))
    with pytest.raises(ArithmeticError, match="no finite score"):
        run_local(broken.rank(batch, found, 5))
    funnel = Funnel(Given(found), broken, None)
    ranked = run_local(funnel._rank(batch, found, 5))
    assert ranked.degraded == ("ranking",)
    np.testing.assert_array_equal(ranked.item, found.item[:, :5])


def test_without_a_ranker_the_fused_order_is_served(asked):
    _, batch, found = asked
    shuffled = found.reorder(np.tile(np.random.default_rng(1).permutation(40), (5, 1)))
    ranked = run_local(FusedRanking().rank(batch, shuffled, 20))
    np.testing.assert_array_equal(ranked.item, found.item[:, :20])
    np.testing.assert_array_equal(ranked.score, found.fused[:, :20])


def test_a_user_without_events_gets_the_fused_order(asked):
    stage, batch, found = asked
    shuffled = found.reorder(np.tile(np.random.default_rng(1).permutation(40), (5, 1)))
    expected = run_local(stage.rank(batch, shuffled, 10))
    item = batch.history.item.copy()
    item[2] = NONE
    ranked = run_local(stage.rank(replace(batch, history=replace(batch.history, item=item)), shuffled, 10))
    np.testing.assert_array_equal(ranked.item[2], found.item[2, :10])
    np.testing.assert_array_equal(ranked.score[2], found.fused[2, :10])
    np.testing.assert_array_equal(ranked.item[[0, 1, 3, 4]], expected.item[[0, 1, 3, 4]])
    for_all = replace(stage, ranker=RankerForAll(stage.ranker.features))
    alone = run_local(for_all.rank(replace(batch, history=replace(batch.history, item=item)), shuffled, 10))
    assert (alone.item[2] != ranked.item[2]).any()


@settings(max_examples=60, deadline=None)
@given(
    raw=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, np.nan, np.inf]), min_size=1, max_size=12),
    real=st.integers(0, 4095),
    k=st.integers(1, 14),
)
def test_ranking_loses_and_duplicates_no_candidate(raw, real, k):
    row = np.array([raw])
    exists = (real >> np.arange(len(raw)) & 1).astype(bool)[None]
    finite = np.isfinite(row) & exists
    order = best_first(row, finite, exists, len(raw))[0]
    assert sorted(order) == list(range(len(raw)))
    kinds = np.where(finite[0, order], 0, np.where(exists[0, order], 1, 2))
    assert (np.diff(kinds) >= 0).all() and (np.diff(row[0, order[kinds == 0]]) <= 0).all()
    np.testing.assert_array_equal(best_first(row, finite, exists, k)[0], order[:k])


def looking(stage, keeps, trees=1):
    ranking = stage.config.ranking.model_copy(update={"first_look_trees": trees, "first_look_keeps": keeps})
    return replace(stage, config=stage.config.model_copy(update={"ranking": ranking}))


@dataclass(frozen=True)
class RoughRanker(ColumnRanker):
    """Its first trees order by another column."""

    rough: str = "item_positives_1d"

    def raw(self, x, trees=0, use=True):
        return np.where(use, x[..., self.features.index(self.rough if trees else self.column)], np.float32(np.nan))


def test_the_preselection_drops_the_lowest_scores_of_its_trees(asked):
    stage, batch, found = asked
    stage = replace(stage, ranker=RoughRanker(stage.ranker.features))
    whole = run_local(stage.rank(batch, found, 10))
    by_rough = replace(stage, ranker=RoughRanker(stage.ranker.features, "item_positives_1d"))
    rough = run_local(by_rough.rank(batch, found, 15))
    looked = run_local(looking(stage, 15).rank(batch, found, 10))
    for b in range(len(found)):
        kept = set(rough.item[b])
        order = run_local(stage.rank(batch, found, 40)).item[b]
        finite = [i for i in order if i in kept][:10]
        assert looked.item[b].tolist() == finite
    assert (looked.item != whole.item).any()
    np.testing.assert_array_equal(run_local(looking(stage, 40).rank(batch, found, 10)).item, whole.item)


def test_the_preselection_keeps_at_least_k_candidates(asked):
    stage, batch, found = asked
    looked = run_local(looking(stage, 3).rank(batch, found, 12))
    assert looked.item.shape == (5, 12) and (looked.item >= 0).all()
    everything = run_local(looking(stage, 3).rank(batch, found, 40))
    np.testing.assert_array_equal(everything.item, run_local(stage.rank(batch, found, 40)).item)


@dataclass(frozen=True)
class ListReader(ColumnRanker):
    """Adds to each score what it read of the history: as many as items there, plus the sum of their weights."""

    history_items: int = 3

    def raw(self, x, trees=0, use=True, lists=None):
        raw = super().raw(x, trees, use)
        if lists is None:
            return raw
        known = ~np.isnan(lists.weight)
        age = lists.history[:, :, self.features.index("hours_since_item")]
        assert (np.isfinite(age) == known).all()  # a row is that of the item as a candidate
        return raw + (known.sum(axis=1) + np.nansum(lists.weight, axis=1))[:, None]


def test_a_ranker_of_lists_reads_the_latest_items_of_the_history(asked):
    stage, batch, found = asked
    reader = ListReader(stage.ranker.features)
    x, lists = replace(stage, ranker=reader).read_rows(batch, found)
    np.testing.assert_array_equal(x, stage.read_rows(batch, found)[0])  # the history changes no candidate's features
    np.testing.assert_array_equal(lists.real, found.item != NONE)
    latest = batch.history.item[:, -3:] != NONE
    expected = latest.sum(axis=1) + np.where(latest, batch.history.weight[:, -3:], 0).sum(axis=1)
    scored = replace(stage, ranker=reader).score_rows(x, lists, lists.real)
    np.testing.assert_allclose(scored, stage.score_rows(x, lists, lists.real) + expected[:, None], rtol=1e-5)


@dataclass(frozen=True)
class ExplainedReader(ListReader):
    """Explains a row by what it read: the values of the row, and the number of items of the history as the base."""

    def contributions_in_list(self, x, row, lists):
        return np.nan_to_num(x[row]), float((~np.isnan(lists.weight[0])).sum())


def test_a_ranker_of_lists_explains_a_row_within_its_list(asked):
    stage, batch, found = asked
    stage, one = replace(stage, ranker=ExplainedReader(stage.ranker.features)), slice(2, 3)
    item = int(found.item[2, 5])
    _, told = run_local(explain_ranking(stage, batch.take(one), found.take(one), item, 10))
    np.testing.assert_array_equal(told.values, stage.matrix(batch, found)[2, 5])
    assert told.features == stage.ranker.features
    assert told.base == (batch.history.item[2, -3:] != NONE).sum() > 0
    assert told.raw == pytest.approx(told.base + np.nan_to_num(told.values).sum(dtype=np.float64))
