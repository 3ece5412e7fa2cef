"""SASRec: NumPy equals torch, the loss equals cross-entropy, windows and items are correct."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from handsell.retrieval.models.sasrec import SASRecConfig, build_sasrec
from handsell.retrieval.neural import sasrec_rows
from handsell.retrieval.neural.sasrec_rows import SequenceRows
from handsell.retrieval.neural.sasrec_training import SoftmaxLoss, Training, build_transformer, fit_sasrec
from handsell.retrieval.neural.training import read_weights
from handsell.testing.planted_taste import allow_all, build_requests, plant_blocks

SMALL = SASRecConfig(embedding_size=8, length=6, epochs=3, batch_size=64, validation_users=0)


def silent(epoch) -> None:
    """Nobody listens."""


@pytest.mark.parametrize("temperature", [0.0, 0.1])
def test_numpy_layers_equal_the_torch_module(rng, temperature):
    events, content = plant_blocks(rng)
    config = SMALL.model_copy(update={"temperature": temperature})
    rows = SequenceRows(events, config)
    model = build_transformer(events.n_items, content, config)
    for parameter in model.parameters():  # fresh ones are too small to tell wrong from right
        torch.nn.init.normal_(parameter, std=0.3)
    model.eval()
    everyone = np.ones(events.n_items, bool)
    retriever = build_sasrec(read_weights(model), content, everyone, cosine=temperature > 0)
    batch = next(rows.iterate_batches(rows.steps, everyone, rng))
    with torch.no_grad():
        queries, items = model.encode(batch)
    scale = temperature or 1.0
    assert np.allclose(retriever.vectors, items.numpy(), atol=1e-5)
    length = batch.history.shape[1]
    for n, place in enumerate(batch.place):
        b, last = divmod(place, length)
        item, liked = batch.items[batch.history[b, : last + 1]], batch.liked[b, : last + 1]
        if liked.any():
            past = [(int(i), 1.0 if good else -1.0) for i, good in zip(item, liked, strict=True)]
            query = retriever.encoder.encode(build_requests(past))[0]
            assert np.allclose(query, queries[n].numpy() * scale, atol=1e-4)


@pytest.mark.parametrize("drawn", [False, True])
def test_the_loss_and_its_gradients_are_those_of_cross_entropy(drawn):
    torch.manual_seed(0)
    queries, items = (torch.randn(n, 4, requires_grad=True) for n in (300, 9))
    target = torch.randint(9, (300,))
    log_chance = torch.rand(9).log() if drawn else None
    logits = queries @ items.T
    if drawn:
        logits = logits - log_chance * (1 - F.one_hot(target, 9))
    expected = F.cross_entropy(logits, target)
    wanted = torch.autograd.grad(expected, (queries, items))
    loss = SoftmaxLoss.apply(queries, items, log_chance, target)
    assert torch.allclose(loss, expected, atol=1e-5)
    for a, b in zip(torch.autograd.grad(loss, (queries, items)), wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_every_like_after_the_first_event_is_a_target_once_per_epoch(rng):
    events, _ = plant_blocks(rng, users=40, per_user=20)  # lines of 21 events, windows of 6
    rows = SequenceRows(events, SMALL)
    asked = [batch.items[batch.target] for batch in rows.iterate_batches(rows.steps, rows.trained, rng)]
    first = np.isin(np.arange(len(events)), events.user_offsets[:-1])
    likes = events.item[(events.weight > 0) & ~first]
    assert np.array_equal(np.sort(np.concatenate(asked)), np.sort(likes))
    assert rows.per_epoch == len(likes)


def test_windows_have_the_events_before_their_target(rng):
    events, _ = plant_blocks(rng)
    rows = SequenceRows(events, SMALL)
    first, last = rows.draw_windows(rng)
    assert (last - first <= SMALL.length).all() and (last > first).all()
    assert (events.user[first] == events.user[last]).all(), "the next event is the same user's"
    batch = next(rows.iterate_batches(rows.steps, rows.trained, rng))
    length = batch.history.shape[1]
    for place, target in zip(batch.place[:50], batch.target[:50], strict=True):
        b, at = divmod(place, length)
        if at + 1 < length and (batch.history[b, at + 1] != 0):  # 0 also pads
            assert batch.history[b, at + 1] == target


def test_batches_have_sequences_of_similar_length(rng):
    events, _ = plant_blocks(rng)
    lengths = rng.integers(2, 15, events.n_users)
    place = np.arange(len(events)) - events.user_offsets[events.user]
    rows = SequenceRows(events.where(place < lengths[events.user]), SMALL.model_copy(update={"length": 20}))
    batches = list(rows.iterate_batches(rows.steps, rows.trained, rng))
    room = sum(batch.history.size for batch in batches)
    used = len(rows.events) - events.n_users
    assert used <= room < 1.25 * used


def test_drawn_items_contain_every_target_with_their_probabilities(rng, monkeypatch):
    monkeypatch.setattr(sasrec_rows, "FULL_SOFTMAX", 10)
    events, _ = plant_blocks(rng)
    rows = SequenceRows(events, SMALL.model_copy(update={"negatives": 12}))
    seen, told = np.zeros(events.n_items), np.zeros(events.n_items)
    batches = [batch for _ in range(20) for batch in rows.iterate_batches(rows.steps, rows.trained, rng)]
    for batch in batches:
        assert (batch.target >= 0).all() and (batch.log_chance <= 0).all()
        seen[batch.items] += 1
        told[batch.items] = np.exp(batch.log_chance)
    often = rows.trained & (seen > 0)
    assert np.abs(seen / len(batches) - told)[often].mean() < 0.1


def test_held_out_likes_are_the_last_and_later_events_are_not_used(rng):
    events, _ = plant_blocks(rng, users=1000)
    rows = SequenceRows(events, SMALL.model_copy(update={"validation_users": 1000}))
    assert len(rows.held_out_users) == 100
    for user, wanted in zip(rows.held_out_users, rows.held_out_items, strict=True):
        mine = events.where(events.user == user)
        last = np.flatnonzero(mine.weight > 0)[-1]
        assert mine.item[last] == wanted
        assert np.array_equal(rows.events.item[rows.events.user == user], mine.item[:last])
    judged = np.concatenate([batch.items[batch.target] for batch in rows.iterate_validation(rows.trained)])
    assert np.array_equal(np.sort(judged), np.sort(rows.held_out_items))


def test_the_same_seed_gives_the_same_model(rng):
    events, content = plant_blocks(rng)
    one, two = (fit_sasrec(events, SMALL, content) for _ in range(2))
    assert np.array_equal(one.vectors, two.vectors)
    other = fit_sasrec(events, SMALL.model_copy(update={"seed": 1}), content)
    assert not np.array_equal(one.vectors, other.vectors)


def test_a_resumed_training_gives_the_same_model(rng):
    events, content = plant_blocks(rng, users=600)
    config = SMALL.model_copy(update={"validation_users": 60, "epochs": 4})
    rows = SequenceRows(events, config)
    states = []
    whole = Training(build_transformer(events.n_items, content, config), rows)
    whole.run(lambda epoch: states.append(whole.get_state()))
    again = Training(build_transformer(events.n_items, content, config), rows)
    again.restore(states[1])
    lines = []
    again.run(lambda epoch: lines.append(epoch.format_line(config)))
    assert [line.split()[2] for line in lines] == ["3/4", "4/4"] and "validation NDCG@10" in lines[0]
    for name, weights in read_weights(whole.model).items():
        assert np.array_equal(weights, read_weights(again.model)[name]), name


def test_training_stops_without_improvement_and_keeps_the_best_weights(rng):
    events, content = plant_blocks(rng, users=600)
    config = SMALL.model_copy(update={"validation_users": 60, "epochs": 50, "patience": 2, "learning_rate": 0.05})
    course = Training(build_transformer(events.n_items, content, config), SequenceRows(events, config))
    ndcg = []
    course.run(lambda epoch: ndcg.append(epoch.ndcg))
    assert len(ndcg) == course.best_epoch + 2 < 50
    assert course.validate() == max(ndcg)


def test_it_learns_the_order_of_events(rng):
    """Item i is always followed by item i + 1, which only the order of events shows."""
    start = rng.integers(0, 12, 300)
    items = (start[:, None] + np.arange(6)) % 12
    events, _ = plant_blocks(rng, users=300, items=20, per_user=5)
    events = type(events)(
        events.user, items.ravel().astype(np.int32), events.type, events.time, np.ones(1800, np.float32), 300, 20
    )
    model = fit_sasrec(events, SMALL.model_copy(update={"epochs": 15, "learning_rate": 0.01}))
    asked = build_requests([(3, 1.0), (4, 1.0), (5, 1.0)], [(7, 1.0), (8, 1.0), (9, 1.0)])
    items, _ = model.retrieve(asked, 1, allow_all(asked, 20))
    assert items[:, 0].tolist() == [6, 10]
