"""The guard on a real event store, real bundles and the real state file: it stops arms, promotes and rolls back."""

import json
from types import SimpleNamespace

import pytest

from handsell.bundles.store import BundleStore, Pointer
from handsell.core.paths import Layout
from handsell.events.impressions import name_batch_gateway
from handsell.events.store.opening import open_reader
from handsell.events.store.sqlite_writer import SqliteWriter
from handsell.experiments.canary import CanaryTerms, start_canary
from handsell.experiments.config import Arm, Experiment
from handsell.experiments.state import STATE, StateFile
from handsell.serving.guard_rails.canary_rule import ClickRatio
from handsell.serving.guard_rails.counts import OutcomeCounter, SlateOutcome
from handsell.serving.guard_rails.first_slates import FirstSlates
from handsell.serving.guard_rails.guard import Guard
from serving_world import publish_other_bundle, write_world

HOUR_US = 3_600_000_000
USERS = 200


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def other(world):
    return publish_other_bundle(world, seed=61)


class Played:
    """A deployment with traffic: slates and clicks of the store, counts of two gateways, a clock."""

    def __init__(self, world, log, rng):
        arms = {"control": Arm(share=0.5), "bold": Arm(share=0.5, reranking={"diversity": 0.2})}
        self.config = world.config.model_copy(update={"experiments": {"bolder": Experiment(arms=arms)}})
        self.config._source = world.config._source
        bundles = Layout(world.config.state).bundles
        self.states, self.store, self._log, self._rng = StateFile(bundles), BundleStore(bundles), log, rng
        self.now, self._sent = 1_700_000_000_000_000, 0
        self.gateways = [OutcomeCounter(), OutcomeCounter()]
        self.guard = self.build_guard()
        self.refused = {}

    def build_guard(self):
        return Guard(self.config, self.states, self.store, open_reader(self.config), lambda: self.now)

    def start_canary(self, bundle, **terms):
        start_canary(self.store, self.states, bundle, 0.5, self.config.canary, CanaryTerms(**terms))
        canary = self.states.change_canary(lambda c: c.model_copy(update={"started_us": self.now}))
        self.guard.step()
        return canary

    def play(self, seconds, broken=None, clicks=(0.3, 0.3), experiment="canary", test="candidate", step_us=1_000_000):
        """Play requests of all users, half of them in the arm; clicks are rates of control and of the arm."""
        for _ in range(seconds):
            slates, events = [], []
            for user in self._rng.choice(USERS, 20, replace=False).tolist():
                arm = test if user % 2 else "control"
                outcome = {"seconds": 0.02, "items": 10, "requested": 10} | ((broken or {}) if user % 2 else {})
                self.gateways[user % 3 % 2].record({experiment: arm}, SlateOutcome(user + 1, **outcome))
                self._sent += 1
                slates.append(self._build_slate(user, {experiment: arm}))
                if self._rng.random() < clicks[user % 2]:
                    events.append(self._build_click(user))
            self._log.append_slates(slates).result()
            self._log.append(events).result()
            self.now += step_us
            for gateway in self.gateways:
                self.guard.report(gateway.take(), self.refused)
            self.guard.step()

    def _build_slate(self, user, arms):
        items = {"item_id": ["i1"], "score": [1.0], "propensity": [1.0], "sources": [["als"]], "arms": arms}
        return {
            "recommendation_id": f"r{self._sent}", "gateway": "g", "sequence": self._sent, "time": self.now,
            "user_id": f"u{user}", "surface": "home", "bundle": "b", "items": json.dumps(items),
        }  # fmt: skip

    def _build_click(self, user):
        return {
            "event_id": f"e{self._sent}", "user_id": f"u{user}", "item_id": "i1", "type": "play", "time": self.now,
            "recommendation_id": f"r{self._sent}",
        }  # fmt: skip


@pytest.fixture
def played(world, rng):
    path = Layout(world.config.state).event_log
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob("log.*"):
        old.unlink()
    store = BundleStore(Layout(world.config.state).bundles)
    store.write_pointer(Pointer(world.bundle))
    (Layout(world.config.state).bundles / STATE).unlink(missing_ok=True)
    with SqliteWriter(path) as log:
        yield Played(world, log, rng)


def test_a_broken_arm_is_stopped_and_one_that_is_resumed_is_watched_again(played):
    broken = {"broken": {"degraded": True}, "experiment": "bolder", "test": "bold"}
    played.play(20, **broken)
    assert played.states.read().stopped_arms("bolder")["bold"].startswith("degraded: 100% of its users' answers")
    played.states.resume("bolder", "bold")
    played.play(3, **broken)
    assert not played.states.read().stopped_arms("bolder"), "evidence begins anew"
    played.play(20, **broken)
    assert played.states.read().stopped_arms("bolder")


def test_a_healthy_arm_is_not_stopped(played):
    played.play(60, experiment="bolder", test="bold")
    assert not played.states.read().experiments


def test_a_stopped_experiment_is_not_watched(played):
    played.states.stop_experiment("bolder", "by hand")
    played.play(20, {"failed": True}, experiment="bolder", test="bold")
    assert not played.states.read().stopped_arms("bolder")


