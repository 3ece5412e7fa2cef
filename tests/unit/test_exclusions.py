"""Shown items, item caps and blocks are excluded from slates; filters fail closed and are counted."""

import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from handsell.config import load_config
from handsell.core.batches import Ragged, UserExclusions
from handsell.core.errors import ConfigError
from handsell.eligibility.config import Surface
from handsell.eligibility.filter_reasons import count_removed, find_removals
from handsell.eligibility.mask import Eligibility
from handsell.events.known_blocks import KnownBlocks
from handsell.events.store.opening import open_reader
from handsell.testing.small_catalog import draw_requests, draw_snapshot
from serving_service import start_service
from serving_world import write_world


def ids(answer) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["items"]]


async def ask(client, service, user="u1", n=6, **more) -> list[str]:
    """A slate, after which its impression is in the log."""
    found = ids(await client.post("/v1/recommendations", json={"user_id": user, "count": n, **more}))
    await service._impressions._drain()
    return found


def with_surfaces(folder, **lines):
    world = write_world(folder)
    text = world.config.source.read_text()
    for name, line in lines.items():
        text = text.replace(f"[surfaces.{name}]", f"[surfaces.{name}]\n{line}")
    world.config.source.write_text(text)
    return replace(world, config=load_config(world.config.source))


async def test_an_email_does_not_repeat_what_home_showed(tmp_path):
    world = with_surfaces(tmp_path, email='seen_on = ["home"]\nshown_days = 2')
    async with start_service(world) as (client, service):
        free = await ask(client, service, surface="email")
        assert await ask(client, service, surface="email") == free  # what e-mail itself showed may come again
        other = await ask(client, service, user="u3", surface="email", n=30)
        home = await ask(client, service)
        email = await ask(client, service, surface="email", n=20)
        assert not set(home) & set(email) and len(email) == 20
        assert set(home) & set(await ask(client, service, n=20))  # home repeats itself
        assert await ask(client, service, user="u3", surface="email", n=30) == other  # others are not concerned
        text = (await client.get("/metrics")).text
        assert 'handsell_items_removed_total{filter="shown"} 6.0' in text  # of the one e-mail after home
        story = (await client.get(f"/v1/explain?user_id=u1&item_id={home[0]}&surface=email")).json()
        assert [r["filter"] for r in story["eligibility"]["removed_by"]] == ["shown"]
        assert "shown on home in the last 2 days" in story["eligibility"]["removed_by"][0]["detail"]


async def test_items_shown_before_the_window_are_shown_again(tmp_path):
    world = with_surfaces(tmp_path, email='seen_on = ["email"]\nshown_days = 1')
    async with start_service(world) as (client, service):
        first = await ask(client, service, surface="email")
        assert not set(first) & set(await ask(client, service, surface="email"))
        log = sqlite3.connect(service.bundle._users._reader.path)
        log.execute("UPDATE slates SET time = time - 86400000000 - 1")
        log.commit()
        assert await ask(client, service, surface="email") == first


async def test_an_item_is_shown_at_most_as_often_as_its_cap(tmp_path):
    world = with_surfaces(tmp_path, email="item_cap = { times = 2, days = 3 }")
    async with start_service(world) as (client, service):
        first = await ask(client, service, surface="email")
        assert await ask(client, service, surface="email") == first
        third = await ask(client, service, surface="email")
        assert not set(first) & set(third) and len(third) == 6
        story = (await client.get(f"/v1/explain?user_id=u1&item_id={first[0]}&surface=email")).json()
        assert [r["filter"] for r in story["eligibility"]["removed_by"]] == ["item_cap"]


async def test_what_the_request_excludes_by_creator_and_tag_is_not_shown(tmp_path):
    world = write_world(tmp_path)
    shelf = world.snapshot
    async with start_service(world) as (client, service):
        free = await ask(client, service, user="u4", n=30)
        number = shelf.items.number(free)
        creator = shelf.creators.ids(shelf.creator[number[shelf.creator[number] >= 0]])[0]
        tag = shelf.tags.ids(shelf.item_tags.row(next(i for i in number if len(shelf.item_tags.row(i)))))[0]
        exclude = {"creators": [creator, "nobody"], "tags": [tag]}
        left = shelf.items.number(await ask(client, service, user="u4", n=30, exclude=exclude))
        assert len(left) and shelf.creators.number([creator])[0] not in shelf.creator[left]
        assert not any(shelf.tags.number([tag])[0] in shelf.item_tags.row(i) for i in left)
        text = (await client.get("/metrics")).text
        assert 'filter="blocked_creator"' in text and 'filter="blocked_tag"' in text


