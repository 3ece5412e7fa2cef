"""Baselines find a planted taste, and use only likes before the request."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from handsell.core.batches import Requests
from handsell.core.units import DAY_US
from handsell.data.interactions import Interactions
from handsell.evaluation import baselines
from handsell.evaluation.baselines import Baselines
from handsell.testing.planted_taste import BLOCKS, END, build_requests, find_block

ITEMS, USERS = 40, 60
PERSONAL = ("EASE", "EASE, recent", "item cosine, recent")


def log(rows: list[tuple[int, int, float, float]], users: int = USERS, items: int = ITEMS) -> Interactions:
    """Events from (user, item, days before END, weight)."""
    rows = sorted(rows, key=lambda row: (row[0], -row[2]))
    user, item, age, weight = (np.array(c) for c in zip(*rows, strict=True))
    return Interactions(
        user.astype(np.int32), item.astype(np.int32), np.zeros(len(rows), np.int8),
        END - (age * DAY_US).astype(np.int64), weight.astype(np.float32), users, items,
    )  # fmt: skip


def of_users(*users: int, time: int = END) -> Requests:
    return replace(build_requests(*([] for _ in users), time=time), user=np.array(users, np.int32))


def ask(fit: Interactions, events: Interactions, requests: Requests, repeats: bool = False, eligible=None):
    may = np.ones((len(requests), events.n_items), bool) if eligible is None else eligible
    return Baselines.of(fit, events, requests, repeats).rank(lambda rows: may[rows])


@pytest.fixture
def taste(rng) -> list[tuple[int, int, float, float]]:
    """User u likes seven of the ten items of block u % BLOCKS, on different days."""
    rows = []
    for user in range(USERS):
        own = rng.permutation(ITEMS // BLOCKS)[:7] * BLOCKS + user % BLOCKS
        rows += [(user, int(item), float(age), 1.0) for age, item in enumerate(own, start=1)]
    return rows


@pytest.mark.parametrize("name", PERSONAL)
def test_a_planted_taste_is_found(taste, name):
    events = log(taste)
    seen = events.matrix().toarray()[:BLOCKS] > 0
    lists = ask(events, events, of_users(*range(BLOCKS)), eligible=~seen)[name]
    assert lists.shape == (BLOCKS, 10) and lists.dtype == np.int32
    assert (find_block(lists[:, :3]) == np.arange(BLOCKS)[:, None]).all(), "the three items that are left of the block"


def test_events_at_or_after_the_request_change_no_list(taste):
    fit, asked = log(taste), of_users(0, 1, 2)
    before = ask(fit, fit, asked, repeats=True)
    future = [(user, item, age, 5.0) for user in range(3) for item in range(ITEMS) for age in (0.0, -1.0)]
    after = ask(fit, log([*taste, *future]), asked, repeats=True)
    assert before.keys() == after.keys() and len(before) == 6
    for name, lists in before.items():
        np.testing.assert_array_equal(after[name], lists, err_msg=name)


def test_events_just_before_the_request_count(taste):
    fit, asked = log(taste), of_users(0)
    just = ask(fit, log([*taste, (0, 33, 1e-9, 1.0), (0, 33, 2e-9, 1.0)]), asked, repeats=True)
    assert just["own most frequent"][0, 0] == 33


def test_each_request_uses_events_before_its_own_time(taste):
    asked = of_users(0, 0, time=END)
    asked.time[0] = END - int(3.5 * DAY_US)  # only the likes of 4 to 7 days ago
    lists = ask(log(taste), log(taste), asked, repeats=True)["own most frequent"]
    mine = {age: item for user, item, age, _ in taste if user == 0}
    known = {mine[age] for age in (4, 5, 6, 7)}
    assert set(lists[0, :4].tolist()) == known and mine[1] not in lists[0, :4].tolist()
    assert set(lists[1, :7].tolist()) == set(mine.values())


def test_with_repeats_a_users_most_frequent_items_are_first(taste):
    own = [(0, 5, 1.1, 1.0), (0, 5, 1.2, 1.0), (0, 5, 1.3, 1.0), (0, 9, 1.4, 1.0), (0, 9, 1.5, 1.0), (0, 2, 0.1, 1.0)]
    events = log([*own, *(row for row in taste if row[0] != 0)])
    lists = ask(events, events, of_users(0), repeats=True)
    assert lists["own most frequent"][0, :3].tolist() == [5, 9, 2]
    assert not {"own most frequent", "own latest"} & ask(events, events, of_users(0), repeats=False).keys()


def test_with_repeats_a_users_latest_items_are_first(taste):
    """Forty likes of item 9 lie between those of 5 and 2, and 5 is popular: neither counts."""
    own = [(0, 5, 9.0, 1.0), (0, 7, 8.0, 1.0), *((0, 9, 2 + i / 100, 1.0) for i in range(40)), (0, 2, 0.1, 1.0)]
    events = log([*own, (0, 7, 20.0, 1.0), *((user, 5, 1.0, 1.0) for user in range(1, USERS))])
    assert ask(events, events, of_users(0), repeats=True)["own latest"][0, :4].tolist() == [2, 9, 7, 5]


def test_recent_baselines_prefer_recent_likes(taste):
    """User 0 liked twenty times in block 0 and then eight times in block 1."""
    old = [(0, 4 * (i % 6), 60.0 - i, 1.0) for i in range(20)]
    new = [(0, 4 * (i % 4) + 1, 9.0 - i, 1.0) for i in range(8)]
    events = log([*old, *new, *(row for row in taste if row[0] != 0)])
    seen = events.matrix().toarray()[:1] > 0
    lists = ask(events, events, of_users(0), eligible=~seen)
    assert find_block(lists["EASE"][0, 0]) == 0, "six items against four"
    for name in ("EASE, recent", "item cosine, recent"):
        assert find_block(lists[name][0, 0]) == 1, name


def test_popularity_counts_users_and_not_their_repeats():
    many = [(user, 7, 2.0, 1.0) for user in range(10)] + [(11, 3, float(age), 1.0) for age in range(1, 30)]
    some = [(user, 8, 2.0, 1.0) for user in range(5)]
    events = log([*many, *some])
    lists = ask(events, events, of_users(20, -1))["popularity"]
    assert lists[:, :3].tolist() == [[7, 8, 3]] * 2


def test_a_large_catalog_with_few_liked_items_has_baselines_of_the_liked_items():
    """Nothing of the size of the whole catalog squared, or of all items for each request, is computed."""
    catalog = 1_000_000
    rows = [(user, catalog - 1 - item, 2.0, 1.0) for user in range(8) for item in range(user % 4 + 1)]
    events, asked = log(rows, items=catalog), of_users(0, 1)
    found = Baselines.of(events, events, asked, True)
    assert found.items.tolist() == [catalog - 4, catalog - 3, catalog - 2, catalog - 1]
    lists = found.rank(lambda rows: np.ones((2, catalog), bool))
    assert len(lists) == 6
    assert lists["popularity"][0].tolist() == [catalog - 1, catalog - 2, catalog - 3, catalog - 4, *[-1] * 6]
    assert lists["own most frequent"][0, 0] == catalog - 1


def test_without_any_like_the_lists_are_empty():
    events = log([(0, 1, 1.0, -1.0)])
    assert all((lists == -1).all() for lists in ask(events, events, of_users(0, -1), repeats=True).values())


@pytest.mark.parametrize("name", PERSONAL)
def test_an_item_is_not_its_own_neighbor(taste, name):
    events = log([(0, 0, 1.0, 1.0), *(row for row in taste if row[0] != 0)])
    lists = ask(events, events, of_users(0), repeats=True)
    assert 0 not in lists[name][0, :9] and (find_block(lists[name][0, :9]) == 0).all()
    assert lists["own most frequent"][0, 0] == 0


@pytest.mark.parametrize("user", [-1, USERS - 1])
def test_users_without_history_get_popular_items(taste, user):
    events = log([row for row in taste if row[0] != USERS - 1])
    lists = ask(events, events, of_users(user))
    for name in PERSONAL:
        np.testing.assert_array_equal(lists[name], lists["popularity"], err_msg=name)


def test_dislikes_do_not_count_as_likes(taste):
    events = log(taste)
    disliked = log([*taste, *((user, user % ITEMS, 0.5, -1.0) for user in range(USERS))])
    asked = of_users(0, 1, 2, 3)
    for name, lists in ask(events, events, asked, repeats=True).items():
        np.testing.assert_array_equal(ask(disliked, disliked, asked, repeats=True)[name], lists, err_msg=name)


def test_lists_have_only_eligible_items_and_are_padded(taste, rng):
    events, asked = log(taste), of_users(0, 1, 2)
    may = rng.random((3, ITEMS)) < 0.5
    may[2] = False
    may[2, [3, 4]] = True
    for name, lists in ask(events, events, asked, repeats=True, eligible=may).items():
        for b in range(2):
            assert may[b, lists[b]].all(), name
        assert set(lists[2, :2].tolist()) == {3, 4} and (lists[2, 2:] == -1).all(), name


def test_a_single_request_equals_the_same_request_in_a_batch(taste):
    events, asked = log(taste), of_users(*(i % USERS for i in range(300)))
    together = ask(events, events, asked, repeats=True)
    for name, lists in ask(events, events, asked.take(slice(270, 271)), repeats=True).items():
        np.testing.assert_array_equal(together[name][270:271], lists, err_msg=name)


def test_ease_of_a_large_catalog_is_fitted_on_its_most_liked_items(taste, monkeypatch):
    """Block 0 has two users left, and its items are beyond the limit."""
    events = log([row for row in taste if row[0] % BLOCKS or row[0] < 2 * BLOCKS])
    monkeypatch.setattr(baselines, "MAX_ITEMS", 30)
    lists = ask(events, events, of_users(0, 1, 2, 3))
    for name in ("EASE", "EASE, recent"):
        assert (find_block(lists[name][1:, :7]) == np.arange(1, 4)[:, None]).all()
        np.testing.assert_array_equal(lists[name][0], lists["popularity"][0])


@pytest.mark.parametrize("items", [1, 6, 7, 8, 20])
def test_matrices_that_are_changed_block_by_block_are_those_of_the_formulas(rng, monkeypatch, items):
    monkeypatch.setattr(baselines, "BLOCK", 7)
    liked = sparse.csr_matrix((rng.random((50, items)) < 0.3).astype(np.float32))
    pairs, scale = (liked.T @ liked).tocsr(), rng.random(items) + 0.5
    gram = pairs.toarray()
    inverse = np.linalg.inv(gram.astype(np.float64) + baselines.EASE_REG * np.eye(items))
    cosine = gram * np.outer(scale, scale)
    np.fill_diagonal(cosine, 0)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    np.testing.assert_allclose(baselines._fit_ease(gram), weights, atol=1e-6)
    np.testing.assert_allclose(baselines._scale_to_cosine(pairs, scale).toarray(), cosine, rtol=1e-6)
