"""The service switches to a promoted bundle if it answers; otherwise it refuses it and keeps the old one."""

import shutil

import pytest

from handsell.bundles.store import BundleStore, Pointer
from handsell.core.errors import FeatureError
from handsell.core.paths import Layout
from handsell.features.served_log import FEATURE_LOG, read_feature_log
from handsell.serving.graph import bundle_watcher
from handsell.serving.graph.bundle_watcher import HELD, KEPT, LOADING, BundleWatcher, StageBundles, hold_stages
from handsell.serving.graph.loading import open_bundle
from handsell.serving.graph.stage_loading import load_all_stages, load_local_stages
from handsell.serving.graph.stages import BundleNotHeld
from serving_service import load_world_bundle, start_service
from serving_world import publish_other_bundle, write_world

ASK = "/v1/users/u1/recommendations?count=10"


@pytest.fixture
def world(tmp_path):
    return write_world(tmp_path)


@pytest.fixture
def store(world):
    return BundleStore(Layout(world.config.state).bundles)


def follower(world, service, store, stages=None):
    return BundleWatcher(
        service, store, lambda bundle: load_world_bundle(world, service.metrics, bundle=bundle, stages=stages)
    )


def promote_damaged(world, store, bundle):
    """Make a bundle with a truncated ranker live, without the check of promotion."""
    path = store.local_path(bundle) / "ranker" / "ranker.ubj"
    path.write_bytes(path.read_bytes()[:-100])
    store.write_pointer(Pointer(bundle, (world.bundle,)))


async def test_promotion_and_rollback_change_what_answers(world, store):
    other = publish_other_bundle(world, seed=4)
    async with start_service(world) as (client, service):
        follow = follower(world, service, store)
        slates = {}
        for bundle, change in ((world.bundle, None), (other, store.promote), (world.bundle, store.rollback)):
            if change:
                change(other) if change == store.promote else change()
            await follow.check()
            answer = (await client.get(ASK)).json()
            assert answer["release"]["bundle"] == bundle and answer["degraded"] == []
            shown = [(i["item_id"], i["score"]) for i in answer["items"]]
            assert slates.setdefault(bundle, shown) == shown
            ready = (await client.get("/readyz")).json()
            assert ready["release"]["bundle"] == bundle and ready["refused"] is None
            assert f'bundle="{bundle}"' in (await client.get("/metrics")).text
            vectors = read_feature_log(Layout(world.config.state).logs / FEATURE_LOG)
            assert answer["recommendation_id"] in vectors.recommendation_id  # its log was opened by another thread
        assert slates[world.bundle] != slates[other]


async def test_a_corrupt_bundle_is_refused_and_the_old_one_stays_live(world, store):
    other = publish_other_bundle(world, seed=4)
    async with start_service(world) as (client, service):
        promote_damaged(world, store, other)
        follow = follower(world, service, store)
        for _ in range(2):
            await follow.check()
        answer = (await client.get(ASK)).json()
        assert answer["release"]["bundle"] == world.bundle and answer["degraded"] == []
        ready = await client.get("/readyz")
        assert ready.status_code == 200 and ready.json()["refused"]["bundle"] == other
        assert "ranker.ubj" in ready.json()["refused"]["reason"]
        assert f'handsell_bundle_refused{{bundle="{other}"}} 1.0' in (await client.get("/metrics")).text
        store.rollback()
        await follow.check()
        assert (await client.get("/readyz")).json()["refused"] is None


async def test_a_refused_bundle_is_tried_again_when_what_was_in_the_way_may_have_passed(world, store, monkeypatch):
    other = publish_other_bundle(world, seed=4)
    damaged = store.local_path(other) / "ranker" / "ranker.ubj"
    whole = damaged.read_bytes()
    async with start_service(world) as (_, service):
        promote_damaged(world, store, other)
        follow = follower(world, service, store)
        await follow.check()
        damaged.write_bytes(whole)
        await follow.check()
        assert service.refused.bundle == other  # not yet
        later = bundle_watcher.monotonic() + bundle_watcher.RETRY_S
        monkeypatch.setattr(bundle_watcher, "monotonic", lambda: later)
        await follow.check()
        assert service.refused is None and service.bundle.release.bundle == other


async def test_a_bundle_with_worse_answers_is_refused(world, store):
    """Its files are valid, but the ranker needs a column that does not exist."""
    names = store.show(world.bundle).features
    other = publish_other_bundle(world, seed=4, features=(*names[:-1], "moon_phase"))
    async with start_service(world) as (client, service):
        store.write_pointer(Pointer(other, (world.bundle,)))
        await follower(world, service, store).check()
        assert service.refused is not None and service.refused.bundle == other
        assert "moon_phase" in service.refused.reason or "ranking" in service.refused.reason
        assert (await client.get(ASK)).json()["release"]["bundle"] == world.bundle


