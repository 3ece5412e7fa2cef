"""What every retriever promises, run over every one that is registered: a new one inherits these tests."""

import numpy as np
import pytest

from handsell.core.errors import BundleError
from handsell.core.protocols import Retriever
from handsell.data.interactions import Interactions
from handsell.retrieval import registry
from handsell.retrieval.config import retrievers
from handsell.retrieval.content_vectors import Content
from planted_taste import CONFIG, END, blocks, everything, request

ITEMS = 80
NAMES = tuple(retrievers())
HISTORIES = (
    [(0, 1.0), (4, 2.0), (8, 1.0)],
    [(1, 1.0), (0, -1.0)],
    [],
    [(2, 1.0), (6, 1.0), (10, 1.0), (2, 1.0), (14, 2.0)],
    [(3, -1.0)],
)
KNOWN = [0, 1, 3]  # rows of HISTORIES with something liked


@pytest.fixture(scope="module")
def models() -> dict[str, Retriever]:
    events, content = blocks(np.random.default_rng(0), items=ITEMS)
    return {name: registry.fit(name, events, CONFIG, content) for name in NAMES}


@pytest.fixture(params=NAMES)
def model(request, models) -> Retriever:
    return models[request.param]


@pytest.fixture
def asked():
    return request(*HISTORIES)


def test_it_is_a_retriever_by_its_registered_name(models):
    for name, model in models.items():
        assert isinstance(model, Retriever)
        assert model.name == name


def test_shapes_padding_and_order(model, asked):
    items, scores = model.retrieve(asked, 30, everything(asked, ITEMS))
    assert items.shape == scores.shape == (len(asked), 30)
    assert items.dtype == np.int32 and scores.dtype == np.float32
    assert np.array_equal(items == -1, np.isnan(scores))
    for row, score in zip(items, scores, strict=True):
        found = row[row != -1]
        assert np.array_equal(row[: len(found)], found), "padding belongs at the end"
        assert len(set(found)) == len(found), "an item came twice"
        score = score[: len(found)]
        assert (np.diff(score) <= 0).all()
        tied = np.diff(score) == 0
        assert (np.diff(found)[tied] > 0).all(), "ties go by the lower item number"


def test_an_unknown_user_gets_nothing_but_the_popular(model, asked):
    items, _ = model.retrieve(asked, 10, everything(asked, ITEMS))
    nobody = items[[2, 4]]
    if not retrievers()[model.name].personal:
        assert (nobody[:, 0] != -1).all() and np.array_equal(*nobody)
        assert model.name == "trending" or (nobody != -1).all()
    else:
        assert (nobody == -1).all()
    assert (items[KNOWN, 0] != -1).all()


def test_only_eligible_items_come(model, asked):
    eligible = np.random.default_rng(1).random((len(asked), ITEMS)) < 0.3
    items, _ = model.retrieve(asked, ITEMS, eligible)
    for b, row in enumerate(items):
        assert eligible[b, row[row != -1]].all()


def test_nothing_eligible_nothing_found(model, asked):
    items, scores = model.retrieve(asked, 5, ~everything(asked, ITEMS))
    assert (items == -1).all() and np.isnan(scores).all()


@pytest.mark.parametrize("name", ["popularity", "als", "two_tower", "sasrec", "content"])
def test_k_asked_is_k_given_under_any_mask(models, name, asked):
    eligible = np.zeros((len(asked), ITEMS), bool)
    eligible[:, 20:45] = True
    items, _ = models[name].retrieve(asked, 25, eligible)
    assert (items[KNOWN] != -1).all()


def test_a_mask_removes_and_does_not_reorder(model, asked):
    whole, _ = model.retrieve(asked, ITEMS, everything(asked, ITEMS))
    eligible = np.random.default_rng(2).random((len(asked), ITEMS)) < 0.5
    masked, _ = model.retrieve(asked, 10, eligible)
    for b in range(len(asked)):
        expected = [i for i in whole[b] if i != -1 and eligible[b, i]][:10]
        assert [i for i in masked[b] if i != -1] == expected


