"""The towers: NumPy equals torch, the correction is the sampling probability, training is repeatable."""

import numpy as np
import torch
from torch.nn import functional as F

from handsell.core.config.retrieval import TwoTowerConfig
from handsell.retrieval.two_tower import HISTORY, towers_to_retriever, user_inputs
from handsell.retrieval.two_tower_training import ROWS_PER_USER, Rows, fit_two_tower, new_towers, weights_of
from planted_taste import blocks, request

SMALL = TwoTowerConfig(embedding_size=8, hidden=8, epochs=2, batch_size=64)


def test_numpy_towers_equal_the_torch_module(rng):
    events, content = blocks(rng)
    model = new_towers(events.n_items, content, SMALL).eval()
    retriever = towers_to_retriever(weights_of(model), content, np.ones(events.n_items, bool))
    asked = request([(0, 1.0), (4, 2.0), (9, -1.0)])
    item, pools, context = (torch.from_numpy(a) for a in user_inputs(asked.history, asked.time, events.n_items))
    with torch.no_grad():
        x = model.inputs(torch.arange(events.n_items), torch.ones(events.n_items, 1))
        pooled = torch.bmm(pools, x[item])
        user = F.normalize(pooled[:, 0] + pooled[:, 1] + model.user(torch.cat([pooled.flatten(1), context], 1)), dim=1)
        items = F.normalize(x + model.item(x), dim=1)
    assert np.allclose(retriever.vectors, items.numpy(), atol=1e-5)
    assert np.allclose(retriever.encoder.encode(asked), user.numpy(), atol=1e-5)


def test_pools_sum_to_one_and_dislikes_have_their_own(rng):
    asked = request([(0, 1.0), (1, 1.0), (2, -3.0)], [])
    _, pools, context = user_inputs(asked.history, asked.time, 10)
    assert np.allclose(pools[0].sum(axis=1), 1) and not pools[1].any()
    assert pools[0, 2, -1] == 1.0 and pools[0, :2, -1].sum() == 0
    assert pools[0, 1, -2] > pools[0, 1, -3], "the later like weighs more in the pool of the moment"
    assert np.isfinite(context).all()


def test_rows_look_only_at_what_came_before(rng):
    events, _ = blocks(rng)
    rows = Rows(events, SMALL)
    targets = rows.epoch(rng)
    batch = rows.batch(targets[:40], rng)
    for b, target in enumerate(targets[:40]):
        first = rows.start[target]
        expected = rows.events.item[max(first, target - HISTORY) : target]
        used = batch.pools[b].numpy().any(axis=0)
        assert np.array_equal(batch.items[batch.history[b]].numpy()[used], expected)
        assert batch.items[batch.rivals[b]] == rows.events.item[target]


def test_an_epoch_draws_each_user_up_to_the_cap(rng):
    events, _ = blocks(rng, users=3, per_user=3 * ROWS_PER_USER)
    rows = Rows(events, SMALL)
    drawn = rows.epoch(rng)
    assert (np.bincount(rows.events.user[drawn]) == ROWS_PER_USER).all()
    assert len(set(drawn.tolist())) == len(drawn) == rows.per_epoch


def test_the_correction_is_the_expected_number_of_draws(rng):
    events, _ = blocks(rng)
    rows = Rows(events, SMALL)
    chosen = rows.targets[rng.permutation(len(rows.targets))[:50]]
    batch = rows.batch(chosen, rng)
    drawn = len(batch.rivals) - 50
    counts = np.bincount(rows.events.item[rows.targets], minlength=events.n_items)
    expected = 50 * counts / counts.sum() + drawn / events.n_items
    assert np.allclose(np.exp(batch.log_chance.numpy()), expected[batch.items[batch.rivals].numpy()], rtol=1e-5)


def test_the_same_seed_gives_the_same_model(rng):
    events, content = blocks(rng)
    one, two = (fit_two_tower(events, SMALL, content) for _ in range(2))
    assert np.array_equal(one.vectors, two.vectors)
    other = fit_two_tower(events, SMALL.model_copy(update={"seed": 1}), content)
    assert not np.array_equal(one.vectors, other.vectors)


def test_context_knows_the_hour_and_the_weekend():
    noon_saturday = 2 * 86_400_000_000 + 43_200_000_000  # the epoch was a Thursday
    asked = request([(0, 1.0)], time=noon_saturday)
    _, _, context = user_inputs(asked.history, asked.time, 10)
    assert np.allclose(context[0, :3], [0, -1, 1], atol=1e-6)
