"""The ranker's prior: an initial margin from the fused score."""

import json
from dataclasses import replace

import numpy as np
import pytest

from handsell.core.errors import BundleError
from handsell.ranking.calibration import Calibration
from handsell.ranking.config import RankingConfig
from handsell.ranking.examples import Coverage, Examples
from handsell.ranking.fitting import PRIOR, fit_xgboost
from handsell.ranking.shards import write_shards
from handsell.ranking.xgboost_ranker import FUSED, XGBoostRanker, compute_fused_margin
from handsell.retrieval.fusion import K0, fuse_sources, max_fused_score
from handsell.testing.planted_ranking import GROUP, ndcg

NAMES = ("noise_0", "noise_1", FUSED, *(f"noise_{i}" for i in range(2, 12)))
AT = NAMES.index(FUSED)
KEPT = ("qid", "item", "label", "weight", "x")
LARGEST = max_fused_score([1.0, 1.0])
SMALL = RankingConfig(trees=30, depth=4, min_child_weight=0.1, early_stopping_rounds=10)


def planted(rng: np.random.Generator, groups: int, first: int = 0, sign: int = 1) -> Examples:
    """Groups in which three of the first candidates in fused order are positive, and all other columns are noise.

    With `sign` -1 they are among the last, so that the fused order misleads.
    """
    x = rng.normal(size=(groups, GROUP, len(NAMES))).astype(np.float32)
    place = np.argsort(np.argsort(rng.random((groups, GROUP)), axis=1), axis=1)
    x[..., AT] = LARGEST * (K0 + 1) / (K0 + 1 + place)
    noisy = -sign * place + rng.gumbel(0, 4.0, place.shape)
    best = np.argsort(np.argsort(-noisy, axis=1), axis=1) < 3
    qid = np.repeat(np.arange(first, first + groups, dtype=np.int64) * 7919, GROUP)
    return Examples(
        qid, np.tile(np.arange(GROUP, dtype=np.int32), groups), best.astype(np.int8).ravel(),
        np.ones(len(qid), np.float32), x.reshape(-1, len(NAMES)), Coverage(groups, groups, 3 * groups, 3 * groups),
    )  # fmt: skip


