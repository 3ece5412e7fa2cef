"""Fusion loses no candidate, duplicates none, and orders by reciprocal rank."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handsell.retrieval.fusion import K0, fuse_sources


def sources(rng, rows, sizes, items):
    """Random (items, scores) per source, with a random share of each row padded."""
    found = []
    for size in sizes:
        item = np.stack([rng.permutation(max(items, size))[:size] for _ in range(rows)]).astype(np.int32)
        item[item >= items] = -1
        item = np.take_along_axis(item, np.argsort(item == -1, axis=1, kind="stable"), 1)
        length = rng.integers(0, size + 1, rows)
        item[np.arange(size) >= length[:, None]] = -1
        score = np.where(item == -1, np.nan, -np.sort(-rng.random((rows, size)), axis=1)).astype(np.float32)
        found.append((item, score))
    return found


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    items=st.integers(1, 60),
    k=st.integers(1, 80),
)
def test_no_candidate_is_lost_or_duplicated(seed, rows, sizes, items, k):
    found = sources(np.random.default_rng(seed), rows, sizes, items)
    weights = np.random.default_rng(seed).random(len(sizes))
    out = fuse_sources(found, tuple(f"s{i}" for i in range(len(sizes))), weights, k)
    for b in range(rows):
        expected = {}
        for s, (item, _) in enumerate(found):
            for rank, i in enumerate(item[b]):
                if i != -1:
                    expected[int(i)] = expected.get(int(i), 0.0) + weights[s] / (K0 + 1 + rank)
        order = sorted(expected, key=lambda i: (-expected[i], i))[:k]
        got = out.item[b][out.item[b] != -1]
        assert len(set(got.tolist())) == len(got) == min(k, len(expected))
        assert np.allclose(out.fused[b][: len(got)], [expected[i] for i in order], atol=1e-7)
        assert (out.item[b][len(got) :] == -1).all()
        for column, i in enumerate(got):
            for s, (item, score) in enumerate(found):
                at = np.flatnonzero(item[b] == i)
                if len(at):
                    assert out.source_rank[b, column, s] == at[0]
                    assert out.source_score[b, column, s] == score[b, at[0]]
                else:
                    assert np.isnan(out.source_rank[b, column, s]) and np.isnan(out.source_score[b, column, s])


def test_two_sources_by_hand():
    one = (np.array([[5, 9]], np.int32), np.array([[0.9, 0.1]], np.float32))
    two = (np.array([[9, 2]], np.int32), np.array([[7.0, 6.0]], np.float32))
    out = fuse_sources([one, two], ("one", "two"), (1.0, 0.5), 10)
    assert out.item.tolist() == [[9, 5, 2]]
    assert np.allclose(out.fused, [[1 / 62 + 0.5 / 61, 1 / 61, 0.5 / 62]])
    assert np.array_equal(out.source_rank[0], [[1, 0], [0, np.nan], [np.nan, 1]], equal_nan=True)
    assert np.array_equal(out.score, out.fused)


def test_ties_are_ordered_by_item_number_and_empty_rows_are_padding():
    left = (np.array([[8], [-1]], np.int32), np.array([[1.0], [np.nan]], np.float32))
    right = (np.array([[3], [-1]], np.int32), np.array([[1.0], [np.nan]], np.float32))
    out = fuse_sources([left, right], ("a", "b"), (1.0, 1.0), 10)
    assert out.item.tolist() == [[3, 8], [-1, -1]]
    nobody = fuse_sources([(left[0][1:], left[1][1:])], ("a",), (1.0,), 10)
    assert nobody.item.tolist() == [[-1]]


def test_more_than_eight_sources_are_rejected():
    one = (np.zeros((1, 1), np.int32), np.zeros((1, 1), np.float32))
    with pytest.raises(ValueError, match="at most 8"):
        fuse_sources([one] * 9, tuple("abcdefghi"), (1.0,) * 9, 10)


def test_six_sources_of_400_take_little_time():
    found = sources(np.random.default_rng(0), 1, [400] * 6, 8000)
    took = []
    for _ in range(20):
        begun = time.perf_counter()
        fuse_sources(found, tuple("abcdef"), (1.0,) * 6, 1000)
        took.append(time.perf_counter() - begun)
    assert min(took) < 0.002
