"""The guard rails of one arm: each compares its outcomes with control's, and looks at them every second.

Requests of one second share causes, such as a lost replica; so failures and latency count as one outcome per step and
arm, the share of its users or answers. Short slates, diversity and clicks count once per user.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from handsell.experiments.sequential_test import ExcessTest, Observations
from handsell.serving.guard_rails.config import GuardRails
from handsell.serving.guard_rails.counts import BINS, CLASSES, FIRST_S, GROWTH, ArmCounts
from handsell.serving.guard_rails.first_slates import CLICK, Finished

MIN_UNITS = 5  # distinct users with failures: fewer may be one robot
MIN_ANSWERS = 100  # of control, before its p99 latency is known
KEPT = 0.999  # of control's latencies per step
RECENT = 0.9  # weight of the past in the shares that a reason states
MAX_SLOW = 0.05  # largest rise of the share of answers slower than the limit: p99 is exceeded clearly


@dataclass
class Rail:
    """One comparison, and what its reason states."""

    test: ExcessTest
    text: str  # with {arm} and {control}
    level: float = 0.01
    arm: float | None = None
    control: float | None = None
    culprits: set[int] | None = None  # distinct users with failures, where they are known

    def add(self, arm: Observations, control: Observations) -> None:
        self.test.add(arm, control)
        self.arm, self.control = follow(self.arm, arm), follow(self.control, control)

    @property
    def is_hit(self) -> bool:
        enough = self.culprits is None or len(self.culprits) >= MIN_UNITS
        return enough and self.test.evidence >= 1 / self.level

    def describe(self) -> str:
        return self.text.format(arm=self.arm or 0.0, control=self.control or 0.0)


def follow(mean: float | None, observations: Observations) -> float | None:
    if not observations.total:
        return mean
    new = observations.sum / observations.total
    if mean is None:
        return new
    keep = RECENT**observations.total
    return keep * mean + (1 - keep) * new


def build_loss_test(loss: float) -> ExcessTest:
    """Test whether a mean falls below (1 - loss) × control's: its outcomes are complements."""
    return ExcessTest(margin=loss, scale=1 - loss)


def count_without(event: str, finished: Finished) -> Observations:
    """Return the units without an event, of all units."""
    return Observations.of_successes(finished.units - finished.acted[event], finished.units)


@dataclass
class ControlLatency:
    """The latencies of control of the last quarter of an hour, mostly."""

    counts: np.ndarray = field(default_factory=lambda: np.zeros(CLASSES))

    def add(self, counts: np.ndarray) -> None:
        self.counts = KEPT * self.counts + counts

    def find_limit(self, ratio: float) -> int | None:
        """Return the first class that is slower than `ratio` × p99; None while there are too few answers."""
        total = self.counts.sum()
        if total < MIN_ANSWERS:
            return None
        p99 = int(np.searchsorted(np.cumsum(self.counts), 0.99 * total))
        return p99 + 1 + math.ceil(math.log(ratio) / math.log(GROWTH))

    def p99_s(self) -> float:
        return FIRST_S * GROWTH ** (1 + int(np.searchsorted(np.cumsum(self.counts), 0.99 * self.counts.sum())))


