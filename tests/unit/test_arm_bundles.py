"""Bundles of arms: held beside the live one in gateways and stages, refused by name, dropped when an arm is stopped."""

import asyncio
import threading

import pytest

from handsell.bundles.store import BundleStore
from handsell.core.paths import Layout
from handsell.experiments.state import STATE, Canary, StateFile, now_us
from handsell.serving.graph.bundle_watcher import HELD, BundleWatcher, StageBundles, hold_stages
from handsell.serving.graph.stage_loading import load_all_stages
from handsell.serving.guard_rails.arm_watcher import FIXED, ArmWatcher
from serving_service import load_world_bundle, start_service
from serving_world import DictStore, publish_other_bundle, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def states(world):
    bundles = Layout(world.config.state).bundles
    yield StateFile(bundles)
    (bundles / STATE).unlink(missing_ok=True)


def start_canary(states, world, bundle, share=0.5):
    about = {"live": world.bundle, "duration_s": 60, "min_slates": 10, "margin": 0.2}
    states.change_canary(lambda _: Canary(bundle=bundle, share=share, started_us=now_us(), **about))


def loader(world, service, loads):
    def load(bundle):
        loads.append(bundle)
        return load_world_bundle(world, service.metrics, bundle)

    return load


async def settle(watcher):
    await watcher.check()
    await watcher._loading


async def test_a_gateway_holds_the_canary_until_it_ends(world, states):
    other, loads = publish_other_bundle(world, seed=21), []
    async with start_service(world) as (client, service):
        watcher = ArmWatcher(service, states, loader(world, service, loads))
        await settle(watcher)
        assert not service.arm_bundles and service.find_bundle(other) is None
        start_canary(states, world, other)
        await settle(watcher)
        await settle(watcher)
        assert loads == [other] and list(service.arm_bundles) == [other]
        assert service.find_bundle(other).release.bundle == other and service.bundle.release.bundle == world.bundle
        assert f'handsell_canary{{bundle="{other}",state="running"}} 0.5' in (await client.get("/metrics")).text
        states.end_canary("rolled_back", "errors")
        await settle(watcher)
        assert not service.arm_bundles and service.find_bundle(other) is None
        assert f'handsell_canary{{bundle="{other}",state="rolled_back"}} 0.0' in (await client.get("/metrics")).text


async def test_a_promoted_canary_stays_open_while_it_becomes_the_live_bundle(world, states, monkeypatch):
    other, store = publish_other_bundle(world, seed=25), BundleStore(Layout(world.config.state).bundles)
    async with start_service(world) as (client, service):
        load = loader(world, service, [])
        arms, live = ArmWatcher(service, states, load), BundleWatcher(service, store, load)
        start_canary(states, world, other)
        await settle(arms)
        probe = service.probe

        async def probe_after_the_arm_has_ended(bundle):
            if service.arm_bundles:
                states.end_canary("promoted", "ratio")
                await arms.check()
            return await probe(bundle)

        monkeypatch.setattr(service, "probe", probe_after_the_arm_has_ended)
        pointer = store.pointer()
        try:
            store.promote(other)
            await live.check()
        finally:
            store.write_pointer(pointer)
        assert not service.arm_bundles and service.refused is None and service.bundle.release.bundle == other
        answer = (await client.get("/v1/users/u1/recommendations")).json()
        assert answer["release"]["bundle"] == other and not answer["degraded"]


async def test_a_corrupt_canary_is_refused_by_name_and_tried_again_when_it_starts_again(world, states):
    other, loads = publish_other_bundle(world, seed=22), []
    path = BundleStore(Layout(world.config.state).bundles).local_path(other) / "ranker" / "ranker.ubj"
    content = path.read_bytes()
    path.write_bytes(content[:-50])
    async with start_service(world) as (_, service):
        watcher = ArmWatcher(service, states, loader(world, service, loads))
        start_canary(states, world, other)
        await settle(watcher)
        await settle(watcher)
        assert loads == [other], "it is not loaded again and again"
        assert not service.arm_bundles and "ranker.ubj" in service.refused_arms[other]
        path.write_bytes(content)
        start_canary(states, world, other)
        await settle(watcher)
        assert list(service.arm_bundles) == [other] and not service.refused_arms


