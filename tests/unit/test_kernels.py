"""The compiled kernels give what the NumPy code gives, bit for bit."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from handsell.core.batches import NONE, Ragged
from handsell.core.kernels import compiled
from handsell.core.units import DAY_US
from handsell.features import crosses, matrix
from handsell.ranking import stage as ranking
from handsell.ranking.trees import TreeTables, _complete, _find_depth
from handsell.ranking.xgboost_import import xgboost
from handsell.reranking import compiled_selection
from handsell.reranking.calibrated import TasteCalibration
from handsell.reranking.dpp import Determinantal, build_kernel
from handsell.reranking.selection import Pool, select
from handsell.reranking.spacing import ItemGap
from handsell.retrieval import fusion, history_weights
from handsell.retrieval.history_weights import HistoryWeights
from handsell.retrieval.index import item_to_item
from handsell.retrieval.index.vector_index import VectorIndex
from handsell.retrieval.models import item_knn
from handsell.retrieval.models.transitions import Transitions, TransitionsConfig
from handsell.testing.small_catalog import draw_candidates, draw_requests, draw_snapshot
from kernel_results import check_equal
from server_programs import report_missing


@pytest.fixture(autouse=True)
def require_kernels():
    if compiled is None:
        report_missing("the kernels were not built: no C compiler at installation")


def draw_found(rng, rows: int, sizes: tuple[int, ...], items: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Results of sources with padding at the end of some rows, and one source that found nothing."""
    found = []
    for size in sizes:
        item = np.stack([rng.permutation(items)[:size] for _ in range(rows)]).astype(np.int32)
        item[np.arange(size) >= rng.integers(0, size + 1, rows)[:, None]] = NONE
        score = np.where(item == NONE, np.nan, rng.normal(size=item.shape)).astype(np.float32)
        found.append((item, score))
    return [*found, (np.full((rows, 1), NONE, np.int32), np.full((rows, 1), np.nan, np.float32))]


@pytest.mark.parametrize("k", [1, 40, 1_000])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 0.5), (0.0, 0.0, 1.0, 0.3), (1.0, 1 + 1e-9, 1 - 1e-9, 0.5)])
def test_fusion(rng, monkeypatch, k, weights):
    found = draw_found(rng, 5, (60, 200, 30), 250)
    names = ("a", "b", "c", "d")

    def fuse():
        fused = fusion.fuse_sources(found, names, weights, k)
        return fused.item, fused.fused, fused.score, fused.source_score, fused.source_rank

    check_equal(monkeypatch, fusion, fuse)
    assert fusion.fuse_sources(draw_found(rng, 2, (), 1), (), (), k).item.tolist() == [[NONE], [NONE]]


@pytest.mark.parametrize("rows", [1, 16])
def test_the_feature_matrix(rng, monkeypatch, rows):
    shelf = draw_snapshot(rng)
    requests, found = draw_requests(rng, shelf, rows), draw_candidates(rng, shelf, rows, 40, pad=4)
    requests.history.item[0] = NONE
    score = np.where(np.isfinite(found.source_rank), rng.normal(size=found.source_rank.shape), np.nan)
    found = replace(found, source_score=score.astype(np.float32))
    found.source_score[:, :, 1] = np.nan  # a source that found nothing
    out = np.zeros((rows, 40, 2 * len(found.sources) + 2), np.float32)

    def compute():
        matrix._write_source_features(found, None, out)
        return (out.copy(),)

    check_equal(monkeypatch, matrix, compute)
    check_equal(monkeypatch, crosses, lambda: (crosses.compute_crosses(requests, found.item, shelf),))


def test_the_order_of_scores(rng, monkeypatch):
    raw = rng.normal(size=(7, 300)).astype(np.float32).round(1)  # with ties, and 0 beside -0
    raw[rng.random(raw.shape) < 0.1] = np.inf
    raw[rng.random(raw.shape) < 0.1] = np.nan
    real = rng.random(raw.shape) < 0.9
    for k in (0, 10, 500):
        check_equal(monkeypatch, ranking, lambda k=k: (ranking.best_first(raw, np.isfinite(raw) & real, real, k),))


