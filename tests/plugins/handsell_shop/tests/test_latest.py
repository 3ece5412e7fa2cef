"""The retriever `latest` keeps the contract of retrievers, and returns the latest likes."""

import numpy as np

from handsell.retrieval import registry
from handsell.testing.planted_taste import CONFIG, allow_all, build_requests, plant_blocks
from handsell.testing.retriever_contract import RetrieverContract


class TestLatest(RetrieverContract):
    names = ("latest",)


def test_the_item_of_the_latest_like_is_first():
    events, content = plant_blocks(np.random.default_rng(0))
    model = registry.fit("latest", events, CONFIG, content)
    requests = build_requests([(0, 1.0)])
    items, _ = model.retrieve(requests, 5, allow_all(requests, events.n_items))
    assert items[0, 0] == events.item[np.argmax(np.where(events.weight > 0, events.time, 0))]