async def test_a_canary_that_cannot_answer_a_probe_is_refused(world, states, monkeypatch):
    other = publish_other_bundle(world, seed=23)
    async with start_service(world) as (_, service):

        def load(bundle):
            loaded = load_world_bundle(world, service.metrics, bundle)

            async def call(stage, operation, *args):
                raise ConnectionError(f"{stage} is gone")

            monkeypatch.setattr(loaded.stages, "call", call, raising=False)
            return loaded

        watcher = ArmWatcher(service, states, load)
        start_canary(states, world, other)
        await settle(watcher)
        assert "candidates fails with this bundle" in service.refused_arms[other]


async def test_a_service_with_a_fixed_bundle_refuses_other_bundles(world, states):
    other = publish_other_bundle(world, seed=24)
    async with start_service(world) as (_, service):
        watcher = ArmWatcher(service, states, None)
        start_canary(states, world, other)
        await settle(watcher)
        assert service.refused_arms == {other: FIXED}


async def test_stopped_arms_are_in_the_metrics_and_a_damaged_file_changes_nothing(world, states):
    async with start_service(world) as (client, service):
        watcher = ArmWatcher(service, states, None)
        states.stop_arm("bolder", "bold", "errors")
        states.stop_experiment("bolder", "by hand")
        await settle(watcher)
        found = (await client.get("/metrics")).text
        assert 'handsell_experiment_stopped{arm="bold",experiment="bolder"} 1.0' in found
        assert 'handsell_experiment_stopped{arm="*",experiment="bolder"} 1.0' in found
        (Layout(world.config.state).bundles / STATE).write_text("{")
        with pytest.raises(Exception, match="remove it"):
            await watcher.check()
        assert service.experiment_states.stopped_arms("bolder") == {"bold": "errors"}


def test_a_stage_holds_an_arm_through_promotions_of_others(world, states):
    others = [publish_other_bundle(world, seed=seed) for seed in range(31, 36)]
    store = BundleStore(Layout(world.config.state).bundles)
    stages = StageBundles(str(world.config.source), world.bundle, hold_stages(load_all_stages))
    try:
        start_canary(states, world, others[0])
        for bundle in others[1:]:
            store.promote(bundle)
            stages.check()
            assert stages.state(others[0]) == stages.state(bundle) == HELD
        assert stages.state(world.bundle) != HELD, "the oldest bundle is dropped"
        states.end_canary("rolled_back", "errors")
        for bundle in (*others[1:], world.bundle):
            store.promote(bundle)
            stages.check()
        assert others[0] not in stages._held
    finally:
        store.promote(world.bundle)


class WaitingStore(DictStore):
    """A feature store that answers when it is told to."""

    def __init__(self, world):
        super().__init__(world.config, world.rows)
        self.may_answer = threading.Event()

    def online_users(self, user_ids):
        assert self.may_answer.wait(30)
        return super().online_users(user_ids)


async def test_requests_in_a_bundle_that_is_dropped_get_its_answers(world, states):
    """Reads of the feature store wait in a queue of their own: those that have not begun must be made, too."""
    other, store = publish_other_bundle(world, seed=26), WaitingStore(world)
    async with start_service(world) as (client, service):
        watcher = ArmWatcher(service, states, lambda bundle: load_world_bundle(world, service.metrics, bundle, store))
        store.may_answer.set()
        start_canary(states, world, other, share=1.0)
        await settle(watcher)
        store.may_answer.clear()
        running = service.config.serving.micro_batch * service.config.serving.in_flight  # at most
        bodies = [{"user_id": f"u{number}", "count": 3} for number in range(running + 3)]
        asked = [asyncio.create_task(client.post("/v1/recommendations", json=body)) for body in bodies]
        async with asyncio.timeout(30):
            while len(service.find_bundle(other)._slates) < len(bodies) - running:
                await asyncio.sleep(0.01)
        states.end_canary("rolled_back", "errors")
        await settle(watcher)
        assert service.find_bundle(other) is None
        store.may_answer.set()
        answers = [(await asyncio.wait_for(one, 30)).json() for one in asked]
        assert [(one["release"]["bundle"], one["degraded"]) for one in answers] == [(other, [])] * len(bodies)