@pytest.mark.parametrize(("depth", "gamma"), [(1, 0), (5, 0), (7, 0), (7, 2.0)])  # with gamma, branches are cut back
def test_trees(rng, depth, gamma):
    x = rng.normal(size=(500, 9)).astype(np.float32)
    x[rng.random(x.shape) < 0.3] = np.nan
    label = np.nan_to_num(x[:, 0]) * np.nan_to_num(x[:, 1]) + np.isnan(x[:, 2])
    settings = {"max_depth": depth, "gamma": gamma, "nthread": 1, "eta": 0.3, "base_score": 0.5}
    booster = xgboost.train(settings, xgboost.DMatrix(x, label), 30)
    tables = TreeTables.of(booster)
    use = rng.random(len(x)) < 0.8
    for trees in (0, 1, 12, 100):
        expected = booster.inplace_predict(x, iteration_range=(0, min(trees, 30)), predict_type="margin")
        found = tables.predict(x, use, trees)
        np.testing.assert_array_equal(found[use], expected[use])
        assert np.isnan(found[~use]).all()


def test_nodes_of_a_tree_may_be_numbered_in_any_order(rng):
    x = rng.normal(size=(500, 4)).astype(np.float32)
    booster = xgboost.train({"max_depth": 6, "nthread": 1}, xgboost.DMatrix(x, x[:, 0] * x[:, 1]), 1)
    saved = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]["model"]["trees"][0]
    count = len(saved["left_children"])
    number = np.concatenate([[0], count - np.arange(1, count)])  # children before their parents; the root stays
    place = np.argsort(number)
    turned = {
        name: np.array(saved[name])[place].tolist()
        for name in ("split_conditions", "split_indices", "default_left", "left_children", "right_children")
    }
    for side in ("left_children", "right_children"):
        turned[side] = [int(number[child]) if child >= 0 else child for child in turned[side]]
    assert _find_depth(turned) == _find_depth(saved) == 6
    for found, expected in zip(_complete(turned, 6), _complete(saved, 6), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_other_models_are_left_to_xgboost(rng):
    x, deep = rng.normal(size=(3_000, 3)).astype(np.float32), {"max_depth": 12}
    others = {"booster": "gblinear"}, {"booster": "dart"}, {"objective": "reg:absoluteerror"}
    for settings in (deep, {"num_parallel_tree": 2}, *others):
        booster = xgboost.train({"nthread": 1, "min_child_weight": 0, **settings}, xgboost.DMatrix(x, x[:, 0]), 2)
        assert TreeTables.of(booster) is None


def test_what_does_not_fit_is_refused():
    nothing = np.zeros((2, 3), np.float32)
    flags, order = np.ones((2, 3), bool), np.zeros((2, 3), np.int64)
    with pytest.raises(TypeError, match="argument 1"):
        compiled.order_best(nothing.astype(np.float64), flags, flags, order, 2)
    with pytest.raises(ValueError, match="one shape"):
        compiled.order_best(nothing, flags[:1], flags, order, 2)
    with pytest.raises((ValueError, BufferError)):
        compiled.order_best(nothing, flags, flags, order[:, ::2], 2)
    for trees, depth in ((0, -1), (-1, 1), (1, 31)):
        splits = np.zeros(20, np.float32), np.zeros(20, np.int32), np.zeros(20, np.float32)
        with pytest.raises(ValueError, match="trees of the given depth"):
            compiled.sum_trees(nothing, np.ones(2, bool), *splits, np.zeros(2, np.float32), 0.0, trees, depth)
    tags = Ragged.from_rows([[0], [1]])
    with pytest.raises(ValueError, match="segments"):
        compiled.sum_weights(
            np.zeros((1, 1), np.int32), np.ones((1, 1)), tags.offsets, tags.values, np.full((1, 1), 2, np.int32),
            np.zeros((1, 1)), 1,
        )  # fmt: skip


@pytest.mark.parametrize("rows", [1, 5, 20])
@pytest.mark.parametrize("size", [3, 64, 70])
def test_exact_search(rng, monkeypatch, rows, size):
    vectors = rng.normal(size=(3_000, size)).astype(np.float32)
    vectors[::7] = vectors[0]  # ties, in the order of items
    vectors[5] = 0  # unknown
    queries = rng.normal(size=(rows, size)).astype(np.float32)
    queries[-1] = 0
    index, eligible = VectorIndex.exact(vectors), rng.random((rows, 3_500)) < 0.8
    for k in (1, 100, 2_999):
        items, scores = index.search(queries, k, eligible)
        monkeypatch.setitem(index.__dict__, "_is_compiled", False)
        expected, expected_scores = index.search(queries, k, eligible)
        monkeypatch.undo()
        np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-5)
        same = items == expected
        assert same.mean() > 0.99 and same[:, :1].all()
        if rows > 1:
            assert (items[-1] == NONE).all()
        agrees = index.score(queries, items)
        np.testing.assert_allclose(agrees, scores, rtol=1e-5, atol=1e-5)


