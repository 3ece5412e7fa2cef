"""Remove old files of a deployment: logs, folders of training runs, bundles."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from handsell.bundles.opening import open_bundles
from handsell.config import Config
from handsell.core.paths import Layout, find_ray_folder
from handsell.experiments.arm_bundles import ArmBundles
from handsell.experiments.state import open_states
from handsell.features.served_log import FEATURE_LOG

DAY_S = 86_400.0
WRITTEN_S = 3_600.0  # a log file that grew within this time is kept, whatever its size
RUNNING_S = DAY_S  # a run folder that changed within this time may belong to a running job
LATEST = "session_latest"  # Ray's link to the folder of the running session


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed: number of files or folders, and their bytes."""

    count: int = 0
    size: int = 0


def remove_old_logs(config: Config, now: float | None = None) -> Removed:
    """Remove log files without a line for `retention.logs_days`, then the oldest until they fit `retention.logs_mib`.

    Covers the deployment's log folder and the sessions of its local Ray cluster. The log of feature vectors limits its
    own rows and is kept.
    """
    now, settings = time.time() if now is None else now, config.retention
    removed = _remove_ended_sessions(find_ray_folder(config.state), now - settings.logs_days * DAY_S)
    found = sorted(_list_logs(config), key=lambda entry: entry[1])  # oldest first
    total = sum(size for _, _, size in found)
    for path, written, size in found:
        is_old = written < now - settings.logs_days * DAY_S
        if is_old or (total > settings.logs_mib * 2**20 and written < now - WRITTEN_S):
            path.unlink(missing_ok=True)
            total -= size
            removed = Removed(removed.count + 1, removed.size + size)
    return removed


def remove_old_runs(config: Config, now: float | None = None) -> Removed:
    """Remove the folders of training runs except the newest `retention.runs` and any that may still be written."""
    now, folder = time.time() if now is None else now, Layout(config.state).runs
    runs = sorted(path for path in folder.glob("*") if path.is_dir()) if folder.is_dir() else []
    old = runs[: max(len(runs) - config.retention.runs, 0)]
    return _remove_folders([run for run in old if _find_last_change(run) < now - RUNNING_S])


def remove_old_bundles(config: Config) -> tuple[str, ...]:
    """Remove all bundles but the live one, those for rollback and the newest; return their ids."""
    settings = config.retention
    arms = ArmBundles(config).update(open_states(config).read())
    return open_bundles(config).prune(settings.bundles, settings.rollbacks, arms.bundles)


def measure_folder(folder: Path) -> int:
    """Return the bytes on disk of all files in a folder; files that vanish meanwhile count as none."""
    return sum(size for _, _, size in _list_files(folder))


def _list_logs(config: Config) -> Iterator[tuple[Path, float, int]]:
    own = Layout(config.state).logs
    session = find_ray_folder(config.state) / LATEST / "logs"
    for folder in (own, session):
        yield from (entry for entry in _list_files(folder) if not entry[0].name.startswith(FEATURE_LOG))


def _list_files(folder: Path) -> Iterator[tuple[Path, float, int]]:
    """Yield (path, time of the last change in s, bytes on disk) of every file below a folder."""
    for parent, _, names in os.walk(folder):
        for path in (Path(parent) / name for name in names):
            try:
                status = path.lstat()
            except OSError:  # removed meanwhile
                continue
            yield path, status.st_mtime, status.st_blocks * 512


def _remove_ended_sessions(ray: Path, before: float) -> Removed:
    """Remove the folders of earlier Ray sessions in which nothing has changed since `before`."""
    latest = (ray / LATEST).resolve()
    sessions = [path for path in ray.glob("session_*") if path.is_dir() and path.resolve() != latest]
    return _remove_folders([path for path in sessions if _find_last_change(path) < before])


def _remove_folders(folders: Sequence[Path]) -> Removed:
    size = sum(map(measure_folder, folders))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return Removed(len(folders), size)


def _find_last_change(folder: Path) -> float:
    return max([folder.stat().st_mtime, *(written for _, written, _ in _list_files(folder))])
