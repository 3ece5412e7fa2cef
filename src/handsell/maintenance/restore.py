"""Restore a backup: check every file, prepare the whole state beside the present one, then exchange the two.

Nothing is changed before every file of the backup has been checked. The present state is moved aside, not deleted.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from handsell.config import Config
from handsell.core.paths import Layout
from handsell.events.store.opening import SQLITE, find_store
from handsell.maintenance.backup import STORE
from handsell.maintenance.backup_manifest import BackupError, BackupManifest, check_files, flush, read_manifest
from handsell.maintenance.publication import publish_state, require_unpublished
from handsell.maintenance.sqlite_tables import SqliteLoader
from handsell.maintenance.store_tables import load_tables

Report = Callable[[str], object]
PARTS = ("bundles", "catalog", "compacted", "data", "feast")  # folders of a backup that are restored as they are


def restore(config: Config, folder: Path, replace: bool = False, report: Report = lambda _: None) -> BackupManifest:
    """Restore a backup into the state folder and the event store of a config, which must not be in use.

    With `replace`, a state that exists is moved to a folder beside it, and the tables of a PostgreSQL store are
    emptied. Raises BackupError if the backup is damaged or incomplete, belongs to another deployment, or the state is
    in use.
    """
    manifest = read_manifest(folder)
    if manifest.config != config.name:
        raise BackupError(
            f"{folder} is a backup of {manifest.config}, the config is named {config.name}: give a config of that name"
        )
    _require_free(config, replace)
    if not replace:
        require_unpublished(config)
    check_files(folder, manifest)
    report(f"checked {len(manifest.files):,} files")
    fresh = config.state.with_name(f".{config.state.name}.restoring")
    shutil.rmtree(fresh, ignore_errors=True)  # of an interrupted run
    fresh.mkdir(parents=True)
    for part in PARTS:
        if (folder / part).is_dir():
            shutil.copytree(folder / part, fresh / part)
    if find_store(config) == SQLITE:
        _load_sqlite(Layout(fresh).event_log, folder, manifest)
    _flush_folder(fresh)
    if find_store(config) != SQLITE:
        _load_postgresql(config, folder, manifest, replace)
    report(f"event store: {manifest.rows.get('events', 0):,} events, {manifest.rows.get('slates', 0):,} slates")
    moved = _move_aside(config.state)
    _put_in_place(fresh, config.state)
    publish_state(config)
    if moved:
        report(f"the state until now is in {moved}: remove it when the restored service answers as expected")
    return manifest


def _require_free(config: Config, replace: bool) -> None:
    """Raise BackupError if a process writes the deployment's event log, or without `replace` if it has any state."""
    layout = Layout(config.state)
    lock = layout.event_log.with_suffix(".lock")
    if lock.exists():
        try:
            with FileLock(lock, mode=0o600).acquire(timeout=0):
                pass
        except Timeout:
            raise BackupError(
                f"{config.name} is running, it writes {layout.event_log}: stop it before a restore"
            ) from None
    mounts = [path for path in (layout.state, *layout.state.glob("*")) if path.is_mount()]
    if mounts:
        raise BackupError(
            f"{mounts[0]} is a mount point, which a restore cannot exchange: restore on a machine without"
        )
    there = [path for path in (layout.event_log, *(layout.state / part for part in PARTS)) if path.exists()]
    if there and not replace:
        raise BackupError(
            f"{there[0]} exists: `handsell restore CONFIG DIR --replace` moves the present state aside and restores"
        )


def _load_sqlite(path: Path, folder: Path, manifest: BackupManifest) -> None:
    """Create the store's file with the tables of the backup's version, fill it, and upgrade it to this version."""
    if not manifest.rows:
        return
    with closing(SqliteLoader(path, manifest.revision)) as loader:
        load_tables(folder / STORE, manifest.rows, manifest.last_offsets, loader)
        loader.commit()


def _load_postgresql(config: Config, folder: Path, manifest: BackupManifest, replace: bool) -> None:
    """Fill the tables of the database, in one transaction."""
    from handsell.maintenance.postgresql_tables import PostgresqlLoader  # of the extra `postgres`

    with closing(PostgresqlLoader(find_store(config), replace)) as loader:
        load_tables(folder / STORE, manifest.rows, manifest.last_offsets, loader)
        loader.commit()


def _move_aside(state: Path) -> Path | None:
    """Rename the present state; return its new path, None if there is no state."""
    if not state.exists():
        return None
    name = f"{state.name}.before-{time.strftime('%Y%m%dt%H%M%S', time.gmtime())}"
    moved = next(path for n in count() if not (path := state.with_name(f"{name}-{n}" if n else name)).exists())
    state.rename(moved)
    return moved


def _put_in_place(fresh: Path, state: Path) -> None:
    fresh.rename(state)
    flush(state.parent)


def _flush_folder(folder: Path) -> None:
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)
