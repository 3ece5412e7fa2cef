"""Recorded requests go into a bundle and come out equal; a replica answers them before anybody else's."""

from dataclasses import replace

import numpy as np
import pytest

from handsell.bundles.warm_up_requests import MAX_REQUESTS, load_warm_up_requests, save_warm_up_requests
from handsell.core.batches import Ragged, to_object_array
from handsell.core.errors import BundleError
from handsell.serving.graph.loading import open_bundle
from handsell.serving.graph.stage_loading import load_local_stages
from handsell.serving.graph.stages import LocalStages
from handsell.serving.graph.warm_up import spread_items, warm_up
from handsell.testing.small_catalog import draw_requests, draw_snapshot
from serving_world import write_world


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    world = write_world(tmp_path_factory.mktemp("shop"))
    return open_bundle(str(world.config.source), "live")


def test_requests_come_back_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    asked = draw_requests(rng, draw_snapshot(rng), 5)
    save_warm_up_requests(asked, tmp_path)
    again = load_warm_up_requests(tmp_path)
    for part in (asked, asked.history, asked.profile, asked.seen):
        mine = next(x for x in (again, again.history, again.profile, again.seen) if type(x) is type(part))
        for name in part.__slots__:
            given, got = getattr(part, name), getattr(mine, name)
            if isinstance(given, Ragged):
                np.testing.assert_array_equal(given.values, got.values)
                np.testing.assert_array_equal(given.offsets, got.offsets)
            elif isinstance(given, np.ndarray):
                np.testing.assert_array_equal(given, got)
                assert given.dtype == got.dtype


def test_a_bundle_carries_a_few_of_many(tmp_path):
    rng = np.random.default_rng(0)
    save_warm_up_requests(draw_requests(rng, draw_snapshot(rng), 100), tmp_path)
    assert len(load_warm_up_requests(tmp_path)) == MAX_REQUESTS
    assert load_warm_up_requests(tmp_path / "elsewhere") is None


class Counting:
    """A stage that notes how many requests came at a time."""

    def __init__(self, stage, broken=False):
        self.stage, self.broken, self.asked = stage, broken, []

    def __getattr__(self, name):
        async def call(requests, *args):
            self.asked.append(len(requests))
            if self.broken:
                raise FloatingPointError("no")
            return await getattr(self.stage, name)(requests, *args)

        return call


@pytest.mark.parametrize("stage", ["candidates", "ranking", "reranking"])
def test_each_stage_answers_alone_and_refuses_what_it_cannot(opened, stage):
    stages = load_local_stages(opened)
    counting = Counting(getattr(stages, stage))
    warm_up(LocalStages(**{stage: counting}), opened)
    assert counting.asked == [1, 1, 1, 1, 4]  # serving.micro_batch is 4
    with pytest.raises(BundleError, match=r"cannot answer the requests that it was evaluated on.*no"):
        warm_up(LocalStages(**{stage: Counting(None, broken=True)}), opened)


def test_stand_ins_are_real_items_and_padding(opened):
    found = spread_items(load_warm_up_requests(opened.path), 7, 12, ("a", "b"))
    assert found.item.shape == (10, 12) and found.source_rank.shape == (10, 12, 2)
    assert sorted(set(found.item[0].tolist())) == [-1, *range(7)]


def test_requests_that_cannot_be_read_are_told(opened, tmp_path):
    (tmp_path / "requests.npz").write_bytes(b"nothing")
    with pytest.raises(BundleError, match="train again, or roll back"):
        warm_up(load_local_stages(opened), replace(opened, path=tmp_path))


def test_what_filters_read_of_users_is_recorded_too(rng, tmp_path):
    cells = [("de", True, None, ("a", "b")), (None, False, 3.5, ("c", "d"))]
    attributes = to_object_array(cells, 4)
    save_warm_up_requests(replace(draw_requests(rng, draw_snapshot(rng), 2), attributes=attributes), tmp_path)
    assert [tuple(row) for row in load_warm_up_requests(tmp_path).attributes.tolist()] == cells
