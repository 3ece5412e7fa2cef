"""Recent likes: counted once, decayed as the popularity source does, and seen in the public lists."""

from __future__ import annotations

import numpy as np
import pytest

from handsell.core.units import DAY_US, HOUR_US
from handsell.events.store.opening import open_reader, open_writer
from handsell.retrieval.models.popularity import sum_decayed
from handsell.serving.stream.likes_watcher import LikesWatcher
from handsell.serving.stream.recent_likes import LikeCounter, add_likes
from serving_service import start_service
from serving_world import write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HANDSELL_HOME", raising=False)
        yield write_world(tmp_path_factory.mktemp("likes"))


def columns(rng, config, n, start):
    """Events of the store in order of offsets, not of times."""
    return {
        "offset": list(range(1, n + 1)),
        "item_id": [f"i{i}" for i in rng.integers(0, 30, n)],
        "type": [config.events.names[i] for i in rng.integers(0, len(config.events.names), n)],
        "time": (start + rng.integers(0, 3 * DAY_US, n)).tolist(),
        "value": [None] * n,
    }


def part(events, begin, end):
    return {name: cells[begin:end] for name, cells in events.items()}


def test_sums_equal_those_of_the_popularity_source(world, rng):
    from handsell.data.interactions import Interactions

    config, n = world.config, 400
    events = columns(rng, config, n, world.snapshot.as_of)
    kind = np.array([config.events.names.index(name) for name in events["type"]], np.int8)
    weight = np.array([kind_.weight for kind_ in config.events.types.values()], np.float32)[kind]
    item = np.array([int(text[1:]) for text in events["item_id"]], np.int32)
    order = np.argsort(events["time"])
    log = Interactions(
        np.zeros(n, np.int32), item[order], kind[order], np.array(events["time"])[order], weight[order], 1, 30
    )
    counter = LikeCounter(config, "b", 0)
    for begin in (0, 100, 50, 250):  # read twice in part
        counter.add(part(events, begin, begin + 150))
    likes = counter.read()
    assert likes.version == n and likes.time == log.positives.time.max()
    for column, days in enumerate((1 / 24, 1.0, config.retrieval["popularity"].half_life_days)):
        expected = sum_decayed(log.positives, days)
        got = np.zeros(30)
        got[[int(text[1:]) for text in likes.item_ids]] = likes.sums[:, column]
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_a_long_time_between_likes_keeps_the_sums_finite(world):
    counter = LikeCounter(world.config, "b", 0)
    for offset, days in enumerate((0, 20, 4_000), start=1):
        time = world.snapshot.as_of + days * DAY_US
        counter.add({"offset": [offset], "item_id": [f"i{offset}"], "type": ["like"], "time": [time], "value": [None]})
    likes = counter.read()
    assert np.isfinite(likes.sums).all()
    assert likes.sums[likes.item_ids.index("i3")].tolist() == [2, 2, 2]
    assert likes.sums[likes.item_ids.index("i1")].tolist() == [0, 0, 0]


def test_a_counter_reads_the_store_after_the_bundles_offset(world, tmp_path, monkeypatch):
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path))
    with open_writer(world.config) as log:
        now = world.snapshot.as_of
        for n in range(3):
            event = {"event_id": f"e{n}", "user_id": "u1", "item_id": f"i{n}", "type": "like", "time": now + n}
            log.append([event]).result(timeout=10)
        counter, reader = LikeCounter(world.config, "b", 1), open_reader(world.config)
        while counter.catch_up(reader, 3):
            pass
        reader.close()
    assert counter.read().item_ids == ("i1", "i2") and counter.read().version == 3


def test_popularity_fades_and_a_burst_trends(world):
    config, snapshot, since = world.config, world.snapshot, world.snapshot.as_of
    popularity, trend = np.arange(len(snapshot), 0, -1) * 10.0, np.zeros(len(snapshot))
    trend[5] = 1.0
    counter = LikeCounter(config, "b", 0)
    time = [since + 2 * DAY_US - second * 1_000_000 for second in range(40)]
    counter.add(
        {
            "offset": list(range(1, 41)),
            "item_id": ["i77"] * 40,
            "type": ["like"] * 40,
            "time": time,
            "value": [None] * 40,
        }
    )
    popular, trending = add_likes(popularity, trend, counter.read(), snapshot, config, since, since + 2 * DAY_US)
    fade = 2 ** (-2 / config.retrieval["popularity"].half_life_days)
    np.testing.assert_allclose(popular[:77], popularity[:77] * fade)
    assert popular[77] == pytest.approx(popularity[77] * fade + 80, rel=1e-3)
    assert trending.argmax() == 77 and trending[5] == pytest.approx(0.25) and trending[6] == 0
    later = add_likes(popularity, trend, counter.read(), snapshot, config, since, since + 2 * DAY_US + 24 * HOUR_US)[1]
    assert later[77] < trending[77]


async def test_the_public_lists_show_recent_likes(world):
    async with start_service(world) as (client, service):
        before = [(await client.get(f"/v1/{name}?count=5")).json()["items"] for name in ("popular", "trending")]
        unpopular = (await client.get("/v1/popular?count=30")).json()["items"][-1]["item_id"]
        now, counter = service.bundle.clock.now(), LikeCounter(world.config, world.bundle, 0)
        n = 3_000
        counter.add(
            {"offset": list(range(1, n + 1)), "item_id": [unpopular] * n, "type": ["like"] * n,
             "time": [now - second * 1_000 for second in range(n)], "value": [None] * n}
        )  # fmt: skip
        answers = [counter.read(), None]

        async def fetch(known):
            return answers.pop(0)

        watcher = LikesWatcher(service, fetch)
        await watcher.check()
        after = [(await client.get(f"/v1/{name}?count=5")).json()["items"] for name in ("popular", "trending")]
        for old, new in zip(before, after, strict=True):
            assert old[0]["item_id"] != unpopular and new[0]["item_id"] == unpopular and new[0]["score"] == 1.0
        await watcher.check()  # nothing new
        assert not answers
