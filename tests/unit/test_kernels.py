"""The compiled kernels give what the NumPy code gives, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest

from handsell.core.batches import NONE, Ragged
from handsell.core.kernels import compiled
from handsell.features import crosses, matrix
from handsell.ranking import stage as ranking
from handsell.ranking.trees import TreeTables
from handsell.ranking.xgboost_import import xgboost
from handsell.retrieval import fusion
from handsell.testing.small_catalog import draw_candidates, draw_requests, draw_snapshot

pytestmark = pytest.mark.skipif(compiled is None, reason="the kernels were not built: no C compiler at installation")


def check_equal(monkeypatch, module, compute):
    """Compute with the kernels and without them; the results are equal."""
    found = compute()
    monkeypatch.setattr(module, "compiled", None)
    expected = compute()
    monkeypatch.undo()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.asarray(one).dtype == np.asarray(other).dtype


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
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 0.5), (0.0, 0.0, 1.0, 0.3)])
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


@pytest.mark.parametrize("depth", [1, 5, 7])
def test_trees(rng, depth):
    x = rng.normal(size=(500, 9)).astype(np.float32)
    x[rng.random(x.shape) < 0.3] = np.nan
    label = np.nan_to_num(x[:, 0]) * np.nan_to_num(x[:, 1]) + np.isnan(x[:, 2])
    settings = {"max_depth": depth, "nthread": 1, "eta": 0.3, "base_score": 0.5}
    booster = xgboost.train(settings, xgboost.DMatrix(x, label), 30)
    tables = TreeTables.of(booster)
    use = rng.random(len(x)) < 0.8
    for trees in (0, 1, 12, 100):
        expected = booster.inplace_predict(x, iteration_range=(0, min(trees, 30)), predict_type="margin")
        found = tables.predict(x, use, trees)
        np.testing.assert_array_equal(found[use], expected[use])
        assert np.isnan(found[~use]).all()


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
    tags = Ragged.from_rows([[0], [1]])
    with pytest.raises(ValueError, match="segments"):
        compiled.sum_weights(
            np.zeros((1, 1), np.int32), np.ones((1, 1)), tags.offsets, tags.values, np.full((1, 1), 2, np.int32),
            np.zeros((1, 1)), 1,
        )  # fmt: skip
