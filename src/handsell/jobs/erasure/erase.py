"""Erase people: from the event store first, then from every file; the store keeps the id until nothing is left.

Every step may be repeated, so a run that was killed is continued by the next one: `handsell erase`, or the beginning of
`handsell train`.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from handsell.config import Config
from handsell.core.clock import Clock
from handsell.core.errors import HandsellError
from handsell.core.paths import Layout
from handsell.events.compacted_files import Kind, rewrite_ranges
from handsell.events.store.interface import Erasure
from handsell.events.store.opening import SQLITE, find_store, open_reader
from handsell.jobs.erasure.files import DRAFT, remove_from_file
from handsell.jobs.erasure.numbered import remove_numbered
from handsell.jobs.erasure.person import Person
from handsell.jobs.erasure.places import fetch_published, is_sealed, list_files, list_places
from handsell.jobs.erasure.search import Place, search
from handsell.jobs.store_writer import Write, open_store_writer
from handsell.storage.published_state import open_published_state

UNREADABLE = (OSError, sqlite3.Error, pa.ArrowInvalid, ValueError)
REPORTS = (".json", ".html", ".md", ".svg", ".png", ".csv", ".toml", ".log")  # of a training run, which stay
RUNNING_S = 600.0  # a run folder that changed within this time may belong to a running training

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ErasureOutcome:
    """What a run has removed by step, and where the people still are."""

    people: int
    removed: dict[str, int]
    left: tuple[str, ...]

    @property
    def finished(self) -> bool:
        return not self.left

    def to_text(self) -> str:
        steps = ", ".join(f"{count:,} from {step}" for step, count in self.removed.items() if count)
        text = f"{self.people} erased id{'s' * (self.people != 1)}: removed {steps or 'nothing more'}"
        return f"{text}; still to do: {'; '.join(self.left)}" if self.left else f"{text}; nothing is left"


def erase(config: Config, user_id: str, progress: Progress) -> ErasureOutcome:
    """Erase a person from the event store and all files. Raises EventStoreError if nothing was recorded."""
    with open_store_writer(config) as write:
        deleted = write("erase_user", user_id, Clock().now()).accepted
        progress(f"{deleted:,} rows deleted from the event store")
    return resume(config, progress)


def resume(config: Config, progress: Progress) -> ErasureOutcome:
    """Remove everyone from all files whose erasure is recorded and not finished."""
    with closing(open_reader(config)) as reader:
        pending = [erasure for erasure in reader.read_erasures() if erasure.user_id is not None]
    if not pending:
        return ErasureOutcome(0, {}, ())
    fetch_published(config)
    person, removed, left = Person(tuple(e.user_id for e in pending if e.user_id is not None)), {}, list[str]()
    for name, step in STEPS.items():
        progress(f"erasing: {name}")
        try:
            removed[name] = step(config, person, left.append)
        except HandsellError as error:
            left.append(f"{name}: {error}")
    if younger := _publish(config):
        left.append(f"object storage: {younger} files of a job that may be running; erase again in an hour")
    left += [
        f"{place.name}: {place.found} in {place.describe()}" for place in search(config, person) if _is_left(place)
    ]
    if not left:
        with open_store_writer(config) as write:
            _finish(write, pending)
    return ErasureOutcome(len(pending), removed, tuple(left))


def _publish(config: Config) -> int:
    """Replace the files in object storage by those without the people; return how many others are not listed there."""
    state = open_published_state(config)
    state.push()
    return state.remove_unlisted()


def _is_left(place: Place) -> bool:
    return not place.is_clean and place.name != "event store: erasures"  # which this run finishes


def _finish(write: Write, pending: list[Erasure]) -> None:
    for erasure in pending:
        write("finish_erasure", erasure.person)


def _remove_online(config: Config, person: Person, report: Progress) -> int:
    """Remove the online rows; where that fails, the search finds what is left of them, in a file or in Redis."""
    from handsell.features.store import open_store  # importing Feast takes seconds

    with suppress(HandsellError, OSError, sqlite3.Error):
        open_store(config).forget_users(person.ids)
    return 0


def _remove_compacted(config: Config, person: Person, report: Progress) -> int:
    def find_kept(rows: pa.Table) -> np.ndarray:
        if "kind" in rows.column_names:
            return ~(person.mark(rows["id"]) & np.asarray(pa.compute.equal(rows["kind"], "user")))
        return ~person.mark(rows["user_id"])

    folder = Layout(config.state).compacted
    kinds: tuple[Kind, ...] = ("events", "impressions", "changes")
    return sum(rewrite_ranges(folder, kind, find_kept) for kind in kinds) if folder.is_dir() else 0


def _remove_numbered(config: Config, person: Person, report: Progress) -> int:
    return remove_numbered(Layout(config.state), person)


def _remove_runs(config: Config, person: Person, report: Progress) -> int:
    """Delete the intermediate files of trainings, whose rows have numbers of users; reports stay."""
    folder, removed = Layout(config.state).runs, 0
    for run in sorted(path for path in folder.glob("*") if path.is_dir()) if folder.is_dir() else ():
        files = [path for path in list_files(run) if path.suffix not in REPORTS]
        if files and max(path.stat().st_mtime for path in files) > time.time() - RUNNING_S:
            report(f"training run {run.name}: it may be running; erase again in {RUNNING_S / 60:.0f} minutes")
            continue
        for path in files:
            path.unlink()
        removed += len(files)
        for inner in sorted((p for p in run.rglob("*") if p.is_dir()), reverse=True):
            if not any(inner.iterdir()):
                shutil.rmtree(inner)
    return removed


def _remove_from_files(config: Config, person: Person, report: Progress) -> int:
    """Remove people from every other file: features, online features, logs, batch slates, whatever is there."""
    removed = 0
    for paths in list_places(config).values():
        for path in paths:
            if path.name.endswith(DRAFT):  # of a run that was killed
                path.unlink(missing_ok=True)
            elif not is_sealed(config, path):
                try:
                    removed += remove_from_file(path, person)
                except FileNotFoundError:
                    continue
                except UNREADABLE as error:
                    report(f"{path}: {error}")
    return removed


def _empty_store_log(config: Config, person: Person, report: Progress) -> int:
    """Let the event store forget deleted rows: empty SQLite's log of writes, remove PostgreSQL's dead rows."""
    store = find_store(config)
    if store == SQLITE:
        from handsell.events.store.sqlite_file import connect_to_write

        path = Layout(config.state).event_log
        if path.is_file():
            with closing(connect_to_write(path)) as database:
                database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return 0
    from handsell.events.store.postgresql.connection import connect

    with closing(connect(store)) as connection:
        connection.autocommit = True
        for table in ("events", "slates", "catalog_changes", "identities", "blocks", "trimmed_keys"):
            connection.execute(f"VACUUM {table}")
    return 0


STEPS: dict[str, Callable[[Config, Person, Progress], int]] = {
    "online features": _remove_online,
    "compacted files": _remove_compacted,
    "numbered data": _remove_numbered,
    "training runs": _remove_runs,
    "other files": _remove_from_files,
    "event store": _empty_store_log,
}