def test_an_arm_whose_bundle_is_refused_is_stopped_at_once(played, other):
    arms = {"control": Arm(share=0.5), "new": Arm(share=0.5, bundle=other)}
    played.config = played.config.model_copy(update={"experiments": {"newer": Experiment(arms=arms)}})
    played.config._source = played.guard._config._source
    played.guard, played.refused = played.build_guard(), {other: "ranker.ubj is truncated"}
    played.play(1, experiment="newer", test="new")
    reason = f"bundle {other} is refused: ranker.ubj is truncated"
    assert played.states.read().stopped_arms("newer") == {"new": reason}


def test_a_canary_is_promoted_after_its_time_slates_and_clicks(played, world, other):
    played.start_canary(other, duration_s=3_600, min_slates=300, max_click_loss=0.8)
    played.play(10)
    assert "60 min to go; " in played.states.read().canary.progress
    assert "of 300 slates" in played.states.read().canary.progress
    played.play(20, step_us=30_000_000)
    assert played.states.read().running_canary and played.store.live() == world.bundle
    played.play(100, step_us=60_000_000)
    canary = played.states.read().canary
    assert canary.state == "promoted" and played.store.live() == other
    assert "no guard rail hit" in canary.reason and "ratio at least" in canary.reason


def test_a_canary_that_loses_clicks_is_rolled_back(played, world, other):
    played.start_canary(other, duration_s=0, min_slates=0)
    played.play(60, clicks=(0.6, 0.02), step_us=60_000_000)
    canary = played.states.read().canary
    assert canary.state == "rolled_back" and canary.reason.startswith("clicks: "), canary
    assert played.store.live() == world.bundle


@pytest.mark.parametrize("broken", [{"failed": True}, {"degraded": True}, {"items": 0}])
def test_a_broken_canary_is_rolled_back_within_seconds(played, world, other, broken):
    started = played.start_canary(other).started_us
    played.play(30, broken)
    canary = played.states.read().canary
    assert canary.state == "rolled_back" and played.store.live() == world.bundle
    assert canary.started_us == started


def test_a_canary_that_stays_undecided_is_rolled_back(played, world, other):
    played.start_canary(other, duration_s=3_600, min_slates=1_000_000)
    played.play(10, step_us=HOUR_US)
    canary = played.states.read().canary
    assert canary.state == "rolled_back" and canary.reason.startswith("undecided after 5.0 h: "), canary.reason


def test_a_canary_ends_when_another_bundle_becomes_live(played, other):
    third = publish_other_bundle(SimpleNamespace(config=played.config, bundle=played.store.live()), seed=62)
    played.start_canary(other)
    played.store.promote(third)
    played.play(1)
    canary = played.states.read().canary
    assert canary.reason == f"{third} became the live bundle meanwhile" and played.store.live() == third


def test_a_refused_canary_is_rolled_back_at_once(played, world, other):
    played.refused = {other: "it does not load"}
    played.start_canary(other)
    played.play(1)
    assert played.states.read().canary.reason == f"bundle {other} is refused: it does not load"
    assert played.store.live() == world.bundle


def test_a_guard_that_starts_again_counts_the_canarys_clicks_and_slates_again(played, other):
    played.start_canary(other, duration_s=36_000, min_slates=10_000)
    played.play(15)
    played.play(1, step_us=HOUR_US // 4)
    before = played.guard._watched["canary"].canary.clicks
    slates = played.guard._follower.slates["canary", "candidate"]
    assert before.candidate[1] > 20 and slates >= 100
    played.guard = played.build_guard()
    played.guard.step()
    played.now += HOUR_US // 4
    played.guard.step()
    after = played.guard._watched["canary"].canary.clicks
    assert played.guard._follower.slates["canary", "candidate"] == slates
    assert after.candidate[0] >= before.candidate[0] and after.candidate[1] >= before.candidate[1]
    assert after.lower_bound > 0 or before.lower_bound == 0


def test_slates_that_say_stopped_do_not_count(played):
    slate = played._build_slate(1, {"bolder": "control"})
    items = json.loads(slate["items"]) | {"stopped": {"bolder": "bold"}}
    played._log.append_slates([slate | {"items": json.dumps(items)}]).result()
    follower = FirstSlates(open_reader(played.config), played.config.events, 0, 0)
    follower.read({"bolder": 0.0}, 0.0)
    assert not follower.slates and not follower.take_finished(1.0)


def test_slates_of_batch_jobs_are_no_first_slates(played):
    """An e-mail waits for its reader: its clicks come long after the time of the guard."""
    batch = played._build_slate(1, {"canary": "candidate"}) | {"gateway": name_batch_gateway("3f5ac1d2b7e0", 0)}
    served = played._build_slate(1, {"canary": "candidate"}) | {
        "recommendation_id": "served",
        "gateway": "3f5ac1d2b7e0",
    }
    played._log.append_slates([batch, served]).result()
    follower = FirstSlates(open_reader(played.config), played.config.events, 0, 0)
    follower.read({"canary": 600.0}, now=0.0)
    assert follower.slates == {("canary", "candidate"): 1} and follower.slate_offset == 2
    assert follower.take_finished(601.0)["canary", "candidate"].units == 1


def test_a_canary_that_may_lose_all_clicks_is_not_compared_by_them():
    clicks = ClickRatio(0.0)
    for _ in range(50):
        clicks.add((4, 6), (1, 3))
    assert clicks.lower_bound > 1
