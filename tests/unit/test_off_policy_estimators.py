"""Off-policy estimators on planted bandits, whose values are known by construction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handsell.experiments.off_policy.clipping import choose_clipping
from handsell.experiments.off_policy.estimators import (
    Predictions,
    SlateRewards,
    build_terms,
    compute_influence,
    compute_weights,
)
from handsell.experiments.off_policy.intervals import estimate_values
from handsell.experiments.off_policy.support import NoSupport, measure_support

METHODS = ("analytic", "bootstrap", "studentized")
CHANCE = np.array([[0.30, 0.10, 0.05, 0.20], [0.15, 0.05, 0.02, 0.10]])  # (2, 4) of a click by position and item
LOG = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]])  # (2, 4) probability by position and item
CANDIDATE = np.array([[0.1, 0.1, 0.1, 0.7], [0.5, 0.2, 0.2, 0.1]])
POSITION = np.arange(2)


def draw_log(rng, slates: int) -> tuple[SlateRewards, np.ndarray]:
    """Slates of two independent positions; return them with the items (N, 2)."""
    item = np.stack([rng.choice(4, slates, p=LOG[k]) for k in POSITION], axis=1)
    reward = (rng.random(item.shape) < CHANCE[POSITION, item]).astype(float)
    return SlateRewards(reward, LOG[POSITION, item], rng.integers(0, slates // 3, slates)), item


def predict(item: np.ndarray, model: np.ndarray) -> Predictions:
    """The predictions of a model (2, 4) by position and item."""
    expected = (CANDIDATE * model).sum(axis=1)
    return Predictions(model[POSITION, item], np.broadcast_to(expected, item.shape))


@pytest.mark.parametrize("estimator", ["ips", "self_normalized", "doubly_robust"])
@pytest.mark.parametrize("method", METHODS)
def test_the_planted_value_is_found(rng, estimator, method):
    logged, item = draw_log(rng, 60_000)
    terms = build_terms(estimator, logged, compute_weights(logged, CANDIDATE[POSITION, item]), predict(item, CHANCE))
    found = estimate_values(terms, logged.user, method)
    truth = (CANDIDATE * CHANCE).sum(axis=1)
    for one, value in zip((*found.positions, found.slate), (*truth, truth.sum()), strict=True):
        assert one.low < one.value < one.high
        assert abs(one.value - value) < 2.2 * one.error  # more than four standard errors would be a defect


@pytest.mark.parametrize("estimator", ["ips", "self_normalized", "doubly_robust"])
def test_intervals_of_every_kind_agree_on_much_data(rng, estimator):
    logged, item = draw_log(rng, 30_000)
    terms = build_terms(estimator, logged, compute_weights(logged, CANDIDATE[POSITION, item]), predict(item, CHANCE))
    errors = [estimate_values(terms, logged.user, method).slate.error for method in METHODS]
    assert max(errors) < 1.15 * min(errors)


def test_the_doubly_robust_value_is_the_truth_if_either_model_is_right():
    """Exact, without sampling: every pair of items once, with its probability as the slate's frequency."""
    item = np.stack(np.meshgrid(np.arange(4), np.arange(4), indexing="ij"), axis=-1).reshape(-1, 2)
    frequency = LOG[POSITION, item].prod(axis=1)
    reward, truth = CHANCE[POSITION, item], (CANDIDATE * CHANCE).sum()
    wrong_model, wrong_log = np.full((2, 4), 0.5), np.full((2, 4), 0.25)

    def value(model: np.ndarray, propensity: np.ndarray) -> float:
        logged = SlateRewards(reward, propensity[POSITION, item], np.arange(16))
        terms = build_terms(
            "doubly_robust", logged, compute_weights(logged, CANDIDATE[POSITION, item]), predict(item, model)
        )
        return float((frequency[:, None] * terms.numerator).sum())

    assert value(CHANCE, LOG) == pytest.approx(truth)
    assert value(CHANCE, wrong_log) == pytest.approx(truth)
    assert value(wrong_model, LOG) == pytest.approx(truth)
    assert value(wrong_model, wrong_log) != pytest.approx(truth, rel=0.05)


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 6))
def test_the_logging_policy_itself_has_weights_of_one_and_the_plain_mean(seed, slates, positions):
    rng = np.random.default_rng(seed)
    propensity = rng.uniform(0.01, 1, (slates, positions))
    propensity[rng.random(propensity.shape) < 0.2] = np.nan  # shorter slates
    logged = SlateRewards(rng.random(propensity.shape), propensity, rng.integers(-1, 5, slates))
    weights = compute_weights(logged, propensity)
    assert (weights[logged.shown] == 1).all() and (weights[~logged.shown] == 0).all()
    mean = np.where(logged.shown, logged.reward, 0).sum() / slates
    same = Predictions(np.zeros(propensity.shape), np.zeros(propensity.shape))
    for estimator in ("logged", "ips", "self_normalized", "doubly_robust"):
        assert build_terms(estimator, logged, weights, same).slate == pytest.approx(mean)
    difference = estimate_values(
        build_terms("ips", logged, weights), logged.user, against=build_terms("logged", logged, weights)
    )
    assert difference.slate.value == pytest.approx(0, abs=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_expected_weights_are_the_supported_share(seed):
    """Over all items of a position, probability × weight adds up to what the candidate shows of the log's items."""
    rng = np.random.default_rng(seed)
    log, candidate = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(6))
    absent = rng.random(6) < 0.3
    log = np.where(absent, 0, log)
    if not log.sum():
        return
    log /= log.sum()
    can = log > 0
    logged = SlateRewards(np.zeros((can.sum(), 1)), log[can][:, None], np.arange(can.sum()))
    expected = (log[can] * compute_weights(logged, candidate[can][:, None])[:, 0]).sum()
    assert expected == pytest.approx(candidate[can].sum())
    assert candidate.sum() == pytest.approx(1)


