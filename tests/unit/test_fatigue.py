"""Items that were shown and ignored move down; an action ends that, and a slate is never shorter for it."""

from dataclasses import replace

import numpy as np
import pytest

from handsell.config import Config, load_config
from handsell.core.batches import NONE, Ragged, Seen, UserExclusions
from handsell.core.funnel import run_local
from handsell.eligibility.config import Surface
from handsell.eligibility.mask import Eligibility
from handsell.events.exclusions import count_ignored
from handsell.reranking.config import ExplorationConfig, FatigueConfig, RerankingConfig
from handsell.reranking.explain import WITHOUT
from handsell.reranking.fatigue import compute_cost, count_ignored_impressions
from handsell.reranking.stage import LocalReranking
from handsell.serving.live.live_stages import is_known, leave_out_unknown
from handsell.testing.small_catalog import draw_candidates, draw_requests, draw_snapshot
from serving_service import start_service
from serving_world import write_world


def with_ignored(requests, items, times):
    none = UserExclusions.empty(len(requests))
    ignored = replace(none, ignored=Ragged.from_rows(items), ignored_times=Ragged.from_rows(times))
    return replace(requests, exclusions=ignored)


def build_stage(shelf, weight, **more):
    dials = RerankingConfig(fatigue=FatigueConfig(weight=weight), **more)
    return LocalReranking(shelf, Eligibility(shelf, (Surface(repeat="allow"),)), Config(name="test", reranking=dials))


def test_impressions_after_the_last_action_count():
    impressions = Seen(
        Ragged.from_rows([[4, 9, 4, 7], [], [1, 1]]), Ragged.from_rows([[10, 10, 20, 30], [], [5, 6]], np.int64)
    )
    acted = Seen(Ragged.from_rows([[2, 4, 7], [3], []]), Ragged.from_rows([[1, 15, 30], [3], []], np.int64))
    found = count_ignored(UserExclusions.empty(3), impressions, acted)
    assert [found.ignored.row(b).tolist() for b in range(3)] == [[4, 9], [], [1]]
    assert [found.ignored_times.row(b).tolist() for b in range(3)] == [[1, 1], [], [2]]


def test_the_cost_rises_with_the_impressions():
    assert compute_cost(np.array([0, 1, 3, 7]), 0.2).tolist() == pytest.approx([0, 0.2, 0.4, 0.6])


def test_ignored_items_move_down_and_no_slate_is_shorter(rng):
    shelf = draw_snapshot(rng)
    asked, found = draw_requests(rng, shelf, 4), draw_candidates(rng, shelf, 4, 12)
    usual = run_local(build_stage(shelf, 0.0).rerank(asked, found, 12))
    tops = [np.sort(usual.item[b, :2]) for b in range(4)]
    tired = with_ignored(asked, tops, [[3, 3]] * 4)
    stage = build_stage(shelf, 1.0)
    slates = run_local(stage.rerank(tired, found, 12))
    assert (np.sort(slates.item) == np.sort(usual.item)).all() and (slates.item != NONE).all()
    for b in range(4):
        assert set(slates.item[b, -2:].tolist()) == set(tops[b].tolist())
    np.testing.assert_array_equal(run_local(build_stage(shelf, 0.0).rerank(tired, found, 12)).item, usual.item)
    np.testing.assert_array_equal(run_local(WITHOUT["fatigue"](stage).rerank(tired, found, 12)).item, usual.item)
    every = with_ignored(asked, [np.sort(found.item[b]) for b in range(4)], [[50] * 12] * 4)  # all of them
    assert (run_local(stage.rerank(every, found, 12)).item != NONE).all()


def test_ignored_items_are_drawn_less_often(rng):
    shelf = draw_snapshot(rng)
    asked, found = draw_requests(rng, shelf, 1), draw_candidates(rng, shelf, 1, 12)
    many = asked.take(np.zeros(4_000, int))
    many = replace(many, seed=np.arange(4_000, dtype=np.uint64))
    same = found.take(np.zeros(4_000, int))
    stage = build_stage(shelf, 0.01, exploration=ExplorationConfig(share=1.0, positions=(1,)))
    best = int(found.item[0, 0])
    often = []
    for times in (0, 4):
        tired = with_ignored(many, [[best]] * 4_000, [[times]] * 4_000)
        often.append((run_local(stage.rerank(tired, same, 3)).item[:, 0] == best).mean())
    assert often[1] < 0.5 * often[0]


def test_counts_follow_their_items_where_a_process_knows_fewer(rng):
    shelf = draw_snapshot(rng, 50)
    asked = with_ignored(draw_requests(rng, shelf, 2), [[3, 70], [60]], [[2, 5], [4]])
    assert not is_known(asked, shelf)
    known = leave_out_unknown(asked, shelf)
    assert is_known(known, shelf)
    times = count_ignored_impressions(known, np.array([[3, 4], [3, 4]]))
    assert times.tolist() == [[2, 0], [0, 0]] and count_ignored_impressions(draw_requests(rng, shelf), None) is None


async def test_what_is_shown_and_ignored_moves_down_in_the_service_until_it_is_played(tmp_path):
    world = write_world(tmp_path)
    path = world.config.source
    path.write_text(path.read_text() + "\n[reranking.fatigue]\nweight = 5.0\n[surfaces.again]\nrepeat = 'allow'\n")
    config = load_config(path)
    async with start_service(world, config=config) as (client, service):

        async def ask(time=None):
            body = {"user_id": "fresh", "surface": "again", "count": 5}
            answer = (await client.post("/v1/recommendations", json=body)).json()
            await service._impressions._drain()
            assert answer["degraded"] == []
            return [item["item_id"] for item in answer["items"]]

        first, second = await ask(), await ask()
        assert len(first) == len(second) == 5 and not set(first) & set(second)
        event = {"type": "like", "user_id": "fresh", "item_id": first[0]}
        assert (await client.post("/v1/events", json={"events": [event]})).json()["accepted"] == 1
        third = await ask()
        assert not set(third) & (set(first[1:]) | set(second))
        fourth = {*third, *(await ask()), *(await ask())}
        assert len(fourth) == 15
