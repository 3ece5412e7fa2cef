"""A shard loads and checks its own part of a bundle, and refuses bundles of another number of shards."""

import asyncio
import logging
from dataclasses import replace

import numpy as np
import pytest
from ray.serve._private.build_app import build_app

from handsell.bundles.opening import open_bundles
from handsell.bundles.stages import load_stages
from handsell.bundles.warm_up_requests import load_warm_up_requests
from handsell.core.errors import BundleError
from handsell.core.funnel import run_local
from handsell.retrieval.sharding.shard_search import ShardQuery
from handsell.serving.graph import remote
from handsell.serving.graph.bundle_watcher import HELD, LOADING
from handsell.serving.graph.circuit_breaker import Breaker
from handsell.serving.graph.loading import open_bundle
from handsell.serving.graph.remote import StageChannel
from handsell.serving.graph.stage_loading import load_local_stages
from handsell.serving.graph.warm_up import warm_up
from handsell.serving.http.app import AppArgs, compose
from handsell.serving.sharding import shard_client, shard_stages
from handsell.serving.sharding.shard_client import RemoteShards, read_shard_states
from handsell.serving.sharding.shard_stages import hold_shard, is_read_by_shard, load_stage_over
from handsell.serving.sockets.messages import CALL, HEADER, Header, decode, encode
from serving_world import write_world

SHARDS = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"), with_content=True, shards=SHARDS)


@pytest.fixture
def path(world):
    return open_bundles(world.config).local_path(world.bundle)


class Replica:
    """A shard's deployment in this process, in the place of its handle."""

    def __init__(self, world, shard):
        self.held = hold_shard(shard, SHARDS, str(world.config.source), "live")
        self.states, self.wait_s = HELD, 0.0

    async def call(self, method, *args):
        await asyncio.sleep(self.wait_s)
        if self.states is None:
            raise ConnectionError("the replica is gone")
        if method == "state":
            return self.states
        _traces, bundle, *rest = args
        assert bundle == self.held.bundle
        return send(await self.held.stages.call("shard", *send(tuple(rest))))


def send(value):
    """Return what arrives of a value that travels as a message."""
    sent = b"".join(bytes(part) for part in encode(CALL, 1, value))
    return decode(Header.read(sent[: HEADER.size]), bytearray(sent[HEADER.size :]))


@pytest.fixture
def replicas(world, monkeypatch):
    for module in (remote, shard_client):
        monkeypatch.setattr(module, "call", lambda handle, method, *args: handle.call(method, *args))
    monkeypatch.setattr(shard_stages, "open_channel", lambda handle, config: StageChannel(handle, None))
    return [Replica(world, shard) for shard in range(SHARDS)]


def test_the_stage_over_shards_gives_the_candidates_of_the_bundle(world, path, replicas):
    opened = open_bundle(str(world.config.source), "live")
    stage = warm_up(load_stage_over(replicas)(opened), opened).candidates
    requests = load_warm_up_requests(path)
    expected = run_local(load_stages(path, world.config).candidates.candidates(requests, 60))
    found = asyncio.run(stage.candidates(requests, 60))
    assert found.degraded == () and "content" in found.sources
    assert np.isfinite(found.source_rank[:, :, found.sources.index("content")]).any()
    for name in ("item", "fused", "source_score", "source_rank"):
        assert np.array_equal(getattr(found, name), getattr(expected, name), equal_nan=True), name


def test_changed_settings_of_surfaces_reach_the_shards(world, path, replicas):
    """An experiment's arm may have another filter."""
    opened = open_bundle(str(world.config.source), "live")
    stage = load_stage_over(replicas)(opened).candidates
    requests = replace(
        load_warm_up_requests(path), overlay='{"surfaces": {"home": {"filter": "\'red\' in item.tags"}}}'
    )
    query = {"content": build_query(stage, requests)}
    both = [asyncio.run(replicas[1].call("call", (), world.bundle, "search", r, query))["content"][0]
            for r in (requests, replace(requests, overlay=""))]  # fmt: skip
    red, all_of_them = ({int(i) for i in items.ravel() if i >= 0} for items in both)
    assert red and all(item % 2 == 1 for item in red) and any(item % 2 == 0 for item in all_of_them)


