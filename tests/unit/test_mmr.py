"""MMR selection: the vectorized loop equals a naive one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.core.batches import NONE
from handsell.reranking.mmr import MarginalRelevance, scale_scores
from handsell.reranking.selection import Pool
from handsell.reranking.selection import select as choose
from handsell.reranking.spacing import CREATOR_GAP, ItemGap


def select(score, allowed, alike, same, n, diversity, gap):
    """MMR and the creator gap, as the stage puts them together."""
    strength = np.full(len(score), diversity)
    pool = Pool((1 - diversity) * scale_scores(score, allowed), allowed, np.isfinite(score))
    spacing = [ItemGap(same, gap, CREATOR_GAP)] if gap else []
    return choose(pool, n, [MarginalRelevance(alike, strength)], spacing).column


def naive(score, allowed, alike, creator, n, diversity, gap):
    """One request, item by item, as the docstring says it; returns the columns and whether the rule gave way."""
    use = [k for k in range(len(score)) if allowed[k]]
    finite = [score[k] for k in use if np.isfinite(score[k])]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    chosen, relaxed = [], False
    while use and len(chosen) < n:
        near = {creator[c] for c in chosen[max(len(chosen) - gap, 0) :] if creator[c] != NONE} if gap else set()
        free = [k for k in use if creator[k] not in near]
        relaxed = relaxed or not free

        def value(k, near=near):
            finite = np.isfinite(score[k])
            relevance = (float(score[k]) - low) / (high - low) if finite and high > low else 0.0
            alike_most = max((float(alike[k][c]) for c in chosen), default=0.0)
            clashes = sum(creator[k] == creator[c] != NONE for c in chosen[max(len(chosen) - gap, 0) :]) if gap else 0
            return -clashes, finite, (1 - diversity) * relevance - diversity * alike_most

        best = max(free or use, key=lambda k: (*value(k), -k))
        chosen.append(best)
        use.remove(best)
    return chosen + [NONE] * (n - len(chosen)), relaxed


def batch(seed, rows, width, creators=4, coarse=False):
    rng = np.random.default_rng(seed)
    score = rng.random((rows, width)).astype(np.float32)
    if coarse:  # many exact ties
        score = np.round(score * 3) / 4
    score[rng.random(score.shape) < 0.05] = np.nan
    allowed = rng.random(score.shape) < 0.9
    creator = rng.integers(-1, creators, score.shape)
    vectors = rng.random((rows, width, 5)) * (rng.random((rows, width, 5)) < 0.5)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-9)
    same = (creator[:, :, None] == creator[:, None, :]) & (creator != NONE)[:, :, None]
    alike = np.maximum(vectors @ vectors.transpose(0, 2, 1), same)
    return score, allowed, np.round(alike * 8) / 8 if coarse else alike, creator, same


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 4),
    width=st.integers(1, 14),
    n=st.integers(1, 16),
    diversity=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    gap=st.integers(0, 3),
    coarse=st.booleans(),
)
def test_equals_a_naive_loop(seed, rows, width, n, diversity, gap, coarse):
    score, allowed, alike, creator, same = batch(seed, rows, width, coarse=coarse)
    chosen = select(score, allowed, alike, same, n, diversity, gap)
    for b in range(rows):
        expected, _ = naive(score[b], allowed[b], alike[b], creator[b], n, diversity, gap)
        assert chosen[b].tolist() == expected


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 30), diversity=st.floats(0, 1), gap=st.integers(0, 3))
def test_no_item_is_lost_duplicated_or_added(seed, n, diversity, gap):
    score, allowed, alike, _, same = batch(seed, 3, 20)
    for row, may in zip(select(score, allowed, alike, same, n, diversity, gap), allowed, strict=True):
        real = row[row != NONE]
        assert len(set(real)) == len(real) == min(n, may.sum())  # n asked is n given
        assert may[real].all()
        assert (row[len(real) :] == NONE).all()


def test_without_diversity_and_gap_the_order_is_unchanged():
    rng = np.random.default_rng(0)
    score = -np.sort(-np.round(rng.random((5, 50)), 2).astype(np.float32), axis=1)  # best first, with ties
    _, _, alike, _, same = batch(1, 5, 50)
    chosen = select(score, np.ones_like(score, bool), alike, same, 30, 0.0, 0)
    np.testing.assert_array_equal(chosen, np.tile(np.arange(30), (5, 1)))


def test_hand_computed():
    score = np.array([[1.0, 0.9, 0.8, 0.0]])
    alike = np.eye(4)[None].copy()
    alike[0, 0, 1] = alike[0, 1, 0] = 1.0  # 1 is like 0
    allowed, same = np.ones((1, 4), bool), np.zeros((1, 4, 4), bool)
    # position 2: 1 gives .8·.9 − .2·1 = .52, 2 gives .8·.8 = .64
    assert select(score, allowed, alike, same, 4, 0.2, 0).tolist() == [[0, 2, 1, 3]]
    # diversity .05: 1 gives .95·.9 − .05 = .805, 2 gives .76
    assert select(score, allowed, alike, same, 4, 0.05, 0).tolist() == [[0, 1, 2, 3]]


def test_more_diversity_makes_items_less_similar():
    score, _, alike, _, same = batch(2, 40, 50, creators=30)
    score = np.nan_to_num(score)

    def likeness(diversity):
        chosen = select(score, np.ones_like(score, bool), alike, same, 10, diversity, 0)
        rows = np.arange(40)[:, None, None]
        pairs = alike[rows, chosen[:, :, None], chosen[:, None, :]]
        return (pairs.sum() - 400) / (40 * 90)

    at = [likeness(d) for d in (0.0, 0.3, 0.7)]
    assert at[0] > at[1] > at[2]


def test_scale_of_the_score_does_not_matter():
    score, allowed, alike, _, same = batch(3, 6, 40)
    a = select(score, allowed, alike, same, 20, 0.3, 1)
    np.testing.assert_array_equal(select(score * 16 - 4, allowed, alike, same, 20, 0.3, 1), a)


@pytest.mark.parametrize("diversity", [0.0, 0.15, 1.0])
def test_a_score_that_is_not_finite_never_wins(diversity):
    score, _, alike, _, same = batch(4, 8, 20)
    score = np.nan_to_num(score)
    score[:, 0], score[:, 5] = np.inf, np.nan
    chosen = select(score, np.ones_like(score, bool), alike, same, 20, diversity, 0)
    assert (np.sort(chosen[:, -2:], axis=1) == [0, 5]).all()


def test_batch_equals_single():
    score, allowed, alike, _, same = batch(5, 7, 30)
    whole = select(score, allowed, alike, same, 12, 0.2, 1)
    for b in range(7):
        one = slice(b, b + 1)
        np.testing.assert_array_equal(select(score[one], allowed[one], alike[one], same[one], 12, 0.2, 1), whole[one])
