"""State of experiments that changes while serving: stopped arms, stopped experiments, and the canary.

It is one JSON file beside the pointer to the live bundle, so that every process that can read bundles can read it.
Gateways read it about once a second; the guard and the command line change it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from handsell.bundles.opening import open_bundle_storage
from handsell.bundles.storage import LOCK_WAIT_S, Storage, open_storage
from handsell.config import Config
from handsell.core.errors import HandsellError
from handsell.core.section import Section
from handsell.experiments.config import Experiment

STATE = "experiments.json"
CANARY = "canary"  # name of the canary's experiment and of its layer
CANDIDATE, CONTROL = "candidate", "control"  # its arms
KEPT_CANARIES = 20  # ended canaries that the file remembers


class ExperimentState(Section):
    """What has been stopped of one experiment."""

    stopped_arms: dict[str, str] = Field({}, description="reason by arm; their units get control")
    stopped: bool = Field(False, description="all units get control")
    reason: str = Field("", description="why the experiment was stopped")
    changed_us: int = 0


class Canary(Section):
    """A candidate bundle that a share of users gets, until it is promoted or rolled back."""

    bundle: str
    live: str = Field(description="the live bundle that it is compared with")
    share: float = Field(gt=0, le=1)
    started_us: int
    duration_s: float = Field(ge=0, description="before it can be promoted")
    min_slates: int = Field(ge=0, description="of the candidate, before it can be promoted")
    margin: float = Field(gt=0, le=1, description="share of control's click rate that may be lost")
    state: Literal["running", "promoted", "rolled_back"] = "running"
    reason: str = ""
    ended_us: int | None = None
    progress: str = Field("", description="what the guard waits for")
    first_slate: int | None = Field(None, description="offset in the event store after which its slates are counted")
    first_event: int | None = None

    @property
    def is_running(self) -> bool:
        return self.state == "running"


class ExperimentStates(Section):
    """The whole file."""

    experiments: dict[str, ExperimentState] = Field({}, description="by name; absent: nothing is stopped")
    canary: Canary | None = Field(None, description="the running canary, or the last one")
    former_canaries: tuple[Canary, ...] = Field((), description="ended ones before it, oldest first")

    def of(self, experiment: str) -> ExperimentState:
        return self.experiments.get(experiment, ExperimentState())

    def is_stopped(self, experiment: str) -> bool:
        return self.of(experiment).stopped

    def stopped_arms(self, experiment: str) -> Mapping[str, str]:
        """Reasons by stopped arm."""
        return self.of(experiment).stopped_arms

    @property
    def running_canary(self) -> Canary | None:
        return self.canary if self.canary is not None and self.canary.is_running else None

    def unknown(self, experiments: Iterable[str]) -> list[str]:
        """Names in the file that are not among a config's experiments; they are ignored."""
        return sorted(set(self.experiments) - {*experiments})