def build_query(stage, requests):
    queries = stage.retrievers["content"].encoder.encode(requests)
    return ShardQuery(queries, 40, 40, np.zeros(0, np.int32))


def test_a_late_shard_is_left_out_and_then_no_longer_waited_for(world, path, replicas, caplog):
    opened = open_bundle(str(world.config.source), "live")
    client = RemoteShards(world.bundle, [StageChannel(replica, None) for replica in replicas], deadline_s=300)
    client._breakers[2] = Breaker("shard 2", 0.05)
    stage = replace(load_stage_over(replicas)(opened).candidates, client=client)
    requests, replicas[2].wait_s = load_warm_up_requests(path), 30.0

    async def ask_until_open():
        for late in (1, 2):
            found = await stage.candidates(requests, 60)
            assert found.degraded == ("shard:2",) and (found.item != -1).any()
            assert client._breakers[2].open == (late == 2)
        assert (await stage.candidates(requests, 60)).degraded == ("shard:2",)

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(ask_until_open())


def test_a_shard_reads_and_checks_its_own_files_only(world, path):
    files = open_bundles(world.config).show(world.bundle).files
    parts = [{file for file in files if is_read_by_shard(s, file)} for s in range(SHARDS)]
    assert set.intersection(*parts) == {"config.json"}
    assert all({f"eligibility/shard-{s}/published.npy", f"retrievers/content/index/shard-{s}/vectors.npy"} <= part
               for s, part in enumerate(parts))  # fmt: skip
    other, own = (path / "retrievers/content/index" / f"shard-{s}" / "vectors.npy" for s in (0, 1))
    for file, refused in ((other, False), (own, True)):
        content = file.read_bytes()
        file.write_bytes(content[:-4] + b"\0\0\0\1")
        try:
            if refused:
                with pytest.raises(BundleError, match=r"shard-1/vectors\.npy is corrupt"):
                    hold_shard(1, SHARDS, str(world.config.source), "live")
            else:
                assert hold_shard(1, SHARDS, str(world.config.source), "live").bundle == world.bundle
        finally:
            file.write_bytes(content)


def test_a_bundle_of_another_number_of_shards_is_refused(world, replicas):
    with pytest.raises(
        BundleError, match=r"has 3 shards, this service has 2: train a bundle with retrieval\.shards = 2"
    ):
        hold_shard(1, 2, str(world.config.source), "live")
    with pytest.raises(BundleError, match="has 3 shards, this service has 2"):
        load_stage_over(replicas[:2])(open_bundle(str(world.config.source), "live"))


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ((HELD, HELD, HELD), HELD),
        ((HELD, LOADING, HELD), LOADING),
        ((LOADING, "a file is corrupt", HELD), "a file is corrupt"),
        ((HELD, None, HELD), HELD),
    ],
)
def test_a_bundle_is_held_when_every_shard_that_answers_holds_it(world, replicas, states, expected):
    for replica, state in zip(replicas, states, strict=True):
        replica.states = state
    assert asyncio.run(read_shard_states(world.bundle, replicas)) == expected


@pytest.mark.parametrize(("topology", "expected"), [("graph", {"Shard0", "Shard1", "Shard2"}), ("fused", set())])
def test_the_graph_has_a_deployment_for_each_shard(world, topology, expected):
    built = build_app(compose(AppArgs(config=str(world.config.source), topology=topology)), name="shop")
    shards = {one.name: one.init_args[2:] for one in built.deployments if one.name.startswith("Shard")}
    assert set(shards) == expected
    assert all(args == (int(name[-1]), SHARDS) for name, args in shards.items())


async def test_the_fused_topology_searches_the_shards_in_its_own_process(world, path):
    stages = load_local_stages(open_bundle(str(world.config.source), "live"))
    requests = load_warm_up_requests(path)
    found = await stages.call("candidates", "candidates", requests, 60)
    assert found.degraded == () and (found.item != -1).any()