async def test_a_bundle_without_its_features_in_the_store_is_refused(world, store):
    def load_refused(bundle):
        raise FeatureError(f"bundle {bundle} wants user_mood: restore it")

    other = publish_other_bundle(world, seed=4)
    async with start_service(world) as (client, service):
        store.promote(other)
        await BundleWatcher(service, store, load_refused).check()
        assert "user_mood" in (await client.get("/readyz")).json()["refused"]["reason"]
        assert (await client.get(ASK)).status_code == 200


class Behind:
    """Stages of which ranking has not loaded the bundle."""

    def __init__(self, world, bundle):
        self.inner = load_local_stages(open_bundle(str(world.config.source), bundle))

    async def call(self, stage, operation, *args):
        if stage == "ranking":
            raise BundleNotHeld("not yet")
        return await self.inner.call(stage, operation, *args)

    async def states(self):
        return {}


async def test_a_request_falls_back_to_the_previous_bundle_if_a_stage_has_not_loaded_the_new_one(world, store):
    other = publish_other_bundle(world, seed=4)
    async with start_service(world) as (client, service):
        first = (await client.get(ASK)).json()
        service.switch_to(load_world_bundle(world, service.metrics, bundle=other, stages=Behind(world, other)))
        answer = (await client.get(ASK)).json()
        assert answer["release"]["bundle"] == world.bundle and answer["degraded"] == []
        assert [i["item_id"] for i in answer["items"]] == [i["item_id"] for i in first["items"]]
        assert "handsell_previous_bundle_answers_total 1.0" in (await client.get("/metrics")).text
        ranked = await client.post("/v1/rank", json={"user_id": "u1", "item_ids": ["i1", "i2"]})
        assert ranked.json()["degraded"] == [] and ranked.json()["release"]["bundle"] == world.bundle


async def test_without_a_previous_bundle_such_a_stage_is_skipped_and_named(world):
    async with start_service(world, stages=Behind(world, world.bundle)) as (client, _):
        answer = (await client.get(ASK)).json()
        assert answer["degraded"] == ["ranking"] and len(answer["items"]) == 10


def holding(world, bundle="live"):
    return StageBundles(str(world.config.source), bundle, hold_stages(load_all_stages))


def test_a_replica_loads_the_live_bundle_and_requested_ones(world, store, monkeypatch):
    monkeypatch.setattr("handsell.serving.graph.bundle_watcher.threading.Thread.start", lambda self: None)
    held = holding(world)
    other = publish_other_bundle(world, seed=4)
    assert held.state(world.bundle) == HELD and held.state(other) == LOADING
    with pytest.raises(BundleNotHeld, match=other):
        held.get(other)
    held.check()
    assert held.state(other) == HELD and held.get(other) is not held.get(world.bundle)
    more, loads = [publish_other_bundle(world, seed=s) for s in range(5, 5 + KEPT)], []
    monkeypatch.setattr(
        held, "_load_bundle", lambda bundle, take=held._load_bundle: (loads.append(bundle), take(bundle))
    )
    for bundle in more:
        held.state(bundle)
        held.check()
    assert loads == more  # the live one was never dropped, to be loaded again
    assert held.state(world.bundle) == HELD  # live
    assert held.state(more[-1]) == HELD and held.state(other) == LOADING


def test_a_replica_reports_why_a_bundle_cannot_be_loaded(world, store, monkeypatch):
    monkeypatch.setattr("handsell.serving.graph.bundle_watcher.threading.Thread.start", lambda self: None)
    held, other = holding(world), publish_other_bundle(world, seed=4)
    promote_damaged(world, store, other)
    held.check()
    assert "ranker.ubj" in held.state(other) and held.state(world.bundle) == HELD
    loads = []
    monkeypatch.setattr(
        held, "_load_bundle", lambda bundle, take=held._load_bundle: (loads.append(bundle), take(bundle))
    )
    held.check()
    assert loads == []  # not at every check
    later = bundle_watcher.monotonic() + bundle_watcher.RETRY_S
    monkeypatch.setattr(bundle_watcher, "monotonic", lambda: later)
    held.check()
    assert loads == [other] and "ranker.ubj" in held.state(other)
    store.rollback()
    held.check()
    assert held.state(other) == LOADING  # it may be mended by the time that it is promoted again
    shutil.rmtree(store.local_path(other))
    with pytest.raises(BundleNotHeld):
        held.get(other)
