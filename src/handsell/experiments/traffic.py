"""Decide for one request in which experiments and arms it is, all layers at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from handsell.config import Arm, Config, Experiment
from handsell.config.overlay import build_overlay
from handsell.core.batches import NONE
from handsell.core.hashing import hash_unit
from handsell.events.merged_visitors import ANONYMOUS, MergedVisitors
from handsell.experiments.assignment import assign_arm, assign_experiment, is_held_out
from handsell.experiments.config import ALWAYS, RANK, list_changes, to_micros
from handsell.experiments.state import CANARY, CANDIDATE, CONTROL, ExperimentStates

HOLDOUT, HELD_OUT, INTERLEAVED = "holdout", "held_out", "interleaved"
REMEMBERED = 100_000  # units of a layer whose arms a process remembers
VARIANTS = 1_000


@dataclass(frozen=True, slots=True)
class RequestUnits:
    """The ids of one request by which it may be assigned."""

    user: str | None = None  # user, or visitor without an account, under the id that is sticky across merges
    visitor: str | None = None  # anonymous id
    session: str | None = None

    @property
    def person(self) -> str | None:
        return self.user or self.visitor or self.session


def find_units(
    merged: MergedVisitors, user_id: str | None, visitor: str | None = None, session: str | None = None
) -> RequestUnits:
    """Return the units of a user, or of a visitor without an account; ids are as the log names them."""
    first = merged.find_first_visitor(user_id)
    if visitor is None and first is not None and first.startswith(ANONYMOUS):
        visitor = first
    return RequestUnits(merged.find_unit(user_id), visitor, session)


@dataclass(frozen=True, slots=True)
class Variant:
    """How a slate is made: the bundle (None: the live one) and the changed settings."""

    bundle: str | None = None
    overlay: str = ""
    arms: tuple[str, ...] = ()  # "experiment=arm", to which rules may refer


@dataclass(frozen=True, slots=True)
class Participation:
    """The arms of one request. Arms that are stopped, or whose bundle is not held, are control instead."""

    arms: dict[str, str] = field(default_factory=dict)  # by experiment
    stopped: dict[str, str] = field(default_factory=dict)  # by experiment, the arm instead of which control is given
    units: dict[str, str] = field(default_factory=dict)  # by experiment, ids of units that are not the user
    variant: Variant = Variant()
    person: str | None = None  # user, or else the visitor or session
    interleaved: str | None = None  # the experiment of which two arms share the slate
    teams: tuple[str, str] = ("", "")  # these arms
    variants: tuple[Variant, Variant] = (Variant(), Variant())  # and how each makes its slate

    @property
    def makers(self) -> tuple[Variant, ...]:
        """How the slate is made, or both slates of which it is drafted."""
        return (self.variant,) if self.interleaved is None else self.variants

    def list_arms(self) -> dict[str, str]:
        """Return the arm by experiment, `interleaved` where two arms share the slate."""
        return self.arms if self.interleaved is None else {**self.arms, self.interleaved: INTERLEAVED}

    def describe(self, teams: Sequence[str | None] = ()) -> dict[str, Any]:
        """Return what an impression says about experiments; nothing for a request in none."""
        found: dict[str, Any] = {"arms": self.arms, "stopped": self.stopped, "units": self.units}
        if self.interleaved is not None:
            found |= {"interleaved": self.interleaved, "teams": teams}
        return {name: value for name, value in found.items() if value}


IN_NONE = Participation()


class Traffic:
    """Assigns requests to the arms of a config's experiments and of the running canary.

    `held` are the bundles of arms that this process can answer from; None: all.
    """

    def __init__(self, config: Config, states: ExperimentStates | None = None, held: Collection[str] | None = None):
        self._config, self._states, self._held = config, states or ExperimentStates(), held
        self.experiments = dict(config.experiments)
        self._salts = {name: name for name in self.experiments}
        if (canary := self._states.running_canary) is not None:
            self.experiments[CANARY] = build_canary(canary.bundle, canary.share)
            self._salts[CANARY] = f"{CANARY} {canary.bundle}"  # each candidate meets other users first
        self._layers: dict[str, dict[str, Experiment]] = defaultdict(dict)
        for name, experiment in self.experiments.items():
            self._layers[experiment.layer][name] = experiment
        self._changes = _list_all_changes(self.experiments)
        self._draw = lru_cache(REMEMBERED)(self._draw_unit)
        self._is_held_out = lru_cache(REMEMBERED)(self._draw_holdout)
        self._find_variant = lru_cache(VARIANTS)(self._build_variant)

    @property
    def is_empty(self) -> bool:
        return not self.experiments and not self._config.holdout.share

    @property
    def bundles(self) -> set[str]:
        """Ids of the bundles that arms name, without those that are stopped."""
        return {
            arm.bundle
            for name, experiment in self.experiments.items()
            for arm_name, arm in experiment.arms.items()
            if arm.bundle is not None and not self._is_stopped(name, arm_name)
        }

    def assign(self, units: RequestUnits, surface: str, time: int) -> Participation:
        """Assign a request on a surface at wall time (µs)."""
        if self.is_empty:
            return IN_NONE
        if self._config.holdout.share and self._is_held_out(units.person):
            return Participation({HOLDOUT: HELD_OUT}, person=units.person)
        drawn: dict[str, str] = {}
        epoch = sum(change <= time for change in self._changes)
        for layer, members in self._layers.items():
            unit = getattr(units, next(iter(members.values())).unit)
            name, arm = self._draw(layer, unit, epoch) if unit is not None else (None, None)
            if name is not None and arm is not None and self._runs(name, surface, time):
                drawn[name] = arm
        return self._serve(drawn, units) if drawn else IN_NONE

    def _serve(self, drawn: dict[str, str], units: RequestUnits) -> Participation:
        """Replace arms that cannot be given by control, and find what the others change."""
        if any(self.experiments[name].arms[arm].bundle for name, arm in drawn.items() if name != CANARY):
            drawn.pop(CANARY, None)  # the unit tests another bundle already
        arms, stopped, interleaved = dict[str, str](), dict[str, str](), None
        for name, arm in drawn.items():
            experiment = self.experiments[name]
            if experiment.interleave and not self._states.is_stopped(name):
                if not any(self._is_broken(name, team) for team in experiment.interleave):
                    interleaved = name
                    continue
                arms[name], stopped[name] = experiment.control, INTERLEAVED
            elif self._is_broken(name, arm):
                arms[name], stopped[name] = experiment.control, arm
            else:
                arms[name] = arm
        own = {name: self.experiments[name].unit for name in drawn}
        ids = {name: getattr(units, unit) for name, unit in own.items() if unit != "user"}
        base = Participation(arms, stopped, ids, self._find_variant(tuple(arms.items())), units.person)
        if interleaved is None:
            return base
        first, second = self.experiments[interleaved].interleave
        both = [self._find_variant((*arms.items(), (interleaved, team))) for team in (first, second)]
        return replace(base, interleaved=interleaved, teams=(first, second), variants=(both[0], both[1]))

    def find_arm(self, experiment: str, arm: str) -> Variant | None:
        """Return how slates of one arm are made, whether or not it is stopped; None for an arm that there is not."""
        known = experiment in self.experiments and arm in self.experiments[experiment].arms
        return self._find_variant(((experiment, arm),)) if known else None

    def without_bundles(self, given: Participation) -> Participation:
        """Return the participation of a request for which no bundle but the live one could answer."""
        arms, stopped = dict(given.arms), dict(given.stopped)
        for name, arm in given.arms.items():
            if name in self.experiments and self.experiments[name].arms[arm].bundle:
                arms[name], stopped[name] = self.experiments[name].control, arm
        if given.interleaved is not None:
            arms[given.interleaved] = self.experiments[given.interleaved].control
            stopped[given.interleaved] = INTERLEAVED
        variant = replace(self._find_variant(tuple(arms.items())), bundle=None)
        return Participation(arms, stopped, given.units, variant, given.person)

    def _build_variant(self, arms: tuple[tuple[str, str], ...]) -> Variant:
        """Return how a slate is made for these arms by experiment."""
        taken = [(self.experiments[name], self.experiments[name].arms[arm]) for name, arm in arms]
        bundle = next((arm.bundle for _, arm in taken if arm.bundle is not None), None)
        return Variant(bundle, build_overlay(self._config, taken), tuple(f"{name}={arm}" for name, arm in arms))

    def _is_broken(self, name: str, arm: str) -> bool:
        bundle = self.experiments[name].arms[arm].bundle
        missing = bundle is not None and self._held is not None and bundle not in self._held
        return missing or self._is_stopped(name, arm)

    def _is_stopped(self, name: str, arm: str) -> bool:
        if arm == self.experiments[name].control:
            return False  # there is nothing else to give
        return self._states.is_stopped(name) or arm in self._states.stopped_arms(name)

    def _runs(self, name: str, surface: str, time: int) -> bool:
        experiment = self.experiments[name]
        if not experiment.surfaces and surface == RANK:
            return experiment.ranks and experiment.runs_at(time)
        return (not experiment.surfaces or surface in experiment.surfaces) and experiment.runs_at(time)

    def _draw_unit(self, layer: str, unit_id: str, epoch: int) -> tuple[str | None, str | None]:
        """Return the experiment and arm of a unit after a number of changes of shares."""
        members, unit = self._layers[layer], np.array([hash_unit(unit_id)], np.uint64)
        time = self._changes[epoch - 1] if epoch else ALWAYS
        place = int(assign_experiment(layer, members, unit, time)[0])
        if place == NONE:
            return None, None
        name, experiment = list(members.items())[place]
        return name, list(experiment.arms)[int(assign_arm(self._salts[name], experiment, unit, time)[0])]

    def _draw_holdout(self, unit_id: str | None) -> bool:
        return bool(is_held_out(self._config.holdout.share, np.array([hash_unit(unit_id)], np.uint64))[0])


def build_canary(bundle: str, share: float) -> Experiment:
    """Return the experiment that gives a share of all users a candidate bundle."""
    arms = {CONTROL: Arm(share=1 - share), CANDIDATE: Arm(share=share, bundle=bundle)}
    return Experiment(layer=CANARY, arms=arms)


def _list_all_changes(experiments: Mapping[str, Experiment]) -> list[int]:
    arms: Iterable[Arm] = (arm for experiment in experiments.values() for arm in experiment.arms.values())
    return sorted({*list_changes(experiments), *(to_micros(one.until) for arm in arms for one in arm.former)})
