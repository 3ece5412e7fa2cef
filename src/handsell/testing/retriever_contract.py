"""Contract tests for retrievers. To run them for a registered retriever, inherit the class in a test module:

from handsell.testing.retriever_contract import RetrieverContract

class TestLatest(RetrieverContract):
    names = ("latest",)
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from handsell.core.batches import Requests
from handsell.core.errors import BundleError
from handsell.core.protocols import Retriever
from handsell.data.interactions import Interactions
from handsell.retrieval import registry
from handsell.retrieval.config import RetrievalConfig, RetrieverPlugin, retrievers
from handsell.retrieval.content_vectors import Content
from handsell.testing.planted_taste import CONFIG, END, allow_all, build_requests, plant_blocks

ITEMS = 80
HISTORIES: tuple[list[tuple[int, float]], ...] = (
    [(0, 1.0), (4, 2.0), (8, 1.0)],
    [(1, 1.0), (0, -1.0)],
    [],
    [(2, 1.0), (6, 1.0), (10, 1.0), (2, 1.0), (14, 2.0)],
    [(3, -1.0)],
)
WITH_LIKES = [0, 1, 3]  # rows of HISTORIES
WITHOUT_LIKES = [2, 4]


def build_interactions(users, items, weights=None, times=None, n_users=1, n_items=1) -> Interactions:
    """Events of type 0; by default of weight 1, one microsecond apart."""
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
    "no event": build_interactions([], [], n_users=3, n_items=4),
    "one item": build_interactions([0, 0, 1], [0, 0, 0], n_users=2),
    "one user": build_interactions([0] * 6, [0, 1, 2, 3, 4, 0], n_items=5),
    "one event": build_interactions([0], [1], n_items=3),
    "identical times": build_interactions(
        np.repeat(np.arange(6), 3), np.arange(18) % 5, times=np.full(18, 7), n_users=6, n_items=5
    ),
    "dislikes only": build_interactions([0, 0, 1], [0, 1, 1], weights=[-1, -1, -1], n_users=2, n_items=2),
}


class RetrieverContract:
    """What every retriever must keep; each test runs once per name."""

    names: ClassVar[tuple[str, ...]] = ()  # registered names
    config: ClassVar[RetrievalConfig] = CONFIG  # the sections that the models are fitted with

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "name" in metafunc.fixturenames:
            metafunc.parametrize("name", self.names, scope="class")

    @pytest.fixture(scope="class")
    @classmethod
    def plugin(cls, name: str) -> RetrieverPlugin:
        """The registration."""
        if name not in retrievers():
            pytest.fail(
                f"expected a registered retriever, got {name!r}, which is none of {', '.join(retrievers())}: install "
                "its package, with its module as an entry point of the group handsell.plugins"
            )
        return retrievers()[name]

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, plugin: RetrieverPlugin) -> Retriever:
        """The retriever fitted on planted tastes of ITEMS items."""
        events, content = plant_blocks(np.random.default_rng(0), items=ITEMS)
        return registry.fit(plugin.name, events, cls.config, content)

    @pytest.fixture
    def requests(self) -> Requests:
        """One request per row of HISTORIES."""
        return build_requests(*HISTORIES)

    def test_it_keeps_the_protocol_under_its_registered_name(self, model, name):
        assert isinstance(model, Retriever)
        assert getattr(model, "name", None) == name

    def test_shapes_types_padding_and_order(self, model, requests):
        items, scores = model.retrieve(requests, 30, allow_all(requests, ITEMS))
        assert items.shape == scores.shape == (len(requests), 30)
        assert items.dtype == np.int32 and scores.dtype == np.float32
        assert np.array_equal(items == -1, np.isnan(scores))
        assert not np.isinf(scores).any()
        for row, score in zip(items, scores, strict=True):
            found = row[row != -1]
            assert np.array_equal(row[: len(found)], found), "padding belongs at the end"
            assert len(set(found)) == len(found), "an item occurs twice"
            score = score[: len(found)]
            assert (np.diff(score) <= 0).all()
            tied = np.diff(score) == 0
            assert (np.diff(found)[tied] > 0).all(), "equal scores are ordered by item number"

    def test_more_items_requested_than_the_catalog_has(self, model, requests):
        items, scores = model.retrieve(requests, ITEMS + 20, allow_all(requests, ITEMS))
        assert items.shape == scores.shape == (len(requests), ITEMS + 20)
        fewer, _ = model.retrieve(requests, ITEMS, allow_all(requests, ITEMS))
        assert np.array_equal(items[:, :ITEMS], fewer) and (items[:, ITEMS:] == -1).all()

    def test_a_user_without_likes_gets_items_only_from_a_source_that_is_not_personal(self, model, plugin, requests):
        items, _ = model.retrieve(requests, 10, allow_all(requests, ITEMS))
        without = items[WITHOUT_LIKES]
        if plugin.personal:
            assert (without == -1).all()
        else:
            assert (without[:, 0] != -1).all() and np.array_equal(*without)
        assert (items[WITH_LIKES, 0] != -1).all()

    def test_only_eligible_items_are_returned(self, model, requests):
        eligible = np.random.default_rng(1).random((len(requests), ITEMS)) < 0.3
        items, _ = model.retrieve(requests, ITEMS, eligible)
        for b, row in enumerate(items):
            assert eligible[b, row[row != -1]].all()

    def test_nothing_is_returned_where_nothing_is_eligible(self, model, requests):
        items, scores = model.retrieve(requests, 5, ~allow_all(requests, ITEMS))
        assert (items == -1).all() and np.isnan(scores).all()

    def test_a_mask_removes_items_and_does_not_reorder_the_others(self, model, requests):
        whole, _ = model.retrieve(requests, ITEMS, allow_all(requests, ITEMS))
        eligible = np.random.default_rng(2).random((len(requests), ITEMS)) < 0.5
        masked, _ = model.retrieve(requests, 10, eligible)
        for b in range(len(requests)):
            expected = [i for i in whole[b] if i != -1 and eligible[b, i]][:10]
            assert [i for i in masked[b] if i != -1] == expected

    def test_a_batch_gives_what_single_requests_give(self, model, requests):
        eligible = np.random.default_rng(3).random((len(requests), ITEMS)) < 0.8
        together = model.retrieve(requests, 12, eligible)
        for b in range(len(requests)):
            alone = model.retrieve(requests.take(slice(b, b + 1)), 12, eligible[b : b + 1])
            for a, t in zip(alone, together, strict=True):
                assert np.array_equal(a[0], t[b], equal_nan=True), f"row {b} depends on its batch"

    def test_the_same_requests_get_the_same_answer_and_stay_unchanged(self, model, requests):
        eligible = np.random.default_rng(4).random((len(requests), ITEMS)) < 0.8
        mask = eligible.copy()
        first, second = (model.retrieve(requests, 12, eligible) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            assert np.array_equal(a, b, equal_nan=True)
        untouched = build_requests(*HISTORIES)
        assert np.array_equal(eligible, mask)
        for field in ("item", "type", "time", "weight"):
            assert np.array_equal(getattr(requests.history, field), getattr(untouched.history, field))

    def test_score_agrees_with_retrieve(self, model, requests):
        items, scores = model.retrieve(requests, 20, allow_all(requests, ITEMS))
        assert np.array_equal(model.score(requests, items), scores, equal_nan=True)

    def test_the_score_of_padding_and_of_an_item_beyond_the_catalog_is_nan(self, model, requests):
        items = np.tile(np.array([-1, ITEMS, ITEMS + 1000], np.int32), (len(requests), 1))
        assert np.isnan(model.score(requests, items)).all()

    def test_a_loaded_model_gives_the_same_answers_and_needs_no_pickle(self, model, plugin, requests, tmp_path):
        model.save(tmp_path)
        loaded = registry.load(plugin.name, tmp_path)
        before, after = (m.retrieve(requests, 30, allow_all(requests, ITEMS)) for m in (model, loaded))
        for b, a in zip(before, after, strict=True):
            assert np.array_equal(b, a, equal_nan=True)
        assert not [f for f in tmp_path.rglob("*") if f.suffix in (".pkl", ".pickle", ".pt", ".joblib")]

    def test_missing_files_raise_an_error_that_names_the_retriever(self, plugin, tmp_path):
        with pytest.raises(BundleError, match=plugin.name):
            registry.load(plugin.name, tmp_path / "nowhere")

    @pytest.mark.parametrize("columns", [ITEMS + 7, ITEMS - 7])
    def test_the_mask_may_be_wider_or_narrower_than_the_model(self, model, requests, columns):
        items, _ = model.retrieve(requests, ITEMS, allow_all(requests, columns))
        assert items.max() < min(columns, ITEMS)

    def test_history_items_that_the_model_does_not_know_do_not_count(self, model):
        with_new = build_requests([(0, 1.0), (4, 1.0), (ITEMS + 3, 2.0)])
        items, _ = model.retrieve(with_new, 5, allow_all(with_new, ITEMS + 7))
        assert items.max() < ITEMS

    def test_events_at_or_after_the_request_are_not_used(self, model):
        requests = build_requests([(0, 1.0), (4, 1.0)], [(0, 1.0), (4, 1.0), (5, 2.0), (1, 2.0)])
        requests.history.time[1, -2:] = END, END + 1
        requests.history.time[1, -4:-2] = requests.history.time[0, -2:]
        items, scores = model.retrieve(requests, 20, allow_all(requests, ITEMS))
        assert np.array_equal(items[0], items[1])
        assert np.allclose(scores[0], scores[1], equal_nan=True)

    @pytest.mark.parametrize("case", SMALLEST)
    @pytest.mark.parametrize("with_content", [False, True])
    def test_fitting_never_fails_for_lack_of_data(self, plugin, case, with_content, tmp_path):
        loaded = self.fit_saved(plugin, case, with_content, tmp_path)
        requests = build_requests([(0, 1.0)], [])
        n_items = SMALLEST[case].n_items
        items, scores = loaded.retrieve(requests, 5, allow_all(requests, n_items))
        assert items.shape == (2, 5) and items.max() < n_items
        assert np.array_equal(items == -1, np.isnan(scores))

    def test_fitting_twice_gives_the_same_model(self, plugin, tmp_path):
        models = [self.fit_saved(plugin, "identical times", True, tmp_path / name) for name in ("first", "second")]
        requests = build_requests([(0, 1.0), (2, 1.0)], [])
        first, second = (model.retrieve(requests, 5, allow_all(requests, 5)) for model in models)
        for a, b in zip(first, second, strict=True):
            assert np.array_equal(a, b, equal_nan=True)

    def fit_saved(self, plugin: RetrieverPlugin, case: str, with_content: bool, path: Path) -> Retriever:
        """Return the model of a case of SMALLEST, after it was saved and loaded."""
        events = SMALLEST[case]
        content = Content(np.eye(events.n_items, 3, dtype=np.float32)) if with_content else None
        registry.fit(plugin.name, events, self.config, content).save(path)
        return registry.load(plugin.name, path)