def test_influences_are_the_derivatives(rng):
    """The influence of a slate is what the values lose without it, times the number of slates."""
    logged, item = draw_log(rng, 3_000)
    weights = compute_weights(logged, CANDIDATE[POSITION, item])
    for estimator in ("ips", "self_normalized"):
        terms = build_terms(estimator, logged, weights)
        of_position, of_slate = compute_influence(terms)
        assert np.abs(of_position.mean(axis=0)).max() < 1e-9 and abs(of_slate.mean()) < 1e-9
        without = terms.take(np.arange(1, 3_000))
        assert (terms.slate - without.slate) * 2_999 == pytest.approx(of_slate[0], rel=0.02, abs=2e-3)


def test_users_are_clusters(rng):
    """Slates that repeat those of the same user add nothing to what is known."""
    logged, item = draw_log(rng, 2_000)
    logged = SlateRewards(logged.reward, logged.propensity, np.arange(2_000))
    terms = build_terms("ips", logged, compute_weights(logged, CANDIDATE[POSITION, item]))
    again = np.tile(np.arange(2_000), 4)
    for method in METHODS:
        once, four = (
            estimate_values(terms.take(rows), logged.user[rows], method).slate for rows in (np.arange(2_000), again)
        )
        assert four.error == pytest.approx(once.error, rel=0.1)


def test_clipping_pays_where_a_large_weight_is_rare(rng):
    """The log shows item 3 once in 20,000 slates, the candidate once in 20: no log of 4,000 can know its value."""
    log, candidate = np.array([0.6, 0.3, 0.09995, 0.00005]), np.array([0.3, 0.4, 0.25, 0.05])
    model = np.array([0.25, 0.15, 0.1, 0.15])  # wrong
    truth, errors, covered, clipped = candidate @ CHANCE[0], [], [], 0
    for _ in range(300):
        item = rng.choice(4, 4_000, p=log)
        reward = (rng.random(4_000) < CHANCE[0, item]).astype(float)[:, None]
        logged = SlateRewards(reward, log[item][:, None], np.arange(4_000))
        weights = compute_weights(logged, candidate[item][:, None])
        predicted = Predictions(model[item][:, None], np.full((4_000, 1), candidate @ model))
        clipping = choose_clipping(logged, weights, predicted)
        clipped += clipping.share > 0
        terms = [build_terms("doubly_robust", logged, w, predicted) for w in (weights, clipping.apply(weights))]
        errors.append([one.slate - truth for one in terms])
        found = estimate_values(terms[1], logged.user).widen(clipping.bias, clipping.slate_bias).slate
        covered.append(found.low <= truth <= found.high)
    plain, robust = np.sqrt((np.array(errors) ** 2).mean(axis=0))
    assert robust < 0.7 * plain
    assert clipped > 30 and np.mean(covered) > 0.93


def test_even_weights_are_not_clipped(rng):
    logged, item = draw_log(rng, 5_000)
    weights = compute_weights(logged, logged.propensity)
    clipping = choose_clipping(logged, weights, predict(item, CHANCE))
    assert clipping.share == 0 and clipping.slate_bias == 0


def test_a_log_without_exploration_supports_the_same_items_only(rng):
    propensity = np.ones((1_000, 3))
    logged = SlateRewards(rng.random((1_000, 3)), propensity, np.arange(1_000))
    target = np.stack([np.ones(1_000), rng.permutation(1_000) < 400, np.zeros(1_000)], axis=1).astype(float)
    support = measure_support(logged, compute_weights(logged, target))
    assert support.share[0].value == 1 and support.share[2].value == 0
    assert support.share[1].low < 0.4 < support.share[1].high
    assert support.is_sufficient.tolist() == [True, False, False]
    known = measure_support(logged, compute_weights(logged, target), target > 0)
    assert [one.value for one in known.share] == [one.value for one in support.share]
    with pytest.raises(NoSupport, match=r"could have shown 46\.7% of the candidate's impressions.*exploration"):
        support.require_slate()


def test_a_log_that_rarely_shows_the_candidates_items_is_refused(rng):
    logged, item = draw_log(rng, 40)
    support = measure_support(logged, compute_weights(logged, CANDIDATE[POSITION, item]))
    with pytest.raises(NoSupport, match=r"worth \d+\.\d impressions"):
        support.require_slate()


@pytest.mark.parametrize("propensity", [0.0, 1.5, -0.1])
def test_impossible_propensities_are_refused(propensity):
    with pytest.raises(ValueError, match=r"propensities in \(0, 1\]"):
        SlateRewards(np.zeros((1, 1)), np.array([[propensity]]), np.zeros(1))
