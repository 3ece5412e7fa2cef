"""The two-tower model: NumPy equals torch, logits are corrected by sampling probability, training is deterministic."""

import numpy as np
import torch
from torch.nn import functional as F

from handsell.core.units import DAY_US
from handsell.retrieval.models.two_tower import CONTEXT, HISTORY, TwoTowerConfig, build_two_tower, build_user_inputs
from handsell.retrieval.neural import hard_negatives
from handsell.retrieval.neural.hard_negatives import HardNegatives
from handsell.retrieval.neural.two_tower_training import (
    ROWS_PER_USER,
    TwoTowerRows,
    build_towers,
    fit_two_tower,
    read_weights,
)
from handsell.testing.planted_taste import allow_all, build_requests, find_block, plant_blocks

SMALL = TwoTowerConfig(embedding_size=8, hidden=8, epochs=2, batch_size=64)


def test_numpy_towers_equal_the_torch_module(rng):
    events, content = plant_blocks(rng)
    model = build_towers(events.n_items, content, SMALL).eval()
    retriever = build_two_tower(read_weights(model), content, np.ones(events.n_items, bool))
    asked = build_requests([(0, 1.0), (4, 2.0), (9, -1.0)])
    item, pools, context = (torch.from_numpy(a) for a in build_user_inputs(asked.history, asked.time, events.n_items))
    with torch.no_grad():
        x = model.compute_inputs(torch.arange(events.n_items), torch.ones(events.n_items, 1))
        pooled = torch.bmm(pools, x[item])
        user = F.normalize(pooled[:, 0] + pooled[:, 1] + model.user(torch.cat([pooled.flatten(1), context], 1)), dim=1)
        items = F.normalize(x + model.item(x), dim=1)
    assert np.allclose(retriever.vectors, items.numpy(), atol=1e-5)
    assert np.allclose(retriever.encoder.encode(asked), user.numpy(), atol=1e-5)


def test_pools_sum_to_one_and_dislikes_have_a_pool(rng):
    asked = build_requests([(0, 1.0), (1, 1.0), (2, -3.0)], [])
    _, pools, context = build_user_inputs(asked.history, asked.time, 10)
    assert np.allclose(pools[0].sum(axis=1), 1) and not pools[1].any()
    assert pools[0, 2, -1] == 1.0 and pools[0, :2, -1].sum() == 0
    assert pools[0, 1, -2] > pools[0, 1, -3], "the later like weighs more in the pool of the moment"
    assert np.isfinite(context).all()


def test_rows_use_only_earlier_events(rng):
    events, _ = plant_blocks(rng)
    rows = TwoTowerRows(events, SMALL)
    targets = rows.draw_epoch(rng)
    batch = rows.build_batch(targets[:40], rng)
    for b, target in enumerate(targets[:40]):
        first = rows.start[target]
        expected = rows.events.item[max(first, target - HISTORY) : target]
        used = batch.pools[b].numpy().any(axis=0)
        assert np.array_equal(batch.items[batch.history[b]].numpy()[used], expected)
        assert batch.items[batch.candidates[b]] == rows.events.item[target]


def test_an_epoch_draws_each_user_up_to_the_cap(rng):
    events, _ = plant_blocks(rng, users=3, per_user=3 * ROWS_PER_USER)
    rows = TwoTowerRows(events, SMALL)
    drawn = rows.draw_epoch(rng)
    assert (np.bincount(rows.events.user[drawn]) == ROWS_PER_USER).all()
    assert len(set(drawn.tolist())) == len(drawn) == rows.per_epoch


def test_the_correction_is_the_expected_number_of_draws(rng):
    events, _ = plant_blocks(rng)
    rows = TwoTowerRows(events, SMALL)
    chosen = rows.targets[rng.permutation(len(rows.targets))[:50]]
    batch = rows.build_batch(chosen, rng)
    drawn = len(batch.candidates) - 50
    counts = np.bincount(rows.events.item[rows.targets], minlength=events.n_items)
    expected = 50 * counts / counts.sum() + drawn / events.n_items
    assert np.allclose(np.exp(batch.log_chance.numpy()), expected[batch.items[batch.candidates].numpy()], rtol=1e-5)


def test_the_same_seed_gives_the_same_model(rng):
    events, content = plant_blocks(rng)
    one, two = (fit_two_tower(events, SMALL, content) for _ in range(2))
    assert np.array_equal(one.vectors, two.vectors)
    other = fit_two_tower(events, SMALL.model_copy(update={"seed": 1}), content)
    assert not np.array_equal(one.vectors, other.vectors)


def test_context_has_the_hour_and_the_weekend():
    noon_saturday = 2 * 86_400_000_000 + 43_200_000_000  # the epoch was a Thursday
    asked = build_requests([(0, 1.0)], time=noon_saturday)
    _, _, context = build_user_inputs(asked.history, asked.time, 10)
    assert np.allclose(context[0, :3], [0, -1, 1], atol=1e-6)


