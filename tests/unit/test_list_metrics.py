"""List metrics compared with values computed by hand, and with rs-metrics if it is installed."""

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from test_metrics import relevant

from handsell.evaluation import list_metrics
from handsell.evaluation.metrics import DEFINITIONS, gains, hit_rate, mrr, recall

# items 0: {a}, 1: {a, b}, 2: {b}, 3: {c}, 4: nothing
TAGS = sparse.csr_matrix(np.array([[1, 0, 0], [2**-0.5, 2**-0.5, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], np.float32))


def mixes(items, weight=None):
    items = np.array(items, np.int32)
    return list_metrics.tag_shares(list_metrics.item_weights(items, 5, weight), TAGS)


def test_tag_shares_divide_an_item_among_its_tags():
    np.testing.assert_allclose(
        mixes([[0, 1, -1], [1, 3, 4], [4, -1, -1]]).toarray(),
        [[0.75, 0.25, 0], [0.25, 0.25, 0.5], [0, 0, 0]],
        atol=1e-7,
    )
    weighted = mixes([[0, 2, 3]], np.array([[3.0, 1.0, -2.0]]))
    np.testing.assert_allclose(weighted.toarray(), [[0.75, 0.25, 0]], atol=1e-7)  # what was disliked says nothing


def test_calibration_error_by_hand():
    wanted = mixes([[0, 2], [0, 2], [0, -1], [4, -1], [0, 2]])
    shown = mixes([[2, 0], [0, -1], [3, -1], [0, -1], [4, -1]])
    one_sided = 0.5 * np.log(0.5 / (0.99 * 1 + 0.005)) + 0.5 * np.log(0.5 / 0.005)
    got = list_metrics.calibration_error(wanted, shown)
    np.testing.assert_allclose(got, [0, one_sided, -np.log(0.01), np.nan, np.nan], atol=1e-6)


def test_entropy_by_hand():
    np.testing.assert_allclose(list_metrics.entropy(mixes([[0, 2], [1, 3], [0, 0], [4, 4]])), [1, 1.5, 0, 0], atol=1e-6)


def test_drift_compares_the_halves_of_a_users_requests():
    items = np.array([[0, 0], [0, 2], [2, 2], [0, 3], [0, 2], [1, 1], [0, 3]], np.int32)
    user = np.array([7, 7, 7, 7, 8, -1, -1])
    time = np.array([3, 1, 2, 4, 0, 1, 2])
    got = list_metrics.drift(items, user, time, TAGS)
    # user 7 by time: ab, bb | aa, ac: b has 3/4 and a 1/4, then a 3/4 and c 1/4: the same entropy
    np.testing.assert_allclose(got, [np.nan, np.nan, np.nan, 0, np.nan, np.nan, np.nan], atol=1e-9)
    narrower = list_metrics.drift(np.array([[0, 2], [1, 3], [0, 0]], np.int32), np.zeros(3, int), np.arange(3), TAGS)
    np.testing.assert_allclose(narrower, [np.nan, np.nan, 0 - 1])  # the middle one belongs to neither half


def test_repeat_rate_compares_with_the_previous_list():
    items = np.array([[0, 1], [1, 2], [0, 1], [3, -1], [1, 3], [-1, -1]], np.int32)
    user = np.array([5, 5, 5, 5, 9, 9])
    time = np.array([1, 2, 3, 4, 1, 2])
    np.testing.assert_allclose(list_metrics.repeat_rate(items, user, time), [np.nan, 0.5, 0.5, 0, np.nan, np.nan])
    assert np.isnan(list_metrics.repeat_rate(items[:2], np.array([-1, -1]), time[:2])).all()


def test_creators_by_size_and_their_exposure():
    creator = np.array([0, 0, 1, 2, 3, -1])
    size = list_metrics.creator_sizes(creator, np.array([30, 20, 30, 15, 5, 99]))  # 50, 30, 15, 5 of 100
    assert size.tolist() == [0, 1, 2, 2]
    items = np.array([[0, 2, 3, 4], [1, 5, -1, -1], [5, -1, -1, -1]], np.int32)
    np.testing.assert_allclose(list_metrics.small_share(items, creator, size), [0.5, 0, np.nan])
    assert list_metrics.exposure_by_size(items, creator, size) == {"large": 2 / 5, "middle": 1 / 5, "small": 2 / 5}
    everything = np.array([True, True, True, True, False, True])
    assert list_metrics.creator_coverage(items[:1, :2], everything, creator) == 2 / 3
    nobody = np.full(6, -1)
    assert np.isnan(list_metrics.creator_coverage(items, everything, nobody))
    none = list_metrics.creator_sizes(nobody, np.ones(6))
    assert np.isnan(list_metrics.small_share(items, nobody, none)).all()
    assert np.isnan(list(list_metrics.exposure_by_size(items, nobody, none).values())).all()


def test_gini_includes_items_that_were_never_shown():
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.4, 200)
    pairs = np.abs(counts[:, None] - counts).sum() / (2 * len(counts) ** 2 * counts.mean())
    assert list_metrics.gini_of_counts(counts) == pytest.approx(pairs)


def test_equals_rs_metrics():
    theirs = pytest.importorskip("rs_metrics")
    rng = np.random.default_rng(3)
    items = np.stack([rng.permutation(40)[:10] for _ in range(30)]).astype(np.int32)
    wanted = [{int(i): 1.0 for i in rng.choice(40, 5, replace=False)} for _ in range(30)]
    true, told = {b: list(row) for b, row in enumerate(wanted)}, {b: row.tolist() for b, row in enumerate(items)}
    rows = relevant(*wanted)
    gain = gains(items, rows)
    assert list_metrics.coverage(items[:2], np.ones(40, bool)) == theirs.coverage(range(40), {0: told[0], 1: told[1]})
    assert np.mean(hit_rate(gain, rows, 3)) == pytest.approx(theirs.hitrate(true, told, k=3))
    assert np.mean(mrr(gain, rows, 10)) == pytest.approx(theirs.mrr(true, told, k=10))
    assert np.mean(recall(gain, rows, 10)) == pytest.approx(theirs.recall(true, told, k=10))


def test_every_list_metric_is_in_the_document():
    page = (Path(__file__).parents[2] / "docs" / "list-metrics.md").read_text("utf-8")
    lists = set(DEFINITIONS) - {"ndcg", "recall", "mrr", "hit_rate"}
    missing = [n for n in lists if f"| `{n}` |" not in page or f"| {DEFINITIONS[n].source} |" not in page]
    assert not missing
