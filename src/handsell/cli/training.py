"""Commands for training and evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from handsell.cli.arguments import BundleName, ConfigPath, ServiceUrl, load, load_on_cluster


def train(
    config: ConfigPath,
    promote: Annotated[bool, typer.Option(help="Make the bundle live if it passes its gate.")] = True,
) -> None:
    """Read new events, update features, then train, evaluate and write a bundle; promote it if it passes its gate."""
    loaded = load_on_cluster(config)

    from handsell.jobs.pipeline import run_pipeline
    from handsell.jobs.progress import report_result

    report_result(run_pipeline(loaded, promote))


def evaluate(
    config: ConfigPath,
    bundle: BundleName = "live",
    served: Annotated[
        bool, typer.Option("--served", help="Query the running service and compare it with an offline replay.")
    ] = False,
    held_out: Annotated[
        Path | None, typer.Option(help="With --served: CSV or Parquet of held-out pairs of user_id and item_id.")
    ] = None,
    users: Annotated[int, typer.Option(min=1, help="With --served: query at most this many users.")] = 1_000,
    url: ServiceUrl = "",
) -> None:
    """Print the evaluation stored in a bundle and the path of its report, or evaluate the running service."""
    from handsell.bundles.opening import open_bundles
    from handsell.local.bundles import resolve_bundle
    from handsell.local.summary import print_report

    loaded = load(config)
    if served:
        from handsell.local.served import evaluate_served

        if not evaluate_served(loaded, held_out, users, url):
            raise typer.Exit(1)
        return
    store = open_bundles(loaded)
    path = store.local_path(resolve_bundle(store, bundle))
    print_report(json.loads((path / "report.json").read_text()))
    print(f"report: {path / 'report.html'}")


def quality(
    config: ConfigPath,
    days: Annotated[int, typer.Option(min=1, max=400, help="The last so many days, up to the newest slate.")] = 28,
    surface: Annotated[str | None, typer.Option(help="Slates of this surface only.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Print list metrics of the slates that were shown, by day: coverage, concentration, diversity, repetition."""
    from handsell.experiments.analysis.list_history import measure_days
    from handsell.experiments.analysis.text.list_history_text import print_days
    from handsell.experiments.analysis.text.verdict_values import clean_values
    from handsell.storage.published_state import open_published_state

    loaded = load(config)
    open_published_state(loaded).pull()
    found = measure_days(loaded, days, surface)
    if as_json:
        print(json.dumps(clean_values(found), indent=1))
    else:
        print_days(found)
