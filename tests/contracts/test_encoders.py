"""Every encoder of a retriever by vectors keeps the `Encoder` protocol."""

import numpy as np
import pytest

from handsell.core.protocols import Encoder
from handsell.retrieval import registry
from handsell.retrieval.config import retrievers
from handsell.retrieval.embedding import EmbeddingRetriever
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
