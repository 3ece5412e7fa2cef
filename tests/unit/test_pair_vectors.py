"""Item vectors from pairs of near likes: the values of pairs, their eigenvectors, and SASRec's start from them."""

import numpy as np
import pytest
import torch

from handsell.data.interactions import Interactions
from handsell.retrieval.models.sasrec import SASRecConfig
from handsell.retrieval.neural.pair_vectors import compute_information, compute_pair_vectors, set_initial_vectors
from handsell.retrieval.neural.sasrec_rows import SequenceRows
from handsell.retrieval.neural.sasrec_training import build_transformer, fit_sasrec
from handsell.testing.planted_taste import find_block, plant_blocks

SMALL = SASRecConfig(embedding_size=8, length=6, epochs=1, batch_size=64, validation_users=0, initial_vectors="pairs")


def build_events(*rows: list[tuple[int, float]]) -> Interactions:
    """One user a row, of (item, weight)."""
    user = np.repeat(np.arange(len(rows)), [len(row) for row in rows]).astype(np.int32)
    item, weight = (np.array([event[n] for row in rows for event in row]) for n in (0, 1))
    time = np.arange(len(user), dtype=np.int64)
    types = np.zeros(len(user), np.int8)
    return Interactions(user, item.astype(np.int32), types, time, weight.astype(np.float32), len(rows), 6)


def test_information_is_that_of_pairs_of_likes_of_one_user():
    events = build_events([(0, 1.0), (4, -1.0), (1, 1.0)], [(2, 1.0), (3, 1.0)])
    value = compute_information(events).toarray()
    expected = np.zeros((6, 6))
    expected[[0, 1, 2, 3], [1, 0, 3, 2]] = np.log(4)  # each pair 1 of 4, each item 1 of 4: log(1 · 4 / (1 · 1))
    assert np.allclose(value, expected)


def test_nearer_pairs_have_more_information_and_far_ones_none():
    value = compute_information(build_events([(item, 1.0) for item in (0, 1, 2, 5, 5, 5, 3)])).toarray()
    assert value[0, 1] > value[0, 2] > 0
    assert value[0, 3] == 0, "six events apart"


def test_vectors_are_the_leading_eigenvectors(rng):
    events, _ = plant_blocks(rng)
    vectors = compute_pair_vectors(events, 5, rng)
    values, basis = np.linalg.eigh(compute_information(events).toarray())
    kept = np.argsort(-np.abs(values))[:5]
    expected = basis[:, kept] * np.sqrt(np.abs(values[kept]))
    norms = np.linalg.norm(expected, axis=1, keepdims=True)
    expected = expected / np.where(norms > 1e-5, norms, np.inf)
    assert np.allclose(vectors @ vectors.T, expected @ expected.T, atol=0.05)


def test_items_of_one_taste_are_near_and_untouched_ones_zero(rng):
    events, _ = plant_blocks(rng)
    vectors = compute_pair_vectors(events, 8, rng)
    assert not vectors[72:].any() and np.allclose(np.linalg.norm(vectors[:72], axis=1), 1, atol=1e-5)
    block = find_block(np.arange(72))
    product, same = vectors[:72] @ vectors[:72].T, block[:, None] == block
    assert product[same].mean() > product[~same].mean() + 0.3


def test_more_dimensions_than_items_are_zeros(rng):
    vectors = compute_pair_vectors(build_events([(0, 1.0), (1, 1.0)]), 10, rng)
    assert vectors.shape == (6, 10) and not vectors[:, 6:].any() and vectors[:2].any(axis=1).all()


@pytest.mark.parametrize("row", [[], [(0, 1.0)], [(0, -1.0), (1, 1.0)]])
def test_without_pairs_all_vectors_are_zero(rng, row):
    assert not compute_pair_vectors(build_events(row, [(3, 1.0)]), 4, rng).any()


def test_training_starts_from_pairs_and_keeps_random_vectors_of_other_items(rng):
    events, content = plant_blocks(rng)
    model = build_transformer(events.n_items, content, SMALL)
    before = model.embedding.detach().clone()
    set_initial_vectors(model.embedding, SequenceRows(events, SMALL))
    after = model.embedding.detach()
    assert torch.equal(after[72:], before[72:])
    assert torch.allclose(after[:72].norm(dim=1), before.norm(dim=1).mean().expand(72))


def test_the_default_start_is_random_and_differs_from_that_of_pairs(rng):
    events, content = plant_blocks(rng)
    usual = SMALL.model_copy(update={"initial_vectors": "random"})
    assert SASRecConfig().initial_vectors == "random"
    model = build_transformer(events.n_items, content, usual)
    before = model.embedding.detach().clone()
    set_initial_vectors(model.embedding, SequenceRows(events, usual))
    assert torch.equal(model.embedding, before)
    assert not np.allclose(fit_sasrec(events, usual, content).vectors, fit_sasrec(events, SMALL, content).vectors)
