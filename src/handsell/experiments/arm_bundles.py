"""The bundles that running arms of experiments need beside the live one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from handsell.config import Config
from handsell.experiments.state import ExperimentStates


@dataclass(frozen=True)
class ArmBundles:
    """Bundles of the arms that the config defines and that are not stopped, and of a running canary."""

    config: Config = field(compare=False)
    bundles: tuple[str, ...] = ()
    canary_started_us: int = 0  # a canary that is started again may have been repaired

    def update(self, states: ExperimentStates) -> ArmBundles:
        experiments: dict[str, Any] = getattr(self.config, "experiments", {})
        found = [
            arm.bundle
            for name, experiment in experiments.items()
            if not states.is_stopped(name)
            for arm_name, arm in experiment.arms.items()
            if arm.bundle is not None and arm_name not in states.stopped_arms(name)
        ]
        canary = states.running_canary
        if canary is not None:
            found.append(canary.bundle)
        started = canary.started_us if canary is not None else 0
        return replace(self, bundles=tuple(sorted(set(found))), canary_started_us=started)
