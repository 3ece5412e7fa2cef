"""Back up a deployment while it serves: event store, catalog, compacted events, served bundles, online features.

The parts are copied one after another, each as of one moment, the event store first: an event that was acknowledged
before the backup began is in it. What a later part includes beyond that is harmless, because the offsets of the
restored store continue after the highest one that any part can name.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import handsell
from handsell.bundles.manifest import read_manifest as read_bundle_manifest
from handsell.bundles.opening import open_bundles
from handsell.bundles.store import BundleStore, Pointer
from handsell.config import Config
from handsell.core.errors import BundleError
from handsell.core.paths import Layout
from handsell.events.compacted_files import lock_compacted
from handsell.events.store.opening import SQLITE, find_store
from handsell.experiments.arm_bundles import ArmBundles
from handsell.experiments.state import ExperimentStates, StateFile, open_states
from handsell.features.repository import build_feast_settings
from handsell.maintenance.backup_manifest import (
    NAME,
    BackupError,
    BackupManifest,
    describe_file,
    find_files,
    write_manifest,
)
from handsell.maintenance.sqlite_tables import SqliteSnapshot, copy_database
from handsell.maintenance.store_tables import StoreSnapshot, read_last_offsets, write_tables

STORE = "store"  # folder of the store's tables in a backup; the other parts have the paths of the state folder
REGISTRY, MATERIALIZATION, ONLINE = "registry.db", "materialization.json", "online.db"
TRIES, WAIT_S = 20, 0.5  # for a folder that the data job replaces meanwhile

Report = Callable[[str], object]


def back_up(config: Config, folder: Path, report: Report = lambda _: None) -> BackupManifest:
    """Write a backup to a new or empty folder; `report` gets a line for each part.

    Raises BackupError if the folder is in use, EventStoreError if the store cannot be read, BundleError if the live
    bundle is damaged. Without its manifest, which is written last, a folder is no backup.
    """
    created = datetime.now(UTC).isoformat(timespec="seconds")
    _require_empty(folder)
    rows, engine, revision = _copy_store(config, folder / STORE)
    report(f"event store: {rows.get('events', 0):,} events, {rows.get('slates', 0):,} slates")
    live = _copy_bundles(config, folder)
    report(f"live bundle: {live or 'none'}")
    _copy_data(config, folder)
    report("catalog, compacted events and online features")
    with open_snapshot(config) as snapshot:
        last_offsets = read_last_offsets(snapshot) if snapshot else {}
    files = {name: describe_file(folder / name) for name in find_files(folder)}
    manifest = BackupManifest(
        config=config.name, created=created, handsell=handsell.__version__, engine=engine, revision=revision,
        rows=rows, last_offsets=last_offsets, live=live, files=files,
    )  # fmt: skip
    write_manifest(folder, manifest)
    return manifest


def stays_outside(config: Config) -> str | None:
    """Return what a backup of this deployment does not hold and how to get it back; None if it holds everything."""
    online = build_feast_settings(config)["online_store"]
    if "path" in online:
        return None
    return "the online features in Redis are not part of a backup: after a restore, `handsell materialize` writes them"


@contextmanager
def open_snapshot(config: Config) -> Iterator[StoreSnapshot | None]:
    """Open the store as of now; None for a SQLite file that no service has created yet."""
    store, path = find_store(config), Layout(config.state).event_log
    if store == SQLITE:
        if not path.exists():
            yield None
            return
        with closing(SqliteSnapshot(path)) as file:
            yield file
        return
    from handsell.maintenance.postgresql_tables import PostgresqlSnapshot  # of the extra `postgres`

    with closing(PostgresqlSnapshot(store)) as database:
        yield database


def _copy_store(config: Config, folder: Path) -> tuple[dict[str, int], str, str]:
    """Write the store's tables; return their rows, the engine and the revision of the tables."""
    with open_snapshot(config) as snapshot:
        if snapshot is None:
            return {}, SQLITE, ""
        snapshot.check()
        return write_tables(snapshot, folder), snapshot.engine, snapshot.read_revision()


def _copy_bundles(config: Config, folder: Path) -> str | None:
    """Copy the live bundle, those for rollback and for experiments, and their state; return the id of the live one."""
    store, target = open_bundles(config), folder / Layout(config.state).bundles.name
    pointer = store.pointer()
    if pointer.live is None:
        return None
    _copy_bundle(store, pointer.live, target)
    kept, previous = [], pointer.previous[max(len(pointer.previous) - config.retention.rollbacks, 0) :]
    states = open_states(config).read()
    arms = [bundle for bundle in ArmBundles(config).update(states).bundles if bundle not in (pointer.live, *previous)]
    for bundle in (*previous, *arms):
        try:
            _copy_bundle(store, bundle, target)
        except (BundleError, OSError):  # removed meanwhile, or of no use for a rollback
            shutil.rmtree(target / bundle, ignore_errors=True)
            continue
        kept.append(bundle)
    BundleStore(target).write_pointer(Pointer(pointer.live, tuple(b for b in previous if b in kept)))
    if states != ExperimentStates():
        StateFile(target).replace(states)
    return pointer.live


def _copy_bundle(store: BundleStore, bundle: str, target: Path) -> None:
    """Copy a bundle; raises BundleError if a copied file does not have the hash of the bundle's manifest."""
    copy = target / bundle
    shutil.copytree(store.local_path(bundle), copy)
    read_bundle_manifest(copy).check(copy)


def _copy_data(config: Config, folder: Path) -> None:
    """Copy the catalog, the keys of the tables' events, the compacted files, and Feast's registry and online store."""
    layout, here = Layout(config.state), Layout(folder)
    for source, target in ((layout.catalog, here.catalog), (layout.event_keys, here.event_keys)):
        if source.exists():
            _copy_settled(source, target)
    if layout.compacted.exists():
        with lock_compacted(layout.compacted):
            shutil.copytree(layout.compacted, here.compacted, ignore=shutil.ignore_patterns(".lock"))
    for name in (REGISTRY, MATERIALIZATION):
        if (layout.feast / name).is_file():
            here.feast.mkdir(exist_ok=True)
            shutil.copy2(layout.feast / name, here.feast / name)
    online = build_feast_settings(config)["online_store"].get("path")
    if online and Path(online).is_file():
        copy_database(Path(online), here.feast / ONLINE)


def _copy_settled(source: Path, target: Path) -> None:
    """Copy a folder that the data job replaces as a whole; again, if it was replaced meanwhile."""
    for _ in range(TRIES):
        try:
            before = source.stat().st_ino
            shutil.copytree(source, target)
            if source.stat().st_ino == before:
                return
        except (FileNotFoundError, shutil.Error):
            time.sleep(WAIT_S)
        shutil.rmtree(target, ignore_errors=True)
    raise BackupError(f"{source} was replaced again and again, or is incomplete: back up when no data job runs")


def _require_empty(folder: Path) -> None:
    """Create the folder; raises BackupError if it has files, such as those of an earlier backup."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        word = "a backup" if (folder / NAME).exists() else "files, perhaps of an interrupted backup"
        raise BackupError(f"{folder} has {word}: give a new folder, or remove this one")
    folder.mkdir(parents=True)
