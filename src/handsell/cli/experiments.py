"""`handsell experiments`: the experiments of a deployment, what they found, and how long they take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handsell.cli.arguments import ConfigPath, load, load_on_cluster

if TYPE_CHECKING:
    from handsell.experiments.analysis.analysis import ExperimentAnalysis

app = typer.Typer(no_args_is_help=True, help="List, show, analyze, plan and stop experiments.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the experiment: [experiments.NAME].")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command("list")
def list_experiments(config: ConfigPath) -> None:
    """List the experiments of the configuration, and whether they run."""
    from handsell.experiments.analysis.text.definition_text import print_experiments

    print_experiments(load(config))


@app.command("show")
def show_experiment(config: ConfigPath, name: Name) -> None:
    """Print the definition of an experiment and what has been stopped of it."""
    from handsell.experiments.analysis.text.definition_text import print_experiment

    print_experiment(load(config), name)


@app.command("analyze")
def analyze_experiment(
    config: ConfigPath,
    name: Name,
    segment: Annotated[
        str | None, typer.Option(help="Effects by an attribute of the users, or by `cold`: users without a history.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Analyze as of this time, such as 2026-12-08T00:00:00Z; by default, now.")
    ] = None,
    credit_hours: Annotated[
        float,
        typer.Option(min=0, help="A click that names no slate counts for an item shown this long before."),
    ] = 24.0,
    conversion_days: Annotated[float, typer.Option(min=0, help="Window of conversion after the first exposure.")] = 7.0,
    plot: Annotated[Path | None, typer.Option(help="Write the effect by day to this file, .svg or .html.")] = None,
    as_json: Json = False,
) -> None:
    """Test the sample ratio, then compare each arm with control; it is honest to look at any time."""
    from handsell.core.errors import ConfigError
    from handsell.experiments.analysis.analysis import analyze, analyze_interleaving, find_experiment
    from handsell.experiments.analysis.log.outcome_tables import OutcomeWindows
    from handsell.experiments.analysis.text.verdict_text import print_analysis, print_preference
    from handsell.experiments.analysis.text.verdict_values import clean_values
    from handsell.storage.published_state import open_published_state

    loaded = load(config)
    open_published_state(loaded).pull()
    if plot is not None and plot.suffix not in (".svg", ".html"):
        raise ConfigError(f"--plot: expected a file that ends with .svg or .html, got {plot}")
    end = None if until is None else _read_time(until)
    if find_experiment(loaded, name).interleave:
        preference = analyze_interleaving(loaded, name, end)
        if as_json:
            print(json.dumps(clean_values(preference), indent=1))
        else:
            print_preference(name, preference)
        return
    windows = OutcomeWindows(credit_hours=credit_hours, conversion_days=conversion_days)
    found = analyze(loaded, name, end, segment, windows, history=as_json or plot is not None)
    if as_json:
        print(json.dumps(clean_values(found), indent=1))
    else:
        print_analysis(found)
    if plot is not None:
        _write_plot(found, plot)


@app.command("plan")
def plan_experiment(
    config: ConfigPath,
    name: Name,
    effect: Annotated[
        float | None,
        typer.Option(min=0.0001, max=1, help="Relative effect to find, such as 0.02; by default smallest_effect."),
    ] = None,
    days: Annotated[int, typer.Option(min=2, max=90, help="Plan from this many logged days.")] = 14,
    as_json: Json = False,
) -> None:
    """Print the smallest effect that can be found after some days, and how long a given effect takes."""
    from handsell.experiments.analysis.text.verdict_text import print_plan
    from handsell.experiments.analysis.text.verdict_values import clean_values
    from handsell.experiments.analysis.traffic import plan_from_log
    from handsell.storage.published_state import open_published_state

    loaded = load(config)
    open_published_state(loaded).pull()
    plans = plan_from_log(loaded, name, effect, days)
    if as_json:
        print(json.dumps(clean_values(plans), indent=1))
        return
    for arm, plan in plans.items():
        print_plan(name, arm, plan)


@app.command("stop")
def stop_experiment(
    config: ConfigPath,
    name: Name,
    arm: Annotated[str | None, typer.Option(help="Stop this arm only; its units get control.")] = None,
    reason: Annotated[str, typer.Option(help="Why; it is stored and shown.")] = "stopped by hand",
) -> None:
    """Give control to all units of an experiment, or of one arm; running gateways follow within about a second."""
    loaded = load_on_cluster(config)

    from handsell.core.errors import ConfigError
    from handsell.experiments.analysis.analysis import find_experiment
    from handsell.experiments.state import open_states
    from handsell.jobs.audited_command import append_entry

    experiment = find_experiment(loaded, name)
    states = open_states(loaded)
    if arm is None:
        changed = states.stop_experiment(name, reason)
    elif arm == experiment.control or arm not in experiment.arms:
        others = ", ".join(one for one in experiment.arms if one != experiment.control)
        raise ConfigError(f"--arm: expected an arm of {name} besides control ({others}), got {arm}")
    else:
        changed = states.stop_arm(name, arm, reason)
    what = name if arm is None else f"{arm} of {name}"
    append_entry(loaded, "experiments stop", f"experiment {what}", "done", reason)
    print(f"stopped: {what} ({reason})" if changed else f"{what} was stopped before")


def _read_time(text: str) -> int:
    from datetime import datetime

    from handsell.core.errors import ConfigError
    from handsell.experiments.config import to_micros

    try:
        return to_micros(datetime.fromisoformat(text))
    except ValueError:
        raise ConfigError(f"--until: expected a time such as 2026-12-08T00:00:00Z, got {text!r}") from None


def _write_plot(found: ExperimentAnalysis, path: Path) -> None:
    from handsell.evaluation.report.experiment_plot import EffectPoint, draw_effects, render_effects
    from handsell.experiments.analysis.text.verdict_text import describe_decisions

    verdict = found.verdict
    points = [
        EffectPoint(look.until, effect.arm, effect.relative, effect.relative_low, effect.relative_high)
        for look in found.looks
        for effect in look.effects
    ]
    title = f"{verdict.experiment}: {verdict.metric}"
    if path.suffix == ".html":
        path.write_text(render_effects(points, title, list(describe_decisions(verdict))), encoding="utf-8")
    elif (figure := draw_effects(points, title)) is not None:
        path.write_text(figure, encoding="utf-8")
    else:
        print("no plot: no day has enough data for an interval yet")
        return
    print(f"plot: {path}")
