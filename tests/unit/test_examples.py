"""Labeled examples: the candidates that are kept, their labels, and independence of shards."""

from dataclasses import replace

import numpy as np
import pytest

from handsell.core.batches import Ragged
from handsell.core.errors import TrainingError
from handsell.ranking.examples import Coverage, Outcomes, ShownItems, compute_keep_chance, label_examples
from handsell.ranking.shards import count_usable_workers, read_coverage, read_shards, shard_folders, write_shards
from handsell.testing.small_catalog import draw_candidates, draw_requests, draw_snapshot

K, ROWS = 60, 12


def as_matrix(requests, candidates, pick):
    """Two columns: the item and the user, so that a row tells where it came from."""
    item = np.take_along_axis(candidates.item, pick, 1)
    return np.stack([item, np.broadcast_to(requests.user[:, None], item.shape)], axis=2).astype(np.float32)


@pytest.fixture
def asked():
    rng = np.random.default_rng(5)
    shelf = draw_snapshot(rng)
    asked, found = draw_requests(rng, shelf, ROWS), draw_candidates(rng, shelf, ROWS, K, pad=3)
    acted = [np.array([found.item[b, b], found.item[b, 20], found.item[b, 30], 999]) for b in range(ROWS)]
    acted[4] = np.array([999])  # its only positive was not retrieved
    grades = [np.array([0.3, 2.4, -1.0, 5.0])[: len(row)] for row in acted]
    outcomes = Outcomes(Ragged.from_rows(acted), Ragged.from_rows(grades, np.float32))
    return asked, found, outcomes


def label(asked, shown=None, negatives=20, seed=0):
    batch, found, outcomes = asked
    shown = shown or ShownItems.empty(len(batch))
    return label_examples(batch, found, outcomes, shown, as_matrix, negatives=negatives, seed=seed)


def test_labels_are_graded_by_event_weight(asked):
    examples = label(asked)
    batch, found, _ = asked
    mine = examples.x[:, 1] == 7
    labels = dict(zip(examples.item[mine], examples.label[mine], strict=True))
    assert labels[found.item[7, 7]] == 1  # 0.3 is still a positive
    assert labels[found.item[7, 20]] == 2
    assert labels[found.item[7, 30]] == 0  # refused: always kept, as a negative
    assert 999 not in labels
    assert sum(value > 0 for value in labels.values()) == 2
    assert len(labels) == 3 + 20
    assert len(batch) == ROWS


def test_features_belong_to_their_rows(asked):
    examples = label(asked)
    np.testing.assert_array_equal(examples.x[:, 0], examples.item)
    users = {q: set(examples.x[examples.qid == q, 1]) for q in np.unique(examples.qid)}
    assert all(len(found) == 1 for found in users.values()) and len(users) == ROWS - 1
    assert (np.diff(examples.x[:, 1]) >= 0).all()  # groups are whole


def test_missed_positives_are_counted_and_never_injected(asked):
    examples = label(asked)
    assert examples.coverage == Coverage(requests=ROWS, groups=ROWS - 1, positives=3 * ROWS - 2, found=2 * ROWS - 2)
    assert examples.coverage.recall_ceiling == (2 * ROWS - 2) / (3 * ROWS - 2)
    assert not (examples.x[:, 1] == 4).any()
    assert (examples.item >= 0).all() and 999 not in examples.item


def test_other_candidates_are_drawn_uniformly_and_weighted(asked):
    _, found, _ = asked
    place = {int(item): k for k, item in enumerate(found.item[0])}
    drawn = np.zeros(K)
    for seed in range(200):
        examples = label(asked, seed=seed)
        mine = examples.x[:, 1] == 0
        assert examples.weight[mine].sum() == pytest.approx(K - 3)  # every real candidate is stood for
        drawn[[place[int(i)] for i in examples.item[mine & (examples.label == 0)]]] += 1
    front, back = drawn[1:20].mean(), drawn[31:50].mean()
    assert front == pytest.approx(back, rel=0.15), "a good place must not be over-represented"


def test_examples_do_not_depend_on_shards(asked):
    whole = label(asked)
    batch, found, outcomes = asked
    parts = []
    for rows in (slice(0, 5), slice(5, ROWS)):
        cut = Outcomes(outcomes.item.take(rows), outcomes.grade.take(rows))
        parts.append(label((batch.take(rows), found.take(rows), cut)))
    np.testing.assert_array_equal(np.concatenate([p.x for p in parts]), whole.x)
    np.testing.assert_array_equal(np.concatenate([p.qid for p in parts]), whole.qid)
    assert parts[0].coverage + parts[1].coverage == whole.coverage


