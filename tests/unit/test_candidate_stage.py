"""The candidate stage: order of sources, eligibility, and failing retrievers."""

import dataclasses
import logging

import numpy as np
import pytest

from handsell.core.funnel import run_local
from handsell.core.units import DAY_US
from handsell.eligibility.config import Surface
from handsell.eligibility.mask import Eligibility
from handsell.retrieval.config import RetrievalConfig
from handsell.retrieval.fusion import CarriedItems
from handsell.retrieval.history_weights import HistoryWeights
from handsell.retrieval.models.history import HistoryRetriever
from handsell.retrieval.models.popularity import Popularity
from handsell.retrieval.stage import LocalCandidates
from handsell.testing.small_catalog import draw_requests, draw_snapshot

CONFIG = RetrievalConfig.model_validate({"history": {"enabled": True}})


class Broken(HistoryRetriever):
    """A retriever whose files went away under it."""

    def retrieve(self, requests, k, eligible):
        raise OSError("the mapped file is gone")


@pytest.fixture
def shelf(rng):
    return draw_snapshot(rng)


@pytest.fixture
def asked(rng, shelf):
    return draw_requests(rng, shelf)


@pytest.fixture
def stage(rng, shelf):
    retrievers = {
        "history": HistoryRetriever(HistoryWeights(7.0), *np.ones((2, len(shelf)), np.float32)),
        "popularity": Popularity(rng.random(len(shelf), np.float32)),
    }
    return LocalCandidates(retrievers, Eligibility(shelf, (Surface(repeat="allow"),)), CONFIG)


def test_sources_have_the_order_of_the_config(stage, asked):
    assert run_local(stage.candidates(asked, 100)).sources == ("popularity", "history")
    without = RetrievalConfig.model_validate({"history": {"enabled": False}})
    assert dataclasses.replace(stage, config=without).sources == ("popularity",)


def test_every_candidate_is_eligible_and_there_are_at_most_k(stage, asked):
    found = run_local(stage.candidates(asked, 60))
    assert found.item.shape == (len(asked), 60) and not found.degraded
    allowed = stage.eligibility.mask(asked)
    for b, row in enumerate(found.item):
        assert allowed[b, row[row != -1]].all()


def test_new_items_beyond_the_best_are_passed_on_for_exploration(stage, asked, shelf):
    """Of the popular items, the least popular are new: fusion drops them first."""
    last = np.flatnonzero(stage.eligibility.mask(asked).all(axis=0))[-12:]
    score = np.linspace(1, 0.5, len(shelf), dtype=np.float32)
    score[last] = np.linspace(0.1, 0.01, len(last))
    published = np.full(len(shelf), int(asked.time.min()) - 100 * DAY_US)
    published[last] = int(asked.time.min()) - DAY_US
    new = dataclasses.replace(
        stage,
        retrievers={"popularity": Popularity(score)},
        eligibility=stage.eligibility.with_snapshot(dataclasses.replace(shelf, published=published)),
    )
    plain = run_local(new.candidates(asked, 20))
    carrying = dataclasses.replace(new, carried=CarriedItems(5, days=14))
    found = run_local(carrying.candidates(asked, 20))
    assert found.item.shape == (len(asked), 25) and not np.isin(plain.item, last).any()
    np.testing.assert_array_equal(found.item[:, :20], plain.item)
    assert (found.item[:, 20:] == last[:5]).all() and np.isfinite(found.source_rank[:, 20:, 0]).all()
    assert (
        run_local(dataclasses.replace(new, carried=CarriedItems(5, days=0.5)).candidates(asked, 20)).item.shape[1] == 20
    )


def test_a_failing_retriever_is_dropped_and_named(stage, asked, shelf, caplog):
    broken = dataclasses.replace(
        stage,
        retrievers={**stage.retrievers, "history": Broken(HistoryWeights(7.0), *np.ones((2, len(shelf)), np.float32))},
    )
    with caplog.at_level(logging.CRITICAL):
        found = run_local(broken.candidates(asked, 60))
    assert found.degraded == ("retriever:history",)
    assert found.sources == ("popularity", "history"), "its column keeps its place for the ranker"
    assert np.isnan(found.source_rank[:, :, 1]).all()
    assert (found.item[:, 0] != -1).all()


def test_without_any_retriever_the_candidates_are_empty(stage, asked):
    found = run_local(dataclasses.replace(stage, retrievers={}).candidates(asked, 60))
    assert (found.item == -1).all() and found.source_rank.shape == (len(asked), 1, 0)


def test_a_failing_mask_fails_closed(stage, asked):
    with pytest.raises(AttributeError):
        run_local(dataclasses.replace(stage, eligibility=None).candidates(asked, 60))
