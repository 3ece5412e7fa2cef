"""Experiments of a deployment on the terminal: which there are, whether they run, what their arms change."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from handsell.config import Config
from handsell.experiments.analysis.analysis import find_experiment, list_arms
from handsell.experiments.analysis.text.verdict_text import open_console
from handsell.experiments.config import Experiment
from handsell.experiments.state import describe_state, open_states


def print_experiments(config: Config, console: Console | None = None) -> None:
    """Print one row per experiment."""
    console = console or open_console()
    if not config.experiments:
        console.print(
            f"no experiments in {config.source}: add [experiments.NAME], see docs/experiments.md", markup=False
        )
        return
    states = open_states(config).read()
    table = Table()
    for column in ("experiment", "state", "layer", "unit", "surfaces", "share", "arms", "metric"):
        table.add_column(column)
    for name, experiment in config.experiments.items():
        arms = ", ".join(f"{arm} {experiment.arms[arm].share:.0%}" for arm in list_arms(experiment))
        table.add_row(
            name, describe_state(experiment, states.of(name)), experiment.layer, experiment.unit,
            ", ".join(experiment.surfaces) or "all", f"{experiment.share:.0%}", arms, experiment.metric or "clicks",
        )  # fmt: skip
    console.print(table)
    if unknown := states.unknown(config.experiments):
        console.print(f"stopped, but not in the configuration: {', '.join(unknown)}")


def print_experiment(config: Config, name: str, console: Console | None = None) -> None:
    """Print what each arm changes."""
    console, experiment = console or open_console(), find_experiment(config, name)
    state = open_states(config).read().of(name)
    times = [f"{word} {value:%Y-%m-%d %H:%M}" for word, value in _list_times(experiment)]
    console.print(
        f"{name}: {describe_state(experiment, state)}; layer {experiment.layer}, unit {experiment.unit}, surfaces "
        f"{', '.join(experiment.surfaces) or 'all'}, {experiment.share:.0%} of units; "
        + "; ".join([*times, f"metric {experiment.metric or 'clicks'}"])
    )
    table = Table()
    for column in ("arm", "share", "changes", "stopped"):
        table.add_column(column)
    for arm in list_arms(experiment):
        changes = experiment.arms[arm].model_dump(exclude_defaults=True, exclude={"share", "former"})
        said = "; ".join(f"{key} = {value}" for key, value in changes.items())
        table.add_row(arm, f"{experiment.arms[arm].share:.0%}", said or "nothing", state.stopped_arms.get(arm, ""))
    console.print(table)


def _list_times(experiment: Experiment):
    return [(word, value) for word, value in (("from", experiment.start), ("to", experiment.stop)) if value is not None]
