"""The ranking transformer finds what only the list or the history reveals; its files, odd values and determinism."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from handsell.core.errors import BundleError, TrainingError
from handsell.ranking import transformer
from handsell.ranking.blended_ranker import BlendedRanker, choose_blend, measure_ndcg
from handsell.ranking.config import RankingConfig
from handsell.ranking.examples import HISTORY_LABEL, Examples
from handsell.ranking.fitting import fit_xgboost
from handsell.ranking.lists import CONTEXT, ListContext, Lists
from handsell.ranking.neural.fitting import find_knots, fit_transformer, train_network
from handsell.ranking.neural.network import TransformerNetwork
from handsell.ranking.ranker_files import load_ranker
from handsell.ranking.shapley import sample_contributions
from handsell.ranking.shards import read_shards, shard_folders, write_shards
from handsell.ranking.transformer import TransformerRanker

NAMES = ("taste", "season", "style")
ROWS, PAST = 30, 4
CONFIG = RankingConfig(
    model="transformer",
    trees=30,
    min_child_weight=1.0,
    transformer={"embedding_size": 16, "epochs": 10, "learning_rate": 0.015, "dropout": 0.0, "history_items": PAST},
)


def plant_lists(rng, lists: int, first: int = 0) -> Examples:
    """Lists in which a row alone says little.

    In even lists, the best three have the highest `taste` if the mean `season` of the list is positive, else the
    lowest.
    In odd ones, they have the highest `style` if the history's is positive, else the lowest. The `season` of a row
    differs from the mean so much that its sign is right for two of three rows.
    """
    sign = rng.choice([-1.0, 1.0], lists)
    x = rng.normal(size=(lists, ROWS + PAST, 3))
    even = np.arange(lists) % 2 == 0
    x[even, :, 1] += 0.4 * sign[even, None]
    x[~even, :, 1] = 5.0  # an odd list
    x[:, ROWS:, :2] = np.nan
    x[:, ROWS:, 2] = np.abs(x[:, ROWS:, 2]) * np.where(even, 0, sign)[:, None]
    utility = sign[:, None] * np.where(even[:, None], x[:, :ROWS, 0], x[:, :ROWS, 2])
    place = np.argsort(np.argsort(-utility, axis=1), axis=1)
    label = np.concatenate([np.clip(3 - place, 0, 3), np.full((lists, PAST), HISTORY_LABEL)], axis=1)
    qid = np.repeat(np.arange(first, first + lists, dtype=np.int64) * 7919, ROWS + PAST)
    return Examples(
        qid=qid,
        item=np.tile(np.arange(ROWS + PAST, dtype=np.int32), lists),
        label=label.astype(np.int8).ravel(),
        weight=np.ones(len(qid), np.float32),
        x=x.reshape(-1, 3).astype(np.float32),
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("lists"), np.random.default_rng(0)
    for name, lists, first in (("train", 300, 0), ("validation", 100, 10**6)):
        write_shards(plant_lists(rng, lists, first), NAMES, folder / name, "part", 2)
    return folder / "train", folder / "validation"


@pytest.fixture(scope="module")
def held_out(folders):
    return read_shards(shard_folders(folders[1]), NAMES, history=True)


@pytest.fixture(scope="module")
def fitted(folders):
    return fit_transformer(*folders, CONFIG, NAMES)


def measure_halves(score, rows):
    """NDCG@3 of the lists whose signal is in the list, and of those whose signal is in the history."""
    listed = rows.label != HISTORY_LABEL
    in_list = listed & ~np.isin(rows.qid, rows.qid[rows.x[:, 1] == 5.0])
    return [measure_ndcg(score[at], rows.label[at], rows.qid[at], top=3) for at in (in_list, listed & ~in_list)]


def test_it_finds_what_trees_on_single_rows_cannot_see(folders, fitted, held_out):
    trees = fit_xgboost(*folders, CONFIG, NAMES)
    blind = measure_halves(trees.raw(held_out.x), held_out)
    found = measure_halves(fitted.score_examples(held_out), held_out)
    assert max(blind) < 0.65
    assert min(found) > 0.7


def test_without_the_history_its_signal_is_lost(fitted, held_out):
    rows = held_out.label != HISTORY_LABEL
    alone = replace(
        held_out, **{name: getattr(held_out, name)[rows] for name in ("qid", "item", "label", "weight", "x")}
    )
    assert measure_halves(fitted.score_examples(alone), alone)[1] < 0.6


def test_the_blend_leaves_out_trees_that_see_nothing(folders, fitted, held_out):
    trees = fit_xgboost(*folders, CONFIG, NAMES)
    blend = choose_blend(trees, fitted, held_out)
    x = held_out.x[held_out.label != HISTORY_LABEL].reshape(-1, ROWS, 3)
    assert np.corrcoef(blend.raw(x).ravel(), fitted.raw(x).ravel())[0, 1] > 0.95
    swapped = choose_blend(
        trees, replace(fitted, weights={**fitted.weights, "score": -fitted.weights["score"]}), held_out
    )
    assert swapped.of_transformer == 0


def test_a_blend_computes_no_ranker_without_weight(folders, fitted, held_out):
    trees, x = fit_xgboost(*folders, CONFIG, NAMES), np.zeros((1, 4, 3), np.float32)
    for of_trees, of_transformer, ranker in ((0.0, 2.0, fitted), (2.0, 0.0, trees)):
        kept = (trees if of_trees else None, fitted if of_transformer else None)
        blend = BlendedRanker(*kept, of_trees, of_transformer, fitted.calibration)
        np.testing.assert_array_equal(blend.raw(x), 2 * ranker.raw(x))


def test_numpy_computes_what_torch_trained(folders, held_out):
    network = train_network(held_out, held_out, CONFIG, 0.0, find_knots(held_out)).eval()
    weights = {name: p.detach().numpy() for name, p in network.named_parameters()} | {"knots": network.knots}
    ranker = TransformerRanker(NAMES, weights, None, 0.0, PAST)
    rows = held_out.label.reshape(-1, ROWS + PAST)
    past = np.tile(np.arange(ROWS + PAST) >= ROWS, (len(rows), 1))
    x = held_out.x.reshape(len(rows), -1, 3)
    x = np.concatenate([x[:, :ROWS], x[:, ROWS:]], axis=1)
    with torch.no_grad():
        inputs = (x, np.ones(past.shape, np.float32), past, np.ones(past.shape, bool), np.zeros(past.shape, np.float32))
        expected = network(*map(torch.from_numpy, inputs)).numpy()[:, :ROWS]
    real = np.ones((len(rows), ROWS), bool)
    lists = Lists(real, real.astype(np.float32), x[:, ROWS:], np.ones((len(rows), PAST), np.float32))
    np.testing.assert_allclose(ranker.raw(x[:, :ROWS], lists=lists), expected, atol=2e-5)


def test_the_same_seed_gives_the_same_scores(folders, held_out):
    folder = folders[1]
    short = CONFIG.model_copy(update={"transformer": CONFIG.transformer.model_copy(update={"epochs": 1})})
    one, again, other = (
        fit_transformer(folder, folder, short.model_copy(update={"seed": seed}), NAMES).score_examples(held_out)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other, equal_nan=True)


def test_padding_does_not_change_the_scores(fitted):
    x = np.random.default_rng(3).normal(size=(2, 30, 3)).astype(np.float32)
    real = np.arange(30) < np.array([[30], [12]])
    padded = fitted.raw(x, use=real, lists=Lists.without_history(real, 3))
    np.testing.assert_array_equal(padded[1, :12], fitted.raw(x[1:, :12])[0])
    assert np.isnan(padded[1, 12:]).all() and np.isfinite(padded[0]).all()


def test_candidates_that_the_first_look_drops_still_are_context(fitted):
    x = np.random.default_rng(4).normal(size=(1, 40, 3)).astype(np.float32)
    real, look = np.ones((1, 40), bool), np.arange(40)[None] < 10
    kept = fitted.raw(x, use=look, lists=Lists.without_history(real, 3))
    np.testing.assert_allclose(kept[0, :10], fitted.raw(x)[0, :10], atol=1e-5)


@pytest.mark.parametrize("kind", ["transformer", "blend"])
def test_contributions_of_features_sum_to_the_score_in_the_list(folders, fitted, kind):
    ranker = fitted
    if kind == "blend":
        ranker = BlendedRanker(fit_xgboost(*folders, CONFIG, NAMES), fitted, 0.7, 0.4, fitted.calibration)
    rng = np.random.default_rng(6)
    x = rng.normal(size=(1, CONTEXT + 20, 3)).astype(np.float32)
    x[0, 2, 0], x[0, 3] = np.nan, np.nan
    real = np.ones(x.shape[:2], bool)
    history = rng.normal(size=(1, PAST, 3)).astype(np.float32)
    lists = Lists(real, real.astype(np.float32), history, np.ones((1, PAST), np.float32))
    raw = ranker.raw(x, lists=lists)[0]
    for row in (0, 1, 2, 3):  # every second one is context
        each, base = ranker.contributions_in_list(x[0], row, lists)
        assert each.dtype == np.float32 and each.sum() + base == pytest.approx(raw[row], abs=1e-4)
        np.testing.assert_array_equal(each, ranker.contributions_in_list(x[0], row, lists)[0])
    if kind == "transformer":  # missing values say nothing
        assert ranker.contributions_in_list(x[0], 2, lists)[0][0] == 0
        assert not each.any()


def test_sampled_contributions_are_exact_for_a_sum_and_share_a_product():
    row = np.array([2.0, 3.0, np.nan], np.float32)

    def score(rows):
        x = np.nan_to_num(rows)
        return 1 + 5 * x[:, 0] + x[:, 0] * x[:, 1]

    each, base = sample_contributions(row, score)
    assert each.tolist() == [13, 3, 0] and base == 1


def test_without_the_fused_score_the_first_look_follows_the_order_of_the_candidates(fitted):
    rough = fitted.raw(np.zeros((1, 4, 3), np.float32), 20, np.array([[True, True, False, True]]))
    assert np.argsort(-rough[0])[:3].tolist() == [0, 1, 3] and np.isnan(rough[0, 2])


def test_a_training_that_diverges_names_the_learning_rate(held_out):
    wild = CONFIG.transformer.model_copy(update={"learning_rate": 1e30, "epochs": 1})
    with pytest.raises(TrainingError, match=r"lower ranking\.transformer\.learning_rate"):
        train_network(held_out, held_out, CONFIG.model_copy(update={"transformer": wild}), 0.0, find_knots(held_out))


def test_long_lists_are_scored_against_a_part_of_them(fitted):
    x = np.random.default_rng(5).normal(size=(1, 4 * CONTEXT, 3)).astype(np.float32)
    raw = fitted.raw(x)
    same = fitted.raw(np.concatenate([x[:, ::4], x[:, ::4]], axis=1)[:, :CONTEXT])
    assert np.isfinite(raw).all()
    assert np.corrcoef(raw[0, ::4], same[0])[0, 1] > 0.99


def test_missing_and_infinite_values_give_finite_scores(fitted):
    x = np.full((1, 6, 3), np.nan, np.float32)
    x[0, 1], x[0, 2], x[0, 3], x[0, 4] = np.inf, -np.inf, 3e38, -3e38
    raw = fitted.raw(x)[0]
    assert np.isfinite(raw).all()
    assert raw[1] == pytest.approx(raw[3], abs=1e-4)  # infinite: as the largest value seen in training
    assert np.isfinite(fitted.raw(x[:, :1])).all()  # a single candidate, without any value


def test_knots_leave_out_unknown_values_and_keep_few_distinct_ones(folders, held_out):
    x = np.where(np.arange(len(held_out))[:, None] % 2, np.array([1.0, np.nan, np.inf]), np.array([0.0, np.nan, 2.0]))
    knots = find_knots(replace(held_out, x=x.astype(np.float32)))
    assert knots[0, :2].tolist() == [0, 1] and np.isnan(knots[0, 2:]).all()
    assert np.isnan(knots[1]).all() and knots[2, 0] == 2 and np.isnan(knots[2, 1:]).all()


def test_loading_finds_the_kind_of_ranker(folders, fitted, held_out, tmp_path):
    trees = fit_xgboost(*folders, CONFIG, NAMES)
    for name, ranker in (("x", trees), ("t", fitted), ("b", choose_blend(trees, fitted, held_out))):
        ranker.save(tmp_path / name)
        assert type(load_ranker(tmp_path / name)) is type(ranker)
    (tmp_path / "b" / "trees" / "features.json").write_text(json.dumps(["a", "b", "c"]))
    with pytest.raises(BundleError, match="roll back"):
        load_ranker(tmp_path / "b")


@pytest.mark.parametrize("name", ["transformer.safetensors", "features.json", "history.json", "calibration.json"])
@pytest.mark.parametrize("content", [None, b"", b"{nonsense"])
def test_a_missing_or_corrupt_file_of_the_transformer_is_a_bundle_error(fitted, tmp_path, name, content):
    fitted.save(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError, match="roll back"):
        TransformerRanker.load(tmp_path)


def test_features_of_another_training_are_rejected(fitted, tmp_path):
    fitted.save(tmp_path)
    (tmp_path / "features.json").write_text(json.dumps(NAMES[:-1]))
    with pytest.raises(BundleError, match=r"has 3 features, features.json has 2"):
        load_ranker(tmp_path)
    with pytest.raises(BundleError, match="expects 3 features, got 4 columns"):
        fitted.score(np.zeros((1, 2, 4), np.float32))


def test_fitting_the_transformer_without_examples_raises_an_error_with_advice(folders, tmp_path):
    nothing = plant_lists(np.random.default_rng(0), 0)
    write_shards(nothing, NAMES, tmp_path / "none", "p", 1)
    with pytest.raises(TrainingError, match="no positive was among the candidates"):
        fit_transformer(tmp_path / "none", folders[1], CONFIG, NAMES)
    short = CONFIG.model_copy(update={"transformer": CONFIG.transformer.model_copy(update={"epochs": 1})})
    ranker = fit_transformer(folders[1], tmp_path / "none", short, NAMES)  # without validation: all epochs
    assert np.isfinite(ranker.score(np.zeros((1, 3, 3), np.float32))).all()


def test_serving_does_not_import_torch(fitted, tmp_path):
    fitted.save(tmp_path)
    code = (
        "import sys, numpy as np; from pathlib import Path; from handsell.ranking.ranker_files import load_ranker; "
        f"load_ranker(Path({str(tmp_path)!r})).score(np.zeros((1, 5, 3), np.float32)); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.skipif(transformer.compiled is None, reason="needs the compiled kernels")
@pytest.mark.parametrize("size", [16, 32, 64])
def test_kernels_compute_what_numpy_does(monkeypatch, size):
    rng = np.random.default_rng(size)
    knots = np.sort(rng.normal(size=(3, 13)), axis=1).astype(np.float32)
    knots[1, 5:], knots[2] = np.nan, np.nan
    network = TransformerNetwork(knots, size, 0.0)
    weights = {name: p.detach().numpy() * 2 for name, p in network.named_parameters()} | {"knots": knots}
    weights["score"] = rng.normal(size=size).astype(np.float32)
    ranker = TransformerRanker(NAMES, weights, None, 0.0, PAST)
    x = rng.normal(size=(3, 300, 3)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    x[:, :, 1] = np.round(x[:, :, 1])  # some values are knots
    knots[1, :5] = np.arange(-2, 3)
    x[0, :, 2], x[1, 0], x[1, 1] = 7.0, np.inf, -np.inf
    real = rng.random(x.shape[:2]) < 0.9
    past = rng.normal(size=(3, PAST, 3)).astype(np.float32)
    weight = np.where(np.arange(PAST) < 3, 1.0, np.nan) * np.ones((3, 1))
    lists = Lists(real, np.ones(real.shape, np.float32), past, weight.astype(np.float32))
    use = real & (rng.random(x.shape[:2]) < 0.5)
    nothing = np.zeros(0, int)
    alone = ListContext(nothing, np.zeros(0, np.float32), past[0], np.ones(PAST, np.float32))
    assert ranker._score_list(x[0], nothing, alone).shape == (0,)
    found = ranker.raw(x, use=use, lists=lists)
    monkeypatch.setattr(transformer, "compiled", None)
    np.testing.assert_allclose(found, ranker.raw(x, use=use, lists=lists), rtol=1e-4, atol=1e-4)
