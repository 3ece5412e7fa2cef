"""A gateway follows promotions in object storage, and goes on while storage is away."""

from __future__ import annotations

import pytest

from handsell.bundles.opening import open_bundles
from handsell.core.errors import StorageError
from handsell.core.paths import Layout
from handsell.serving.graph.bundle_watcher import HELD, BundleWatcher, StageBundles, hold_stages
from handsell.serving.graph.stage_loading import load_all_stages
from handsell.serving.live.state_follower import SERVED, StateFollower
from handsell.serving.telemetry.observability import Metrics
from handsell.storage.objects import Objects
from handsell.storage.published_state import open_published_state
from serving_service import load_world_bundle, start_service
from serving_world import publish_other_bundle, write_world

ASK = "/v1/users/u1/recommendations?count=10"


@pytest.fixture
def server(own_s3, monkeypatch):
    monkeypatch.setenv("HANDSELL_STORAGE", own_s3.create_folder())
    return own_s3


@pytest.fixture
def world(server, tmp_path, monkeypatch):
    """A deployment that another machine has published; this one has an empty state folder."""
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "operator"))
    world = write_world(tmp_path)
    monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "node"))
    return world


async def test_a_gateway_follows_promotions_and_survives_an_outage(world, server, monkeypatch):
    operator = open_bundles(world.config)
    second, third = (publish_other_bundle(world, seed=seed) for seed in (4, 5))
    async with start_service(world) as (client, service):
        watcher = BundleWatcher(
            service, open_bundles(world.config, keeps_last=True),
            lambda bundle: load_world_bundle(world, service.metrics, bundle=bundle),
        )  # fmt: skip
        assert (await client.get(ASK)).json()["release"]["bundle"] == world.bundle
        operator.promote(second)
        await watcher.check()
        slate = (await client.get(ASK)).json()
        assert slate["release"]["bundle"] == second and slate["degraded"] == []
        kept = server.kill()
        await watcher.check()
        again = (await client.get(ASK)).json()
        assert service.refused is None and again["degraded"] == [] and again["items"] == slate["items"]
        replica = load_world_bundle(world, Metrics())  # of a process that starts meanwhile
        assert replica.release.bundle == second
        stages = StageBundles(str(world.config.source), second, hold_stages(load_all_stages))
        assert stages.state(second) == HELD
        server.start_again(kept)
        operator.promote(third)
        with monkeypatch.context() as patch:  # the pointer is read, and the bundle cannot be fetched
            (Layout(world.config.state).bundles / third).rename(Layout(world.config.state).bundles.parent / third)
            patch.setattr(Objects, "read", lambda *_: (_ for _ in ()).throw(StorageError("away")))
            await watcher.check()
            assert service.refused is None and service.bundle.release.bundle == second
        await watcher.check()
        assert service.bundle.release.bundle == third


def test_the_parts_that_serving_reads_follow_what_is_published(world, server, tmp_path, monkeypatch):
    node, files = Layout(world.config.state), ("data/keys/part-00000.npy", "feast/registry.db")
    follower = StateFollower()
    monkeypatch.setattr("handsell.serving.live.state_follower.FOLLOW_S", 3_600.0)

    def publish(text: str) -> None:
        monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "operator"))
        for name in (*files, "features/a.parquet"):
            path = Layout(world.config.state).state / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_text(text)
        open_published_state(world.config).push()
        monkeypatch.setenv("HANDSELL_HOME", str(tmp_path / "node"))

    publish("1")
    follower.follow(world.config)
    assert [(node.state / name).read_text() for name in files] == ["1", "1"]
    assert not node.features.exists()
    publish("2")
    (state,) = follower._states.values()
    follower._pull(state)
    assert [(node.state / name).read_text() for name in files] == ["2", "2"]
    server.kill()
    follower._pull(state)
    assert [(node.state / name).read_text() for name in files] == ["2", "2"] and len(SERVED) == 2