def test_the_seed_changes_the_drawn_negatives(asked):
    a, b, again = label(asked, seed=1), label(asked, seed=2), label(asked, seed=1)
    np.testing.assert_array_equal(a.item, again.item)
    assert set(zip(a.qid, a.item, strict=True)) != set(zip(b.qid, b.item, strict=True))


def test_shown_items_without_interaction_are_kept_by_probability(asked):
    found = asked[1]
    rows = [found.item[b, 40:50] for b in range(ROWS)]
    propensity = np.array([0.9] * 5 + [0.1] * 5, np.float32)
    shown = ShownItems(
        Ragged.from_rows(rows),
        Ragged.from_rows([np.ones(10, np.int16)] * ROWS, np.int16),
        Ragged.from_rows([propensity] * ROWS, np.float32),
    )
    loved = unloved = 0
    for seed in range(30):
        examples = label(asked, shown, negatives=2, seed=seed)
        for b in set(range(ROWS)) - {4}:
            mine = set(examples.item[examples.x[:, 1] == b])
            loved += len(mine & set(rows[b][:5]))
            unloved += len(mine & set(rows[b][5:]))
    possible = 30 * (ROWS - 1) * 5
    assert unloved == possible  # what the policy rarely shows and was ignored is always told
    assert loved / possible == pytest.approx(0.5 / 0.9, abs=0.05)  # median 0.5 / propensity 0.9


def test_the_keep_probability_decreases_with_position_to_a_minimum():
    position = np.array([1, 3, 100, 0])
    shown = ShownItems(
        Ragged.from_rows([np.arange(4)]),
        Ragged.from_rows([position], np.int16),
        Ragged.from_rows([np.full(4, np.nan)], np.float32),
    )
    np.testing.assert_allclose(compute_keep_chance(shown, 10), [1, 0.5, 1 / np.log2(101), 1])
    far = replace(shown, propensity=Ragged.from_rows([[1e-6, 1e-6, 1e-6, 1.0]], np.float32))
    assert compute_keep_chance(far, 10)[3] == pytest.approx(0.1)


def test_no_requests_and_no_outcomes_give_no_examples(asked):
    batch, found, _ = asked
    nothing = label((batch, found, Outcomes.empty(ROWS)))
    assert len(nothing) == 0 and nothing.x.shape == (0, 2) and nothing.coverage == Coverage(ROWS, 0, 0, 0)
    empty = slice(0, 0)
    assert len(label((batch.take(empty), found.take(empty), Outcomes.empty(0)))) == 0


def test_shards_have_whole_groups_and_together_all_examples(asked, tmp_path):
    examples = label(asked)
    write_shards(examples, ("item", "user"), tmp_path, "part-0", shards=3)
    parts = [read_shards(shard_folders(tmp_path, w, 3), ("item", "user")) for w in range(3)]
    owner = [set(part.qid) for part in parts]
    assert not (owner[0] & owner[1] | owner[0] & owner[2] | owner[1] & owner[2])
    together = {(q, i) for part in parts for q, i in zip(part.qid, part.item, strict=True)}
    assert together == set(zip(examples.qid, examples.item, strict=True))
    assert all((np.diff(part.qid) >= 0).all() for part in parts)
    assert read_coverage(tmp_path) == examples.coverage
    everything = read_shards(shard_folders(tmp_path), ("user",))
    assert len(everything) == len(examples) and everything.x.shape == (len(examples), 1)


def test_missing_features_and_shards_are_named(asked, tmp_path):
    write_shards(label(asked), ("item", "user"), tmp_path, "part-0", shards=2)
    with pytest.raises(TrainingError, match="missing item_age_days"):
        read_shards(shard_folders(tmp_path), ("item", "item_age_days"))
    with pytest.raises(TrainingError, match="expected at least 3 shards, one per worker, got 2"):
        shard_folders(tmp_path, 0, 3)
    with pytest.raises(TrainingError, match="expected 1 feature columns, got 2"):
        write_shards(label(asked), ("item",), tmp_path, "part-1", shards=2)


def test_no_worker_has_no_rows(asked, tmp_path):
    batch, found, outcomes = asked
    one = slice(0, 1)
    single = label((batch.take(one), found.take(one), Outcomes(outcomes.item.take(one), outcomes.grade.take(one))))
    write_shards(label(asked), ("item", "user"), tmp_path / "train", "p", shards=2)
    write_shards(single, ("item", "user"), tmp_path / "single", "p", shards=2)
    assert count_usable_workers(tmp_path / "train", tmp_path / "train", 2) == 2
    assert count_usable_workers(tmp_path / "single", tmp_path / "train", 2) == 1
    assert count_usable_workers(tmp_path / "train", tmp_path / "single", 2) == 1