async def test_a_users_blocks_apply_to_every_surface_until_they_are_removed(tmp_path):
    world = write_world(tmp_path)
    shelf = world.snapshot
    async with start_service(world) as (client, service):
        first = (await ask(client, service, user="u4"))[0]
        tags = shelf.tags.ids(np.arange(len(shelf.tags)))
        every = {"creators": shelf.creators.ids(np.arange(len(shelf.creators))), "tags": []}
        assert (await client.put("/v1/users/u4/blocks", json=every)).json()["creators"] == every["creators"]
        for surface in ("home", "email"):
            found = shelf.items.number(await ask(client, service, user="u4", surface=surface, n=30))
            assert (shelf.creator[found] == -1).all()
        assert await ask(client, service, user="u3")  # others are not concerned
        assert (await client.get("/v1/users/u4/blocks")).json() == {"user_id": "u4", **every}
        story = (await client.get(f"/v1/explain?user_id=u4&item_id={first}")).json()
        assert [r["filter"] for r in story["eligibility"]["removed_by"]] == ["blocked_creator"]
        assert (await client.put("/v1/users/u4/blocks", json={"tags": tags})).status_code == 200
        assert all(not len(shelf.item_tags.row(i)) for i in shelf.items.number(await ask(client, service, user="u4")))
        assert (await client.delete("/v1/users/u4/blocks")).json() == {"user_id": "u4", "creators": [], "tags": []}
        assert (await ask(client, service, user="u4"))[0] == first
        bad = await client.put("/v1/users/u4/blocks", json={"colors": []})
        assert bad.status_code == 422 and bad.json()["errors"][0]["field"] == "colors"


async def test_known_blocks_hold_if_the_log_cannot_be_read_and_nothing_is_shown_before_they_are_known(tmp_path):
    world = write_world(tmp_path)
    async with start_service(world) as (client, service):
        tags = ["t1", "t4"]
        assert (await client.put("/v1/users/u1/blocks", json={"tags": tags})).json()["tags"] == tags
        numbers = world.snapshot.tags.number(tags)

        def broken(*_):
            raise sqlite3.OperationalError("disk I/O error")

        for reader in (service.bundle._users._reader, service.bundle._users._impatient):
            reader.read_blocks = broken

        async def count_blocked(user, **more):
            asked = {"user_id": user, "count": 30, **more}
            body = (await client.post("/v1/recommendations", json=asked)).json()
            assert body["degraded"] == ["shown_and_blocked"] and body["items"]
            shown = world.snapshot.items.number([item["item_id"] for item in body["items"]])
            return sum(bool(np.isin(world.snapshot.item_tags.row(i), numbers).any()) for i in shown)

        assert await count_blocked("u2") > 0 and await count_blocked("u1") == 0
        assert await count_blocked("u2", exclude={"tags": tags}) == 0  # what the caller excludes holds, too
        service.bundle._users._blocks.close()
        service.bundle._users._blocks = KnownBlocks(open_reader(world.config))  # has read nothing yet
        body = (await client.post("/v1/recommendations", json={"user_id": "u1"})).json()
        assert body["items"] == [] and body["degraded"] == ["shown_and_blocked"]
        assert ids(await client.post("/v1/recommendations", json={}))  # a visitor without an id blocks nothing


def test_seen_on_names_existing_surfaces(tmp_path):
    with pytest.raises(ConfigError, match=r"surfaces\.email\.seen_on has moon: expected surfaces of this config"):
        with_surfaces(tmp_path, email='seen_on = ["moon"]')


def test_reasons_and_counts_match_the_mask(rng):
    """An item is removed where some filter says so, and each filter's count is that of its removals."""
    shelf = draw_snapshot(rng, 300)
    gone = rng.random(300) < 0.1
    shelf = replace(shelf, available=~gone, expires=np.where(rng.random(300) < 0.1, shelf.as_of, shelf.expires))
    asked = replace(draw_requests(rng, shelf, rows=5), exclude=Ragged.from_rows([[3, 4], [], [7], [], []]))
    exclusions = UserExclusions(
        shown=Ragged.from_rows([[1, 2], [], [], [9], []]),
        capped=Ragged.from_rows([[], [5], [], [], []]),
        creator=Ragged.from_rows([[0, 3], [], [1], [], []]),
        tag=Ragged.from_rows([[], [2, 4], [1], [], []]),
        unreadable=np.array([False, False, False, False, True]),
    )
    asked = replace(asked, exclusions=exclusions).with_filters(["item.item_id > 'i2'", None, None, None, None])
    eligibility = Eligibility(shelf, (Surface(repeat="exclude"),))
    every = np.broadcast_to(np.arange(300, dtype=np.int32), (5, 300))
    told = find_removals(eligibility, asked, every)
    mask = eligibility.mask(asked)
    assert (np.logical_or.reduce(list(told.values())) == ~mask).all() and not mask[4].any() and mask[:4].any()
    assert (eligibility.allows(asked, every) == mask).all()
    assert {name: int(rows.sum()) for name, rows in told.items()} == count_removed(eligibility, asked)
    one = asked.take(slice(1, 2))
    assert (eligibility.mask(one) == mask[1:2]).all()