class StateFile:
    """Reads and changes the state; `root` is the folder of the bundles, or their storage."""

    def __init__(self, root: str | Path | Storage, lock_wait_s: float = LOCK_WAIT_S):
        self._storage: Storage = open_storage(root, lock_wait_s) if isinstance(root, str | Path) else root

    def read(self) -> ExperimentStates:
        """Return the state, empty if there is no file; raises HandsellError if the file is damaged."""
        return self._parse(self._storage.read(STATE))

    def _parse(self, raw: bytes | None) -> ExperimentStates:
        if raw is None:
            return ExperimentStates()
        try:
            return ExperimentStates.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise HandsellError(
                f"{STATE} beside the bundles: expected the state of experiments, got an invalid {place} "
                f"({first['msg']}): correct it, or remove it to start every arm again"
            ) from None

    def replace(self, states: ExperimentStates) -> None:
        """Write a state as it is, as in a backup."""
        self._storage.write(STATE, _to_json(states))

    def stop_arm(self, experiment: str, arm: str, reason: str) -> bool:
        """Send an arm's units to control; returns whether it was not stopped before."""
        return self._change_experiment(
            experiment,
            lambda now: now if arm in now.stopped_arms else _with(now, stopped_arms={**now.stopped_arms, arm: reason}),
        )

    def stop_experiment(self, experiment: str, reason: str) -> bool:
        """Send all units of an experiment to control; returns whether it was not stopped before."""
        return self._change_experiment(
            experiment, lambda now: now if now.stopped else _with(now, stopped=True, reason=reason)
        )

    def resume(self, experiment: str, arm: str | None = None) -> bool:
        """Let a stopped arm, or the experiment and all its arms, take part again; returns whether any was stopped."""
        if arm is None:
            return self._change_experiment(experiment, lambda now: ExperimentState())
        return self._change_experiment(
            experiment,
            lambda now: (
                now
                if arm not in now.stopped_arms
                else _with(now, stopped_arms={name: why for name, why in now.stopped_arms.items() if name != arm})
            ),
        )

    def change_canary(self, change: Callable[[Canary | None], Canary | None]) -> Canary | None:
        """Replace the canary by what `change` returns; a former one is remembered.

        `change` is called again if another process has changed the state meanwhile.
        """

        def apply(states: ExperimentStates) -> ExperimentStates:
            before, after = states.canary, change(states.canary)
            former = states.former_canaries
            if before is not None and (after is None or after.started_us != before.started_us):
                former = (*former, before)[-KEPT_CANARIES:]
            return states.model_copy(update={"canary": after, "former_canaries": former})

        return self._change(apply).canary

    def end_canary(self, state: Literal["promoted", "rolled_back"], reason: str) -> Canary | None:
        """End the running canary; returns it, or None if none is running. An ended one stays as it is."""
        ended: list[Canary] = []

        def end(now: Canary | None) -> Canary | None:
            ended.clear()
            if now is None or not now.is_running:
                return now
            ended.append(now.model_copy(update={"state": state, "reason": reason, "ended_us": now_us()}))
            return ended[-1]

        self.change_canary(end)
        return ended[-1] if ended else None

    def _change_experiment(self, name: str, change: Callable[[ExperimentState], ExperimentState]) -> bool:
        changed: list[bool] = []

        def apply(states: ExperimentStates) -> ExperimentStates:
            before = states.of(name)
            after = change(before)
            changed.append(after != before)
            experiments = {key: value for key, value in states.experiments.items() if key != name}
            if after != ExperimentState():
                experiments[name] = after
            return states.model_copy(update={"experiments": experiments})

        self._change(apply)
        return changed[-1]

    def _change(self, change: Callable[[ExperimentStates], ExperimentStates]) -> ExperimentStates:
        """Apply a change, so that none of another process is lost; nothing is written if nothing changes."""
        states: list[ExperimentStates] = []

        def apply(raw: bytes | None) -> bytes | None:
            before = self._parse(raw)
            states.append(change(before))
            return None if states[-1] == before else _to_json(states[-1])

        self._storage.change(STATE, apply)
        return states[-1]


def open_states(config: Config, keeps_last: bool = False) -> StateFile:
    """Open the state of a deployment's experiments; `keeps_last` as for bundles."""
    return StateFile(open_bundle_storage(config, keeps_last))


def describe_state(experiment: Experiment, state: ExperimentState) -> str:
    """Say whether an experiment waits, runs, has ended or was stopped."""
    now = now_us()
    if state.stopped:
        return f"stopped: {state.reason}"
    if experiment.start_us is not None and now < experiment.start_us:
        return "waits"
    if not experiment.runs_at(now):
        return "ended"
    return f"runs without {', '.join(state.stopped_arms)}" if state.stopped_arms else "runs"


def _to_json(states: ExperimentStates) -> bytes:
    return states.model_dump_json(indent=1).encode()


def _with(state: ExperimentState, **changes: object) -> ExperimentState:
    return state.model_copy(update={**changes, "changed_us": now_us()})


def now_us() -> int:
    return time.time_ns() // 1000
