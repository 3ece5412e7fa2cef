"""When a canary is promoted or rolled back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from handsell.experiments.sequential_test import ExcessTest, Observations
from handsell.experiments.state import Canary
from handsell.serving.guard_rails.config import CanaryConfig

RATIOS = np.round(np.arange(0.3, 1.51, 0.05), 2)  # click rates relative to control's that are tested
LEVEL = 0.05
MIN_PATIENCE_S = 3_600.0


class ClickRatio:
    """The lower bound of the candidate's click rate relative to control's, valid however often it is looked at.

    `wanted` is tested besides RATIOS; 0, which any loss of clicks satisfies, needs no test.
    """

    def __init__(self, wanted: float):
        ratios = sorted({*RATIOS, wanted} - {0.0})
        self._tests = {float(ratio): ExcessTest(scale=float(ratio), restarts=False) for ratio in ratios}
        self._rejected: set[float] = set()
        self.candidate, self.control = (0, 0), (0, 0)  # users who clicked, all

    def add(self, candidate: tuple[int, int], control: tuple[int, int]) -> None:
        """Add users (who clicked, all) whose first slate's time is over."""
        for ratio, test in self._tests.items():
            if test.add(Observations.of_successes(*candidate), Observations.of_successes(*control)) >= 1 / LEVEL:
                self._rejected.add(ratio)
        self.candidate = self.candidate[0] + candidate[0], self.candidate[1] + candidate[1]
        self.control = self.control[0] + control[0], self.control[1] + control[1]

    @property
    def lower_bound(self) -> float:
        """The largest ratio such that it and all smaller ones are rejected; 0 if none is."""
        bound = 0.0
        for ratio in self._tests:
            if ratio not in self._rejected:
                break
            bound = ratio
        return bound

    def describe(self) -> str:
        (clicked, users), (control, all_control) = self.candidate, self.control
        if not users:
            return "no user's time to click is over"
        return (
            f"{clicked / max(users, 1):.1%} of {users:,} users clicked, {control / max(all_control, 1):.1%} of "
            f"{all_control:,} in control; ratio at least {self.lower_bound:.2f}"
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a canary, and why; `waiting` keeps it."""

    action: Literal["waiting", "promoted", "rolled_back"]
    reason: str


class CanaryRule:
    """Decides from time, slates and clicks; guard rails and refusals come before it."""

    def __init__(self, canary: Canary, settings: CanaryConfig):
        self._canary, self._settings = canary, settings
        self.clicks = ClickRatio(round(1 - canary.margin, 6))

    def decide(self, slates: int, now_us: int) -> Decision:
        """Decide after a number of the candidate's slates, at a wall time."""
        canary = self._canary
        elapsed_s = (now_us - canary.started_us) / 1e6
        missing = []
        if elapsed_s < canary.duration_s:
            missing.append(f"{format_time(canary.duration_s - elapsed_s)} to go")
        if slates < canary.min_slates:
            missing.append(f"{slates:,} of {canary.min_slates:,} slates")
        if canary.margin < 1 and self.clicks.lower_bound < round(1 - canary.margin, 6):
            wanted = f", {1 - canary.margin:.2f} wanted" if self.clicks.candidate[1] else ""
            missing.append(self.clicks.describe() + wanted)
        if not missing:
            clicks = f"; {self.clicks.describe()}" if self.clicks.candidate[1] else ""
            return Decision("promoted", f"no guard rail hit in {slates:,} slates{clicks}")
        if elapsed_s > max(self._settings.patience * canary.duration_s, MIN_PATIENCE_S):
            return Decision("rolled_back", f"undecided after {format_time(elapsed_s)}: {'; '.join(missing)}")
        return Decision("waiting", "; ".join(missing))


def format_time(seconds: float) -> str:
    """`90 s`, `12 min`, `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6_000 else f"{seconds / 3_600:.1f} h"
