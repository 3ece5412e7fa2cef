"""Analyze one experiment of a deployment: from the log to the verdict, now and at each earlier day."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from handsell.bundles.store import BundleStore
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.errors import ConfigError
from handsell.core.paths import Layout
from handsell.experiments.analysis.effects import ArmEffect, estimate_effects
from handsell.experiments.analysis.interleaving_credit import TeamPreference, estimate_preference, read_credit
from handsell.experiments.analysis.list_quality import measure_lists
from handsell.experiments.analysis.log.outcome_tables import (
    ExposureFilter,
    OutcomeTables,
    OutcomeWindows,
    open_outcomes,
)
from handsell.experiments.analysis.log.outcomes import UnitOutcomes
from handsell.experiments.analysis.metrics import list_metrics
from handsell.experiments.analysis.outliers import limit_outliers
from handsell.experiments.analysis.segments import label_cold
from handsell.experiments.analysis.verdict import ArmShares, Verdict, choose_settings, judge
from handsell.experiments.config import Experiment, find_share, to_micros
from handsell.experiments.state import open_states

COLD = "cold"  # segments without a table of users
MAX_LOOKS = 100  # of the history: the last ones


@dataclass(frozen=True, slots=True)
class Look:
    """The effects on the main metric at the end of a day."""

    until: int  # µs
    effects: list[ArmEffect]


@dataclass(frozen=True, slots=True)
class ExperimentAnalysis:
    """The verdict, its history by day, and what has been stopped."""

    verdict: Verdict
    looks: list[Look]
    stopped: dict[str, str]  # reason by stopped arm; the whole experiment under its own name


def find_experiment(config: Config, name: str) -> Experiment:
    """Return the definition of an experiment; raises ConfigError if there is none of this name."""
    if name in config.experiments:
        return config.experiments[name]
    known = ", ".join(config.experiments) or "none"
    raise ConfigError(
        f"expected one of the experiments in {config.source} ({known}), got {name!r}: add [experiments.{name}], or "
        "correct the name"
    )


def list_arms(experiment: Experiment) -> tuple[str, ...]:
    """Return the names of the arms, control first."""
    return (experiment.control, *(name for name in experiment.arms if name != experiment.control))


def find_shares(experiment: Experiment, arms: tuple[str, ...]) -> ArmShares:
    """Return the arms' shares in each period between changes."""
    changes = sorted({to_micros(one.until) for arm in experiment.arms.values() for one in arm.former})
    starts = [-(2**62), *changes]
    shares = (tuple(find_share(experiment.arms[arm], start) for arm in arms) for start in starts)
    return ArmShares(tuple(shares), tuple(changes))


def choose_exposures(config: Config, name: str, until: int | None = None) -> tuple[ExposureFilter, dict[str, str]]:
    """Return which slates count, until the experiment or an arm was stopped, and the reasons of stops."""
    experiment = find_experiment(config, name)
    state = open_states(config).read().of(name)
    ends = [end for end in (until, experiment.stop_us) if end is not None]
    ends += [state.changed_us] if (state.stopped or state.stopped_arms) and state.changed_us else []
    stopped = {**({name: state.reason} if state.stopped else {}), **state.stopped_arms}
    chosen = ExposureFilter(
        arms=list_arms(experiment),
        experiment=name,
        unit=experiment.unit,
        surfaces=experiment.surfaces,
        since=experiment.start_us or 0,
        until=min(ends, default=2**62),
    )
    return chosen, stopped


def analyze(
    config: Config,
    name: str,
    until: int | None = None,
    segment: str | None = None,
    windows: OutcomeWindows | None = None,
    history: bool = False,
) -> ExperimentAnalysis:
    """Analyze an experiment as of `until` µs; segments by a column of the users, or `cold`.

    With `history`, also as of the end of each earlier day.
    """
    experiment = find_experiment(config, name)
    chosen, stopped = choose_exposures(config, name, until)
    with open_outcomes(config, chosen, windows) as tables:
        outcomes = tables.read()
        settings = choose_settings(tables.types, experiment.metric, experiment.smallest_effect)
        labels = None if segment is None else label_units(config, outcomes, segment)
        lists = measure_lists(tables.database, chosen.arms, load_snapshot(config))
        verdict = judge(name, outcomes, find_shares(experiment, chosen.arms), settings, labels, lists)
        looks = _read_history(tables, settings.metric, experiment.smallest_effect) if history else []
    return ExperimentAnalysis(verdict, looks, stopped)


def _read_history(tables: OutcomeTables, metric: str, smallest_effect: float) -> list[Look]:
    """Estimate the main metric at the end of each day."""
    measure, looks = list_metrics(tables.types)[metric], []
    for end in tables.list_looks()[-MAX_LOOKS:]:
        outcomes, _ = limit_outliers(tables.read(end))
        looks.append(Look(end, estimate_effects(metric, measure, outcomes, smallest_effect)))
    return looks


def analyze_interleaving(config: Config, name: str, until: int | None = None) -> TeamPreference:
    """Estimate which of the two interleaved arms people prefer."""
    experiment = find_experiment(config, name)
    chosen, _ = choose_exposures(config, name, until)
    first, second = sorted(experiment.interleave, key=lambda arm: arm != experiment.control)
    with open_outcomes(config, replace(chosen, arms=(first,), interleaved=True)) as tables:
        clicks, shown = read_credit(tables.database, (first, second))
    return estimate_preference(clicks, shown, (first, second))


def label_units(config: Config, outcomes: UnitOutcomes, column: str) -> np.ndarray:
    """Return the value of a column of the users for each unit (N,), empty without one."""
    if column == COLD:
        return label_cold(outcomes)
    path = Layout(config.state).users
    names = [] if not path.is_file() else [n for n in pq.read_schema(path).names if n != "user_id"]
    if column not in names:
        raise ConfigError(
            f"segment: expected {' or '.join([COLD, *names])}, got {column!r}: take one of these attributes of users"
        )
    users = pq.read_table(path, columns=["user_id", column])
    place = pc.index_in(outcomes.unit.astype(str), value_set=users["user_id"].combine_chunks())
    values = users[column].combine_chunks().take(place).to_pylist()
    return np.array(["" if value is None else str(value) for value in values], dtype=object).astype(str)


def load_snapshot(config: Config) -> Snapshot | None:
    """Return the items of the live bundle, else the newest snapshot; None before the first training."""
    layout = Layout(config.state)
    store = BundleStore(layout.bundles)
    live = store.live()
    paths = [store.local_path(live) / "snapshot"] if live else []
    found = next((path for path in [*paths, layout.snapshot] if (path / "snapshot.json").is_file()), None)
    return None if found is None else Snapshot.load(found)