def test_a_batch_gives_what_single_requests_give(model, asked):
    eligible = np.random.default_rng(3).random((len(asked), ITEMS)) < 0.8
    together = model.retrieve(asked, 12, eligible)
    for b in range(len(asked)):
        alone = model.retrieve(asked.take(slice(b, b + 1)), 12, eligible[b : b + 1])
        for a, t in zip(alone, together, strict=True):
            assert np.array_equal(a[0], t[b], equal_nan=True), f"row {b} depends on its batch"


def test_score_agrees_with_retrieve(model, asked):
    items, scores = model.retrieve(asked, 20, everything(asked, ITEMS))
    assert np.array_equal(model.score(asked, items), scores, equal_nan=True)


def test_score_of_no_item_and_of_one_beyond_the_catalog_is_nan(model, asked):
    items = np.tile(np.array([-1, ITEMS, ITEMS + 1000], np.int32), (len(asked), 1))
    assert np.isnan(model.score(asked, items)).all()


def test_save_and_load(model, asked, tmp_path):
    model.save(tmp_path)
    again = registry.load(model.name, tmp_path)
    before, after = (m.retrieve(asked, 30, everything(asked, ITEMS)) for m in (model, again))
    for b, a in zip(before, after, strict=True):
        assert np.array_equal(b, a, equal_nan=True)
    assert not [f for f in tmp_path.rglob("*") if f.suffix in (".pkl", ".pickle", ".pt", ".joblib")]


def test_missing_or_broken_files_are_named(model, tmp_path):
    with pytest.raises(BundleError, match=model.name):
        registry.load(model.name, tmp_path / "nowhere")


@pytest.mark.parametrize("columns", [ITEMS + 7, ITEMS - 7])
def test_a_catalog_that_grew_or_is_shorter_than_the_model(model, asked, columns):
    items, _ = model.retrieve(asked, ITEMS, everything(asked, columns))
    assert items.max() < min(columns, ITEMS)


def test_history_items_that_the_model_has_never_seen_do_not_count(model):
    with_new = request([(0, 1.0), (4, 1.0), (ITEMS + 3, 2.0)])
    items, _ = model.retrieve(with_new, 5, everything(with_new, ITEMS + 7))
    assert items.max() < ITEMS


def test_events_at_or_after_the_request_are_not_used(model):
    asked = request([(0, 1.0), (4, 1.0)], [(0, 1.0), (4, 1.0), (5, 2.0), (1, 2.0)])
    asked.history.time[1, -2:] = END, END + 1  # the last two happen now and later
    asked.history.time[1, -4:-2] = asked.history.time[0, -2:]
    items, scores = model.retrieve(asked, 20, everything(asked, ITEMS))
    assert np.array_equal(items[0], items[1])
    assert np.allclose(scores[0], scores[1], equal_nan=True)


def log(users, items, weights=None, times=None, n_users=1, n_items=1) -> Interactions:
    n = len(users)
    return Interactions(
        np.array(users, np.int32),
        np.array(items, np.int32),
        np.zeros(n, np.int8),
        np.array(times if times is not None else np.arange(n) + 1, np.int64),
        np.array(weights if weights is not None else np.ones(n), np.float32),
        n_users,
        n_items,
    )


SMALLEST = {
    "no event": log([], [], n_users=3, n_items=4),
    "one item": log([0, 0, 1], [0, 0, 0], n_users=2),
    "one user": log([0] * 6, [0, 1, 2, 3, 4, 0], n_items=5),
    "one event": log([0], [1], n_items=3),
    "identical times": log(np.repeat(np.arange(6), 3), np.arange(18) % 5, times=np.full(18, 7), n_users=6, n_items=5),
    "dislikes only": log([0, 0, 1], [0, 1, 1], weights=[-1, -1, -1], n_users=2, n_items=2),
}


@pytest.mark.parametrize("case", SMALLEST)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("with_content", [False, True])
def test_the_smallest_data_never_fails(name, case, with_content, tmp_path):
    events = SMALLEST[case]
    content = Content(np.eye(events.n_items, 3, dtype=np.float32)) if with_content else None
    model = registry.fit(name, events, CONFIG, content)
    model.save(tmp_path)
    asked = request([(0, 1.0)], [])
    items, scores = registry.load(name, tmp_path).retrieve(asked, 5, everything(asked, events.n_items))
    assert items.shape == (2, 5) and items.max() < events.n_items
    assert np.array_equal(items == -1, np.isnan(scores))