def test_context_has_the_number_of_events_and_not_their_age():
    asked = build_requests(
        [(0, 1.0), (1, -1.0)], [(0, 1.0), (1, -1.0)], [], [(i, 1.0) for i in range(HISTORY)], length=HISTORY
    )
    asked.history.time[1, -2:] -= 30 * DAY_US
    item, pools, context = build_user_inputs(asked.history, asked.time, 100)
    for inputs in (item, pools, context):
        np.testing.assert_array_equal(inputs[0], inputs[1])
    assert context.shape == (4, CONTEXT) and context.dtype == np.float32
    np.testing.assert_allclose(context[:, -1], np.log1p([2, 2, 0, HISTORY]) / np.log1p(HISTORY), rtol=1e-6)


def test_the_recent_pool_decays_by_likes_and_the_long_term_one_by_time():
    """Likes of 0, 1 and 2, the first 28 days before the others; a dislike in between has no effect."""
    asked = build_requests([(0, 1.0), (1, 1.0), (3, -1.0), (2, 1.0)])
    asked.history.time[0, -4] = asked.history.time[0, -1] - 28 * DAY_US
    _, pools, _ = build_user_inputs(asked.history, asked.time, 10)
    lasting, moment, disliked = pools[0, :, -4:]
    np.testing.assert_allclose(lasting / lasting[-1], [0.5, 1, 0, 1], rtol=1e-4)
    np.testing.assert_allclose(moment / moment[-1], [2 ** (-2 / 3), 2 ** (-1 / 3), 0, 1], rtol=1e-6)
    np.testing.assert_array_equal(disliked, [0, 0, 1, 0])


def test_the_time_since_the_last_event_does_not_matter(rng):
    events, content = plant_blocks(rng)
    weights = read_weights(build_towers(events.n_items, content, SMALL))
    encoder = build_two_tower(weights, content, np.ones(events.n_items, bool)).encoder
    past = [(0, 1.0), (4, 2.0), (9, -1.0)]
    asked = build_requests(*[past] * 5)
    asked.history.time[:, -3:] -= (np.array([0, 1, 30, 180, 4000]) * DAY_US)[:, None]
    encoded = encoder.encode(asked)
    np.testing.assert_array_equal(encoded, np.tile(encoded[:1], (5, 1)))
    at_eight = build_requests(past, time=int(asked.time[0]) + DAY_US // 3)
    assert not np.array_equal(encoder.encode(at_eight), encoded[:1]), "the hour may matter"


def test_hard_negatives_are_top_ranks_that_the_user_has_not_liked(rng, monkeypatch):
    events, content = plant_blocks(rng)
    rows = TwoTowerRows(events, SMALL)
    model = build_towers(events.n_items, content, SMALL)
    mine = HardNegatives.from_weights(read_weights(model), content.vectors, rows.events, 3, rng)
    monkeypatch.setattr(hard_negatives, "RANKS_PER_NEGATIVE", 1)
    user = np.arange(10)
    asked = build_requests(*([(int(u) % 4, 1.0)] for u in user))
    seen = build_user_inputs(asked.history, asked.time, events.n_items)
    found = mine(user, *seen, rng)
    retriever = build_two_tower(read_weights(model), content, rows.trained)
    for u in user:
        liked = events.item[(events.user == u) & (events.weight > 0)]
        eligible = rows.trained & ~np.isin(np.arange(events.n_items), liked)
        best, _ = retriever.retrieve(asked.take(slice(u, u + 1)), 3, eligible[None])
        assert set(found[u]) == set(best[0])


def test_rows_use_their_hard_negatives_and_ignore_padding(rng):
    events, _ = plant_blocks(rng)
    rows = TwoTowerRows(events, SMALL)
    model = build_towers(events.n_items, None, SMALL)  # without content no id is left out at random
    mined = np.tile(np.array([5, -1]), (16, 1))
    plain, harder, none = (
        rows.build_batch(rows.targets[:16], np.random.default_rng(0), mine)
        for mine in (None, lambda *_: mined, lambda *_: np.full((16, 1), -1))
    )
    assert (harder.items[harder.hard[:, 0]] == 5).all() and (harder.hard[:, 1] == -1).all()
    losses = []
    for batch in (plain, harder, none):
        torch.manual_seed(0)
        losses.append(model(batch).item())
    assert losses[1] > losses[0], "a rival more can only cost"
    assert losses[2] == losses[0]


def test_training_with_hard_negatives_still_finds_the_blocks(rng):
    events, content = plant_blocks(rng)
    config = TwoTowerConfig(
        embedding_size=16, hidden=16, epochs=25, batch_size=256, learning_rate=0.01, hard_negatives=2
    )
    model = fit_two_tower(events, config, content)
    asked = build_requests(*([(b, 1.0), (b + 4, 1.0), (b + 8, 2.0)] for b in range(4)))
    items, _ = model.retrieve(asked, 10, allow_all(asked, events.n_items))
    assert (find_block(items) == np.arange(4)[:, None]).mean() > 0.9
