"""Commands that keep a deployment small and safe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from handsell.cli.arguments import ConfigPath, load, load_on_cluster
from handsell.core.errors import HandsellError


def clean(config: ConfigPath) -> None:
    """Remove old events, impressions, bundles, training runs and logs, as [retention] in the configuration says."""
    loaded = load_on_cluster(config)

    from handsell.jobs.cleaning import clean_on_cluster
    from handsell.jobs.progress import report_result
    from handsell.storage.published_state import synchronize

    with synchronize(loaded):
        outcome = clean_on_cluster(loaded)
    report_result(outcome)


def backup(
    config: ConfigPath, folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder.")]
) -> None:
    """Back up event store, catalog and served bundles to a folder, also while the service runs."""
    from handsell.jobs.progress import report_result, report_update
    from handsell.maintenance.backup import back_up, stays_outside
    from handsell.storage.published_state import open_published_state

    loaded = load(config)
    open_published_state(loaded).pull()
    manifest = back_up(loaded, folder, report_update)
    if note := stays_outside(loaded):
        report_update(note)
    size = sum(entry.size for entry in manifest.files.values())
    report_result(f"{folder}: {len(manifest.files):,} files, {size / 1e6:,.1f} MB")


def restore(
    config: ConfigPath,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `handsell backup` has written.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Move the present state aside, and empty the tables of PostgreSQL.")
    ] = False,
) -> None:
    """Restore a backup, after checking every file of it, while the service does not run."""
    from handsell.jobs.progress import report_result, report_update
    from handsell.local import cluster
    from handsell.maintenance.restore import restore as run

    loaded = load(config)
    if cluster.find_running(loaded) is not None:
        raise HandsellError(f"{loaded.name} is running: stop it with `make down CONFIG={config}` before a restore")
    manifest = run(loaded, folder, replace, report_update)
    report_result(f"{loaded.name} is as of {manifest.created}; live bundle: {manifest.live or 'none'}")
