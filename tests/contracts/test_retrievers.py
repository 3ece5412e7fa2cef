"""Every registered retriever keeps the contract of handsell.testing.retriever_contract."""

import numpy as np
import pytest

from handsell.retrieval import registry
from handsell.retrieval.config import retrievers
from handsell.testing.planted_taste import CONFIG, allow_all, build_requests, plant_blocks
from handsell.testing.retriever_contract import HISTORIES, ITEMS, WITH_LIKES, WITHOUT_LIKES, RetrieverContract


class TestRetrievers(RetrieverContract):
    names = tuple(retrievers())


@pytest.fixture(scope="module")
def planted():
    return plant_blocks(np.random.default_rng(0), items=ITEMS)


@pytest.mark.parametrize("name", ["popularity", "als", "two_tower", "sasrec", "content"])
def test_sources_that_score_every_item_return_as_many_as_requested_under_any_mask(name, planted):
    events, content = planted
    model = registry.fit(name, events, CONFIG, content)
    requests = build_requests(*HISTORIES)
    eligible = np.zeros((len(requests), ITEMS), bool)
    eligible[:, 20:45] = True
    items, _ = model.retrieve(requests, 25, eligible)
    assert (items[WITH_LIKES] != -1).all()


def test_popularity_fills_the_list_of_a_user_without_likes(planted):
    events, content = planted
    requests = build_requests(*HISTORIES)
    items, _ = registry.fit("popularity", events, CONFIG, content).retrieve(requests, 10, allow_all(requests, ITEMS))
    assert (items[WITHOUT_LIKES] != -1).all()
