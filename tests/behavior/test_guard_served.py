"""Guard rails on real requests: a broken arm's users get control again, control's answers are never worse, and the
canary is promoted or rolled back."""

import asyncio
import time

import pytest

from experiment_world import change_experiments, two_arms, write_experiments
from handsell.bundles.store import BundleStore, Pointer
from handsell.core.batches import NONE
from handsell.core.paths import Layout
from handsell.events.store.opening import open_reader
from handsell.experiments.canary import CanaryTerms, start_canary
from handsell.experiments.state import STATE, StateFile
from handsell.serving.graph.bundle_watcher import BundleWatcher
from handsell.serving.graph.loading import open_bundle
from handsell.serving.graph.stage_loading import load_local_stages
from handsell.serving.guard_rails.arm_watcher import ArmWatcher
from handsell.serving.guard_rails.guard import Guard
from handsell.serving.guard_rails.reporter import OutcomeReporter
from handsell.serving.slates import arm_traffic
from serving_service import load_world_bundle, start_service
from serving_world import publish_empty_bundle, publish_other_bundle

USERS = [f"u{i}" for i in range(18)]
ROUNDS = 40
QUICK = "[canary.guard_rails]\nclick_window_s = 0.2\n"


class Clock:
    """Time by which gateways measure their answers: 10 ms between two looks at it, and more where a stage is slow."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += 0.01
        return self.now

    def time_ns(self):
        return time.time_ns()


class ForKnownUsers:
    """Stages of a bundle that answer the probe, and `break_down` where a known user asks for a slate."""

    def __init__(self, bundle, world, operation, break_down):
        self._inner = load_local_stages(open_bundle(str(world.config.source), bundle))
        self._operation, self._break_down = operation, break_down

    async def call(self, stage, operation, *args):
        if operation == self._operation and (args[0].user != NONE).any():
            self._break_down()
        return await self._inner.call(stage, operation, *args)

    async def states(self):
        return {}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    world = write_experiments(tmp_path_factory.mktemp("shop"), "")
    path = world.config.source
    path.write_text(path.read_text().replace("deadline_ms = 4000", "deadline_ms = 30000"))
    return change_experiments(world, "")


@pytest.fixture
def bundles(base):
    store = BundleStore(Layout(base.config.state).bundles)
    yield store
    store.write_pointer(Pointer(base.bundle))
    (Layout(base.config.state).bundles / STATE).unlink(missing_ok=True)


class Played:
    """A gateway, its watchers and the guard, played in rounds: all users ask once, then everybody looks."""

    def __init__(self, world, client, service, stages=None):
        folder = Layout(world.config.state).bundles
        self.client, self.service, self.states = client, service, StateFile(folder)
        self.guard = Guard(world.config, self.states, BundleStore(folder), open_reader(world.config))
        self.answers = []

        def load(bundle):
            return load_world_bundle(world, service.metrics, bundle, stages=stages and stages(bundle))

        async def send(counts, refused):
            self.guard.report(counts, refused)

        self._reporter = OutcomeReporter(service, send)
        self._arms = ArmWatcher(service, self.states, load)
        self._live = BundleWatcher(service, BundleStore(folder), load)

    async def look(self):
        await self._reporter.report()
        await asyncio.to_thread(self.guard.step)
        await self._arms.check()
        await self._arms._loading
        await self._live.check()

    async def play(self, rounds, until=lambda states: False, fresh=False):
        """Play rounds until a condition on the states holds; `fresh`: every round has users of its own."""
        await self.look()
        await self.look()
        for number in range(rounds):
            users = [f"{user} {number}" for user in USERS] if fresh else USERS
            self.answers += [await self.ask(user) for user in users]
            await self.look()
            if until(self.states.read()):
                return

    async def ask(self, user):
        answer = await self.client.post("/v1/recommendations", json={"user_id": user, "count": 8, "surface": "email"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def of_arm(self, experiment, arm):
        return [answer for answer in self.answers if answer["arms"].get(experiment) == arm]


def with_arm(world, bundle):
    return change_experiments(world, two_arms("newer", f'bundle = "{bundle}"'))


@pytest.mark.parametrize(
    ("operation", "is_slow", "reason"),
    [("rank", False, "degraded: "), ("candidates", False, "degraded: "), ("rank", True, "latency: ")],
)
async def test_a_broken_or_slow_arm_is_stopped_and_its_users_get_control(
    base, bundles, monkeypatch, operation, is_slow, reason
):
    other, clock = publish_other_bundle(base, seed=71), Clock()
    monkeypatch.setattr(arm_traffic, "time", clock)
    world = with_arm(base, other)

    def break_down():
        if not is_slow:
            raise ConnectionError(f"{operation} is broken")
        clock.now += 0.3

    def stages(bundle):
        return ForKnownUsers(bundle, world, operation, break_down) if bundle == other else None

    async with start_service(world) as (client, service):
        played = Played(world, client, service, stages)
        await played.play(ROUNDS, lambda states: states.stopped_arms("newer"))
        stopped = played.states.read().stopped_arms("newer")
        assert stopped["bold"].startswith(reason), stopped
        assert {a["release"]["bundle"] for a in played.of_arm("newer", "bold")} == {other}
        assert not any(a["degraded"] for a in played.of_arm("newer", "control")), "control is not affected"
        assert 'handsell_experiment_stopped{arm="bold",experiment="newer"} 1.0' in (await client.get("/metrics")).text
        played.answers = []
        await played.play(2)
        assert {a["release"]["bundle"] for a in played.answers} == {world.bundle}
        assert not any(a["degraded"] for a in played.answers)
        assert {a["arms"]["newer"] for a in played.answers} == {"control"}


async def test_an_arm_with_empty_slates_is_stopped(base, bundles):
    world = with_arm(base, publish_empty_bundle(base))
    async with start_service(world) as (client, service):
        played = Played(world, client, service)
        await played.play(ROUNDS, lambda states: states.stopped_arms("newer"), fresh=True)
        assert played.states.read().stopped_arms("newer")["bold"].startswith("short: ")
        assert all(len(answer["items"]) == 8 for answer in played.of_arm("newer", "control"))
        assert not any(answer["items"] for answer in played.of_arm("newer", "bold"))


async def test_an_arm_whose_bundle_is_damaged_never_answers(base, bundles):
    other = publish_other_bundle(base, seed=72)
    path = bundles.local_path(other) / "ranker" / "ranker.ubj"
    path.write_bytes(path.read_bytes()[:-100])
    world = with_arm(base, other)
    async with start_service(world) as (client, service):
        played = Played(world, client, service)
        await played.play(3)
        assert {answer["release"]["bundle"] for answer in played.answers} == {world.bundle}
        reason = played.states.read().stopped_arms("newer")["bold"]
        assert reason.startswith(f"bundle {other} is refused: ") and "ranker.ubj" in reason


async def test_a_healthy_arm_is_not_stopped(base, bundles):
    world = with_arm(base, publish_other_bundle(base, seed=73))
    async with start_service(world) as (client, service):
        played = Played(world, client, service)
        await played.play(12)
        assert not played.states.read().experiments
        assert played.of_arm("newer", "bold") and played.of_arm("newer", "control")


async def test_a_canary_is_promoted_while_serving(base, bundles):
    other = publish_other_bundle(base, seed=74)
    world = change_experiments(base, QUICK)
    async with start_service(world) as (client, service):
        played = Played(world, client, service)
        terms = CanaryTerms(duration_s=1, min_slates=20, max_click_loss=1.0)
        start_canary(bundles, played.states, other, 0.5, world.config.canary, terms)
        await played.play(ROUNDS, lambda states: states.running_canary is None)
        canary = played.states.read().canary
        assert canary.state == "promoted" and "no guard rail hit in " in canary.reason
        assert bundles.live() == service.bundle.release.bundle == other
        for arm, bundle in (("candidate", other), ("control", world.bundle)):
            assert {a["release"]["bundle"] for a in played.of_arm("canary", arm)} == {bundle}
        assert not any(answer["degraded"] for answer in played.answers)
        played.answers = []
        await played.play(1)
        assert {answer["release"]["bundle"] for answer in played.answers} == {other}
        assert not any("canary" in answer.get("arms", {}) for answer in played.answers)


async def test_a_broken_canary_is_rolled_back_while_serving(base, bundles):
    other = publish_empty_bundle(base)
    world = change_experiments(base, QUICK)
    async with start_service(world) as (client, service):
        played = Played(world, client, service)
        start_canary(bundles, played.states, other, 0.5, world.config.canary, CanaryTerms())
        await played.play(ROUNDS, lambda states: states.running_canary is None, fresh=True)
        assert played.states.read().canary.reason.startswith("short: ")
        assert bundles.live() == service.bundle.release.bundle == world.bundle
        played.answers = []
        await played.play(1)
        assert all(len(a["items"]) == 8 and a["release"]["bundle"] == world.bundle for a in played.answers)
