"""The guard: compares every arm with control once a second, stops broken arms, and decides about the canary."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from handsell.bundles.store import BundleStore
from handsell.config import Config
from handsell.core.errors import HandsellError, StorageError
from handsell.events.store.interface import EventReader
from handsell.experiments.state import CANARY, CANDIDATE, CONTROL, Canary, ExperimentStates, StateFile
from handsell.serving.guard_rails.canary_rule import CanaryRule
from handsell.serving.guard_rails.config import GuardRails
from handsell.serving.guard_rails.counts import Counts, merge_counts
from handsell.serving.guard_rails.first_slates import CLICK, Finished, FirstSlates, Key
from handsell.serving.guard_rails.rails import ArmRails

log = logging.getLogger(__name__)

EVERY_S = 1.0
RETRY_S = 2.0
SLATES_LATE_US = 2_000_000  # slates are stored in order of time only up to about a second
PROGRESS_US = 5_000_000  # what the canary waits for is written at most this often


@dataclass(frozen=True, slots=True)
class GuardedExperiment:
    """A running experiment: its control, its other arms that are not stopped with their bundles, its guard rails."""

    control: str
    arms: Mapping[str, str | None]
    rails: GuardRails
    version: int = 0  # of a canary: when it was started


@dataclass
class Watched:
    """What the guard knows of one experiment."""

    version: int
    arms: dict[str, ArmRails] = field(default_factory=dict)
    canary: CanaryRule | None = None


class Guard:
    """One per deployment. Gateways report counts from other threads; `step` is called by one thread."""

    def __init__(
        self,
        config: Config,
        states: StateFile,
        bundles: BundleStore,
        reader: EventReader,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ):
        self._config, self._states, self._bundles, self._reader, self._now_us = config, states, bundles, reader, now_us
        self._lock = threading.Lock()
        self._reported: Counts = {}
        self._refused: dict[str, str] = {}  # by bundle
        self._watched: dict[str, Watched] = {}
        self._follower: FirstSlates | None = None
        self._progress_at = 0

    def report(self, counts: Counts, refused: Mapping[str, str]) -> None:
        """Take a gateway's counts since its last report, and the bundles of arms that it cannot serve."""
        with self._lock:
            merge_counts(self._reported, [counts])
            self._refused |= refused

    def run(self, stop: threading.Event) -> None:
        """Step every second until `stop`; an error is logged and the next step tried."""
        while not stop.is_set():
            try:
                self.step()
                pause_s = EVERY_S
            except Exception:
                log.exception("the guard could not compare arms and tries it again")
                pause_s = RETRY_S
            stop.wait(pause_s)

    def step(self) -> None:
        """Compare what has been reported and stored since the last step, and act on it."""
        states = self._states.read()
        running = dict(self._list_running(states))
        with self._lock:
            counts, self._reported = self._reported, {}
            refused, self._refused = self._refused, {}
        self._watch(running, states)
        finished = self._read_first_slates(running)
        for name, experiment in running.items():
            watched = self._watched[name]
            for arm, rails in watched.arms.items():
                rails.add(counts.get((name, arm)), counts.get((name, experiment.control)))
                pair = rails.add_finished(finished.get((name, arm)), finished.get((name, experiment.control)))
                if pair is not None and watched.canary is not None:
                    watched.canary.clicks.add(*((one.acted[CLICK], one.units) for one in pair))
        for name, experiment in running.items():
            for arm, reason in self._find_broken(name, experiment, refused):
                self._stop(name, arm, reason)
        if (canary := states.running_canary) is not None:
            self._decide(canary)

    def _list_running(self, states: ExperimentStates) -> Iterator[tuple[str, GuardedExperiment]]:
        now = self._now_us()
        for name, experiment in self._config.experiments.items():
            stopped = states.stopped_arms(name)
            arms = {
                arm: about.bundle
                for arm, about in experiment.arms.items()
                if arm != experiment.control and arm not in stopped
            }
            if arms and experiment.runs_at(now) and not states.is_stopped(name):
                yield name, GuardedExperiment(experiment.control, arms, experiment.guard_rails)
        if (canary := states.running_canary) is not None:
            rails = self._config.canary.guard_rails
            yield CANARY, GuardedExperiment(CONTROL, {CANDIDATE: canary.bundle}, rails, canary.started_us)

    def _watch(self, running: Mapping[str, GuardedExperiment], states: ExperimentStates) -> None:
        """Begin and end the comparisons of experiments and arms; those that are resumed begin again."""
        for name in [name for name in self._watched if name not in running]:
            self._forget(name)
        for name, experiment in running.items():
            if name in self._watched and self._watched[name].version != experiment.version:
                self._forget(name)
            if name not in self._watched:
                self._watched[name] = Watched(experiment.version)
                if name == CANARY and states.canary is not None:
                    self._watched[name].canary = CanaryRule(states.canary, self._config.canary)
            watched = self._watched[name]
            watched.arms = {arm: watched.arms.get(arm) or ArmRails(experiment.rails) for arm in experiment.arms}
        if not running:
            self._follower = None
        elif self._follower is None:
            self._follower = self._begin_to_follow(states.running_canary)
        if (canary := states.running_canary) is not None and canary.first_slate is None:
            assert self._follower is not None
            first = {"first_slate": self._follower.slate_offset, "first_event": self._follower.event_offset}
            self._change_canary(canary, **first)

    def _forget(self, name: str) -> None:
        del self._watched[name]
        if self._follower is not None:
            self._follower.forget(name)

    def _begin_to_follow(self, canary: Canary | None) -> FirstSlates:
        """Follow the store from now on, or from the start of the canary, whose clicks count after a restart, too."""
        if canary is not None and canary.first_slate is not None and canary.first_event is not None:
            return FirstSlates(self._reader, self._config.events, canary.first_slate, canary.first_event)
        slates = self._reader.find_slate_offset(self._now_us() - SLATES_LATE_US)
        return FirstSlates(self._reader, self._config.events, slates, self._reader.last_offset())

    def _read_first_slates(self, running: Mapping[str, GuardedExperiment]) -> Mapping[Key, Finished]:
        if self._follower is None:
            return {}
        windows = {name: experiment.rails.click_window_s for name, experiment in running.items()}
        now = self._now_us() / 1e6
        self._follower.read(windows, now)
        return self._follower.take_finished(now)

    def _find_broken(
        self, name: str, experiment: GuardedExperiment, refused: Mapping[str, str]
    ) -> Iterator[tuple[str, str]]:
        """Yield the arms that must be stopped, and why."""
        for arm, bundle in experiment.arms.items():
            if bundle is not None and bundle in refused:
                yield arm, f"bundle {bundle} is refused: {refused[bundle]}"
            elif violation := self._watched[name].arms[arm].find_violation():
                yield arm, violation

    def _stop(self, name: str, arm: str, reason: str) -> None:
        if name == CANARY:
            if (ended := self._states.end_canary("rolled_back", reason)) is not None:
                log.warning("the canary %s is rolled back: %s", ended.bundle, reason)
        elif self._states.stop_arm(name, arm, reason):
            log.warning("arm %s of experiment %s is stopped, its users get control: %s", arm, name, reason)

    def _decide(self, canary: Canary) -> None:
        """Promote the canary or roll it back by its rule; a guard rail may have ended it in this step."""
        rule, follower = self._watched[CANARY].canary, self._follower
        assert rule is not None and follower is not None
        if (live := self._bundles.live()) != canary.live:
            self._stop(CANARY, CANDIDATE, f"{live} became the live bundle meanwhile")
            return
        decision = rule.decide(follower.slates[CANARY, CANDIDATE], self._now_us())
        if decision.action == "rolled_back":
            self._stop(CANARY, CANDIDATE, decision.reason)
        elif decision.action == "promoted":
            self._promote(canary, decision.reason)
        elif self._now_us() >= self._progress_at and decision.reason != canary.progress:
            self._progress_at = self._now_us() + PROGRESS_US
            self._change_canary(canary, progress=decision.reason)

    def _promote(self, canary: Canary, reason: str) -> None:
        current = self._states.read().running_canary
        if current is None or current.started_us != canary.started_us:
            return  # it has been ended meanwhile
        try:
            self._bundles.promote(canary.bundle, instead_of=canary.live)
        except StorageError:
            raise  # tried again in the next step
        except HandsellError as error:
            self._stop(CANARY, CANDIDATE, f"it cannot be promoted: {error}")
            return
        self._states.end_canary("promoted", reason)
        log.warning("the canary %s is promoted: %s", canary.bundle, reason)

    def _change_canary(self, canary: Canary, **changes: object) -> None:
        def change(now: Canary | None) -> Canary | None:
            if now is None or not now.is_running or now.started_us != canary.started_us:
                return now
            return now.model_copy(update=changes)

        self._states.change_canary(change)
