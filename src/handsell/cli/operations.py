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
        raise HandsellError(f"{loaded.name} is running: stop it with `handsell down {config}` before a restore")
    manifest = run(loaded, folder, replace, report_update)
    report_result(f"{loaded.name} is as of {manifest.created}; live bundle: {manifest.live or 'none'}")


def audit(
    config: ConfigPath,
    since: Annotated[str | None, typer.Option(help="Only the entries of the last 24h, say.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each entry as one line of JSON.")] = False,
) -> None:
    """List who changed what: commands and requests that need scope catalog, experiments or admin; the oldest first."""
    from handsell.experiments.canary import parse_duration
    from handsell.maintenance import audit_log

    loaded = load(config)
    entries = audit_log.read_entries(loaded, None if since is None else parse_duration(since, "--since"))
    if as_json:
        for entry in entries:
            print(audit_log.to_json(entry))
        return
    from rich.console import Console

    console = Console()
    Console(width=max(console.width, 140)).print(audit_log.build_audit_table(entries))


def hash_ids(
    config: ConfigPath, ids: Annotated[list[str], typer.Argument(metavar="ID …", help="Ids of users or items.")]
) -> None:
    """Print the hash of each id, as it stands in log lines and in the audit log."""
    from handsell.core.logs.id_hashing import make_id_hash
    from handsell.core.paths import Layout

    hash_id = make_id_hash("hashed", Layout(load(config).state).log_key)
    for id_ in ids:
        print(hash_id(id_))
