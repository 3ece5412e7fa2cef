"""A deployment that is backed up while it serves, and restored elsewhere, gives the same slates."""

import asyncio
import shutil
from contextlib import asynccontextmanager, closing
from dataclasses import replace

import httpx
import pytest

from backed_up_shop import flip_bit
from handsell.config import load_config
from handsell.core.paths import Layout
from handsell.events.store.interface import EventStoreError
from handsell.events.store.sqlite_file import connect_to_write
from handsell.events.store.sqlite_reader import SqliteReader
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.maintenance.backup import back_up
from handsell.maintenance.restore import restore
from handsell.serving.graph.event_sink import LocalSink
from handsell.serving.http.api import build_api
from serving_service import build_service
from serving_world import write_world

USERS = ("u0", "u1", "u7", "new")
TRIES = 20  # a busy machine may not read the event store within the deadline


@asynccontextmanager
async def serve(world):
    """Serve a deployment with the event log that it has."""
    with SqliteWriter(Layout(world.config.state).event_log) as log:
        service = build_service(world, LocalSink(log))
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(build_api(service)), base_url="http://shop"
        ) as client:
            yield client
        await service.close()


async def read_slates(client) -> dict[str, list[str]]:
    slates = {}
    for user in USERS:
        for _ in range(TRIES):
            answer = (await client.get(f"/v1/users/{user}/recommendations?count=8")).json()
            if not answer["degraded"]:
                break
        assert answer["degraded"] == []
        slates[user] = [item["item_id"] for item in answer["items"]]
    return slates


async def play(client, user, item, n=0) -> None:
    body = {"events": [{"event_id": f"{user}-{item}-{n}", "user_id": user, "item_id": f"i{item}", "type": "play"}]}
    answer = await client.post("/v1/events", json=body)
    assert answer.status_code == 202 and answer.json()["accepted"] == 1


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.delenv("HANDSELL_HOME", raising=False)
    (tmp_path / "shop").mkdir()
    return write_world(tmp_path / "shop")


def copy_world(world, folder):
    """The same config and feature rows at another place, without state."""
    folder.mkdir()
    for name in (world.config.source.name, "rows.json"):
        shutil.copy(world.config.source.parent / name, folder / name)
    return replace(world, config=load_config(folder / world.config.source.name))


async def test_the_restored_deployment_answers_the_same(world, tmp_path):
    async with serve(world) as client:
        for user, items in (("u1", (3, 5)), ("u7", (60, 61, 62)), ("new", (8, 9))):
            for item in items:
                await play(client, user, item)
        before = await read_slates(client)

        stop = asyncio.Event()

        async def traffic():
            n = 0
            while not stop.is_set():
                await play(client, "somebody", n % 100, n)
                n += 1
            return n

        running = asyncio.create_task(traffic())
        await asyncio.sleep(0.05)
        await asyncio.to_thread(back_up, world.config, tmp_path / "backup")
        stop.set()
        assert await running > 2, "events were written meanwhile"
        assert await read_slates(client) == before

    there = copy_world(world, tmp_path / "elsewhere")
    restore(there.config, tmp_path / "backup")
    async with serve(there) as client:
        assert await read_slates(client) == before
        await play(client, "new", 30)  # counts for the next slate, as before
        after = await read_slates(client)
    assert after["new"] != before["new"] and "i30" not in after["new"] and after["u1"] == before["u1"]


async def test_a_deployment_with_a_flipped_bit_is_refused_and_restored_from_its_backup(world, tmp_path):
    log = Layout(world.config.state).event_log
    async with serve(world) as client:
        for item in range(50):
            await play(client, f"u{item % 5}", item)
        before = await read_slates(client)
        back_up(world.config, tmp_path / "backup")
    with closing(connect_to_write(log)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # everything is in the file
    flip_bit(log, log.read_bytes().index(b"u3-33-0"))
    with pytest.raises(EventStoreError, match=r"damaged .*restore"):
        back_up(world.config, tmp_path / "second")
    restore(world.config, tmp_path / "backup", replace=True)
    async with serve(world) as client:
        assert await read_slates(client) == before
    assert len(SqliteReader(log).scan()["offset"]) == 50
