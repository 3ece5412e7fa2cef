"""Commands for source data."""

from __future__ import annotations

import typer

from handsell.cli.arguments import ConfigPath, DataPath, load, load_on_cluster


def doctor(config: ConfigPath, data: DataPath = None) -> None:
    """Check the source data before training; exit with status 1 if it cannot be used."""
    from handsell.doctor.inspection import examine, render

    report = examine(load(config, data))
    render(report)
    if not report.ok:
        raise typer.Exit(1)


def data(config: ConfigPath, data: DataPath = None) -> None:
    """Read the source data and write it as Parquet with numbered users and items."""
    loaded = load_on_cluster(config, data)

    from handsell.jobs.ingest.ingest import prepare
    from handsell.jobs.progress import report_result
    from handsell.storage.published_state import synchronize

    with synchronize(loaded):
        counts = prepare(loaded)
    report_result(f"{counts['events']:,} events, {counts['users']:,} users, {counts['items']:,} items")


def compact(config: ConfigPath) -> None:
    """Copy new events, impressions and catalog changes from the event store to Parquet files by date."""
    loaded = load(config)

    from handsell.events.compaction import compact as copy
    from handsell.jobs.progress import report_result, report_update
    from handsell.storage.published_state import synchronize

    with synchronize(loaded):
        copied = copy(loaded, report_update)
    report_result(copied.to_text())