def ranked(score: np.ndarray, examples: Examples) -> float:
    return ndcg(score.reshape(-1, GROUP), examples.label.reshape(-1, GROUP))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Six groups to learn from and a hundred to judge by: trees alone learn mostly noise."""
    folder, rng = tmp_path_factory.mktemp("prior"), np.random.default_rng(4)
    for name, groups, first in (("train", 6, 0), ("validation", 100, 1_000)):
        write_shards(planted(rng, groups, first), NAMES, folder / name, "p", 1)
    return folder / "train", folder / "validation"


@pytest.fixture(scope="module")
def fitted(folders):
    return fit_xgboost(*folders, SMALL, NAMES, prior=PRIOR / LARGEST)


@pytest.fixture
def x(rng):
    x = planted(rng, 5).x.reshape(5, GROUP, len(NAMES))
    x[0, :4, AT] = np.nan
    x[1, :10, 0] = np.nan
    return x


def test_on_few_examples_the_prior_is_better(folders, fitted, rng):
    plain, fresh = fit_xgboost(*folders, SMALL, NAMES), planted(rng, 300)
    assert plain.prior == 0.0 and fitted.prior == PRIOR / LARGEST
    own, corrected, fused = (ranked(s, fresh) for s in (plain.raw(fresh.x), fitted.raw(fresh.x), fresh.x[:, AT]))
    assert corrected > own + 0.05 and corrected > fused - 0.05


def test_trees_correct_a_misleading_fused_order(tmp_path, rng):
    for name, groups, first in (("train", 60, 0), ("validation", 60, 1_000)):
        write_shards(planted(rng, groups, first, sign=-1), NAMES, tmp_path / name, "p", 1)
    more = SMALL.model_copy(update={"trees": 150, "early_stopping_rounds": 40})
    ranker = fit_xgboost(tmp_path / "train", tmp_path / "validation", more, NAMES, prior=PRIOR / LARGEST)
    fresh = planted(rng, 200, sign=-1)
    assert ranked(ranker.raw(fresh.x), fresh) > ranked(fresh.x[:, AT], fresh) + 0.3


def test_without_validation_all_trees_and_the_prior_are_kept(folders, tmp_path, rng):
    none = replace(planted(rng, 1), **{name: getattr(planted(rng, 1), name)[:0] for name in KEPT})
    write_shards(none, NAMES, tmp_path / "none", "p", 1)
    ranker = fit_xgboost(folders[0], tmp_path / "none", SMALL, NAMES, prior=3.0)
    assert ranker.prior == 3.0 and ranker.booster.num_boosted_rounds() == SMALL.trees
    assert np.isfinite(ranker.score(planted(rng, 2).x)).all()


def test_raw_scores_are_the_sum_of_trees_and_prior(fitted, x):
    trees = replace(fitted, prior=0.0)
    fused = np.nan_to_num(x[..., AT])
    np.testing.assert_allclose(fitted.raw(x), trees.raw(x) + np.float32(fitted.prior) * fused, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fitted.raw(x, 1), trees.raw(x, 1) + fitted.prior * fused, rtol=1e-5, atol=1e-5)
    assert fitted.raw(x).dtype == np.float32 and np.isfinite(fitted.raw(x)).all()


def test_a_candidate_that_every_source_ranks_first_gains_the_whole_prior():
    first = np.array([[4]], np.int32), np.ones((1, 1), np.float32)
    both = fuse_sources([first, first], ("a", "b"), [0.7, 0.3], 1)
    assert both.fused[0, 0] == pytest.approx(max_fused_score([0.7, 0.3]))
    x = np.zeros((3, len(NAMES)), np.float32)
    x[:, AT] = both.fused[0, 0], 0, np.nan
    margin = compute_fused_margin(x, NAMES, PRIOR / max_fused_score([0.7, 0.3]))
    np.testing.assert_allclose(margin, [PRIOR, 0, 0], rtol=1e-6)


def test_contributions_sum_to_the_raw_score_and_the_prior_is_that_of_the_fused_score(fitted, x):
    for row in x.reshape(-1, len(NAMES))[:60:7]:
        each, base = fitted.contributions(row)
        assert base + each.sum() == pytest.approx(float(fitted.raw(row[None])[0]), abs=1e-4)
        without, same = replace(fitted, prior=0.0).contributions(row)
        expected = np.zeros(len(NAMES))
        expected[AT] = fitted.prior * np.nan_to_num(row[AT])
        np.testing.assert_allclose(each - without, expected, atol=1e-4)
        assert same == base


def test_scores_are_probabilities_in_the_same_order(fitted, x):
    score, raw = fitted.score(x), fitted.raw(x)
    assert score.min() >= 0 and score.max() <= 1
    order = np.argsort(raw, axis=1)
    assert (np.diff(np.take_along_axis(score, order, 1), axis=1) >= 0).all()


def test_the_prior_is_saved(fitted, x, tmp_path):
    fitted.save(tmp_path)
    loaded = XGBoostRanker.load(tmp_path)
    assert loaded.prior == fitted.prior == json.loads((tmp_path / "prior.json").read_text())
    np.testing.assert_array_equal(loaded.raw(x), fitted.raw(x))


@pytest.mark.parametrize("content", [None, "", "[1]", "{nonsense", "null"])
def test_a_missing_or_corrupt_prior_is_a_bundle_error(fitted, tmp_path, content):
    fitted.save(tmp_path)
    (tmp_path / "prior.json").unlink()
    if content is not None:
        (tmp_path / "prior.json").write_text(content)
    with pytest.raises(BundleError, match=r"prior\.json is missing or corrupt.*roll back"):
        XGBoostRanker.load(tmp_path)


def test_without_a_prior_the_fused_score_is_not_needed(fitted):
    plain = XGBoostRanker(tuple(f"f{i}" for i in range(len(NAMES))), fitted.booster, Calibration.logistic())
    assert np.isfinite(plain.raw(np.zeros((2, len(NAMES)), np.float32))).all()
