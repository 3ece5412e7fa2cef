"""Every encoder of a retriever by vectors keeps the `Encoder` protocol."""

import numpy as np
import pytest

from handsell.core.protocols import Encoder
from handsell.retrieval import registry
from handsell.retrieval.config import retrievers
from handsell.retrieval.embedding import EmbeddingRetriever
from handsell.retrieval.sharding.sharded_index import ShardedIndex
from handsell.testing.planted_taste import CONFIG, build_requests, plant_blocks
from handsell.testing.retriever_contract import HISTORIES, WITH_LIKES, WITHOUT_LIKES

NAMES = [name for name, plugin in retrievers().items() if issubclass(plugin.model, EmbeddingRetriever)]


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    events, content = plant_blocks(np.random.default_rng(0))
    return registry.fit(request.param, events, CONFIG, content)


@pytest.fixture
def requests():
    return build_requests(*HISTORIES)


def test_queries_have_the_width_of_the_item_vectors(model, requests):
    assert isinstance(model.encoder, Encoder)
    queries = model.encoder.encode(requests)
    assert queries.shape == (len(requests), model.vectors.shape[1])
    assert queries.dtype == np.float32 and np.isfinite(queries).all()


def test_a_history_without_likes_is_encoded_as_zeros(model, requests):
    queries = model.encoder.encode(requests)
    assert not queries[WITHOUT_LIKES].any() and queries[WITH_LIKES].any(axis=1).all()


def test_the_query_of_a_request_does_not_depend_on_its_batch(model, requests):
    queries = model.encoder.encode(requests)
    for b in range(len(requests)):
        assert np.array_equal(model.encoder.encode(requests.take(slice(b, b + 1)))[0], queries[b])


def test_no_requests_give_no_queries(model, requests):
    assert model.encoder.encode(requests.take(slice(0, 0))).shape == (0, model.vectors.shape[1])


def test_a_sharded_index_gives_the_items_and_scores_of_one(model, requests, tmp_path):
    """Loaded from files, with encoders that read the vectors of all shards."""
    events, _ = plant_blocks(np.random.default_rng(0))
    sharded = model.with_index(CONFIG.model_copy(update={"shards": 3}), events)
    sharded.save(tmp_path)
    loaded = type(model).load(tmp_path)
    assert isinstance(loaded.index, ShardedIndex) and len(loaded.index.parts) == 3
    eligible = np.random.default_rng(1).random((len(requests), events.n_items)) < 0.7
    expected = model.retrieve(requests, 15, eligible)
    for one in (sharded, loaded):
        for a, b in zip(expected, one.retrieve(requests, 15, eligible), strict=True):
            assert np.array_equal(a, b, equal_nan=True)
        assert np.array_equal(model.score(requests, expected[0]), one.score(requests, expected[0]), equal_nan=True)