def test_histories_and_their_neighbors(rng, monkeypatch):
    shelf = draw_snapshot(rng)
    requests = draw_requests(rng, shelf, 6)
    shape = (6, 200)
    item = rng.integers(-1, len(shelf) // 3, shape).astype(np.int32)  # with repeats
    item[1, 20:] = 3  # one item, more than 128 times
    time = np.sort(rng.integers(0, 30 * DAY_US, shape), axis=1) + requests.time[:, None] - 25 * DAY_US
    weight = rng.choice(np.array([1, 2, -0.5, 0], np.float32), shape)
    requests = replace(requests, history=replace(requests.history, item=item, time=time, weight=weight))
    for weights in (HistoryWeights(3.0), HistoryWeights(30.0, half_life_events=4.0, dislikes=0.3)):
        check_equal(
            monkeypatch, history_weights, lambda w=weights: history_weights.weigh_history(requests, w, len(shelf) - 2)
        )
    near = sparse.random(len(shelf), len(shelf), 0.2, "csr", np.float32, rng)
    model = item_knn.ItemKNN(near, np.ones(len(shelf), bool), HistoryWeights(5.0))
    eligible = rng.random((6, len(shelf) + 3)) < 0.9
    for k in (3, 1_000):
        check_equal(monkeypatch, item_knn, lambda k=k: model.retrieve(requests, k, eligible))


@pytest.mark.parametrize("gap", [0, 1, 3])
@pytest.mark.parametrize("criteria", [(), ("diversity",), ("taste",), ("diversity", "taste")])
def test_selection(rng, monkeypatch, gap, criteria):
    rows, width, tags, n = 6, 40, 12, 12
    has = rng.random((rows, width, tags)) < 0.2
    vectors = has / np.sqrt(np.maximum(has.sum(axis=2, keepdims=True), 1))
    vectors[:, 1] = vectors[:, 0]  # ties
    cosine = np.round(vectors @ vectors.transpose(0, 2, 1), 5)
    creator = rng.integers(0, 5, (rows, width))
    creator[2] = 0  # a gap must be broken
    related = creator[:, :, None] == creator[:, None]
    utility = np.round(rng.random((rows, width)), 1)
    utility[:, 1] = utility[:, 0]
    allowed, finite = rng.random((rows, width)) < 0.8, rng.random((rows, width)) < 0.9
    allowed[0, 5:] = False  # fewer than positions
    wanted = rng.dirichlet(np.ones(tags), rows).astype(np.float32)
    wanted[1] = 0

    def choose():
        made = {
            "diversity": Determinantal(build_kernel(cosine, related), np.full(rows, 0.1), n),
            "taste": TasteCalibration((vectors**2).astype(np.float32), wanted, 0.3),
        }
        constraints = [ItemGap(related, gap, "gap")] if gap else []
        found = select(Pool(utility, allowed, finite), n, [made[name] for name in criteria], constraints)
        return found.column, found.broken, found.propensity, found.explored

    check_equal(monkeypatch, compiled_selection, choose)
    column, broken, *_ = choose()
    assert (column[0, 5:] == NONE).all() and (broken.any() == (gap > 0))


@pytest.mark.parametrize("k", [3, 500])
def test_sums_over_item_lists(rng, monkeypatch, k):
    catalog = draw_snapshot(rng, items=120, creators=6, tags=5)
    pairs = sparse.random(120, 120, 0.2, "csr", rng=rng)
    model = Transitions.from_pairs(pairs, TransitionsConfig(neighbors=15, session_gap_minutes=60 * 24 * 365))
    requests = draw_requests(rng, catalog, 12)
    eligible = rng.random((12, 130)) < 0.8
    check_equal(monkeypatch, item_to_item, lambda: model.retrieve(requests, k, eligible))
    items, scores = model.retrieve(requests, k, eligible)
    assert (items >= 0).sum() > 12 and np.nanmax(scores) > 0


@pytest.mark.parametrize("wrong", [5, -2], ids=["beyond", "below"])
def test_sums_over_item_lists_read_nothing_beside_them(wrong):
    one, allowed = np.ones(1, np.float32), np.ones((1, 2), bool)
    items, scores = np.empty((1, 2), np.int32), np.empty((1, 2), np.float32)
    begin, listed = np.array([0, 1, 1], np.int32), np.array([1], np.int32)
    for item, at, names in (
        (wrong, begin, listed),
        (0, np.array([0, wrong, 1], np.int32), listed),
        (0, begin, listed + wrong),
    ):
        with pytest.raises(ValueError, match="known items"):
            compiled.select_listed(np.array([[item]], np.int32), one, at, names, one, allowed, items, scores)