class ArmRails:
    """All guard rails of an arm; together they stop a harmless one with probability `false_stops` at most."""

    def __init__(self, settings: GuardRails):
        s = self._settings = settings
        self._rails = {
            "errors": Rail(
                ExcessTest(s.max_errors), "{arm:.0%} of its users' requests fail, {control:.1%} of control's"
            ),
            "degraded": Rail(
                ExcessTest(s.max_degraded), "{arm:.0%} of its users' answers are degraded, {control:.1%} of control's"
            ),
            "latency": Rail(ExcessTest(MAX_SLOW), ""),
            "short": Rail(
                ExcessTest(s.max_short), "{arm:.0%} of its first slates are short, {control:.1%} of control's"
            ),
        }
        if s.max_diversity_loss < 1:
            self._rails["diversity"] = Rail(
                build_loss_test(s.max_diversity_loss), "diversity within slates is {arm:.2f}, {control:.2f} in control"
            )
        losses = {CLICK: s.max_click_loss, **s.max_event_loss}
        for event, loss in losses.items():
            if loss < 1:
                text = (
                    f"{event or 'a click'} follows {{arm:.1%}} of its users' first slates, {{control:.1%}} of control's"
                )
                self._rails[name_rail(event)] = Rail(build_loss_test(loss), text)
        for rail in self._rails.values():
            rail.level = s.false_stops / len(self._rails)
        for name in ("errors", "degraded"):
            self._rails[name].culprits = set()
        self._latency = ControlLatency()
        self._arm, self._control = ArmCounts(), ArmCounts()  # not compared yet
        self._finished_arm, self._finished_control = Finished(), Finished()

    def add(self, arm: ArmCounts | None, control: ArmCounts | None) -> None:
        """Add what was counted in one step; it is compared as soon as both arms have answers."""
        self._arm.merge(arm or ArmCounts())
        self._control.merge(control or ArmCounts())
        if self._arm.units and self._control.units:
            self._compare(self._arm, self._control)
            self._arm, self._control = ArmCounts(), ArmCounts()

    def add_finished(self, arm: Finished | None, control: Finished | None) -> tuple[Finished, Finished] | None:
        """Add users whose time for events after their first slate is over; returns what has been compared."""
        self._finished_arm.merge(arm or Finished())
        self._finished_control.merge(control or Finished())
        pair = self._finished_arm, self._finished_control
        if not all(one.units for one in pair):
            return None
        self._finished_arm, self._finished_control = Finished(), Finished()
        for event in (CLICK, *self._settings.max_event_loss):
            if (rail := self._rails.get(name_rail(event))) is not None:
                rail.test.add(*(count_without(event, one) for one in pair))
                rail.arm, rail.control = (
                    follow(mean, Observations.of_successes(one.acted[event], one.units))
                    for mean, one in zip((rail.arm, rail.control), pair, strict=True)
                )
        return pair

    def _compare(self, arm: ArmCounts, control: ArmCounts) -> None:
        for name in ("errors", "degraded"):
            rail = self._rails[name]
            assert rail.culprits is not None
            if len(rail.culprits) < MIN_UNITS:
                rail.culprits |= arm.failed[name]
            rail.add(Observations.of_share(arm.share_failed(name)), Observations.of_share(control.share_failed(name)))
        self._compare_latency(arm, control)
        if arm.first_slates and control.first_slates:
            self._rails["short"].add(
                Observations.of_successes(arm.short, arm.first_slates),
                Observations.of_successes(control.short, control.first_slates),
            )
        if "diversity" in self._rails and arm.diversity and control.diversity:
            self._compare_diversity(arm, control)

    def _compare_diversity(self, arm: ArmCounts, control: ArmCounts) -> None:
        rail, value = self._rails["diversity"], (np.arange(BINS) + 0.5) / BINS
        counts = [np.array([one.diversity[k] for k in range(BINS)], float) for one in (arm, control)]
        rail.test.add(*(Observations(1 - value, count) for count in counts))
        rail.arm, rail.control = (
            follow(m, Observations(value, count)) for m, count in zip((rail.arm, rail.control), counts, strict=True)
        )

    def _compare_latency(self, arm: ArmCounts, control: ArmCounts) -> None:
        """Compare the shares of answers that are slower than the limit, which comes from earlier steps alone."""
        limit = self._latency.find_limit(self._settings.max_latency_ratio)
        if limit is not None:
            rail = self._rails["latency"]
            rail.add(*(Observations.of_share(share_slower(one, limit)) for one in (arm, control)))
            rail.text = (
                f"{{arm:.0%}} of its answers take longer than {self._settings.max_latency_ratio:g} × control's p99 of "
                f"{1_000 * self._latency.p99_s():.0f} ms, {{control:.1%}} of control's"
            )
        self._latency.add(np.array([control.latency[k] for k in range(CLASSES)], float))

    def find_violation(self) -> str | None:
        """Return why the arm must be stopped, or None."""
        if not self._settings.enabled:
            return None
        hit = [f"{name}: {rail.describe()}" for name, rail in self._rails.items() if rail.is_hit]
        return hit[0] if hit else None


def name_rail(event: str) -> str:
    return event or "clicks"


def share_slower(counts: ArmCounts, limit: int) -> float:
    return sum(n for k, n in counts.latency.items() if k >= limit) / max(counts.latency.total(), 1)
