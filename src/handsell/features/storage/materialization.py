"""The lock of those who write online rows, and the record by which the stream processor sees a `materialize`."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from handsell.core.errors import HandsellError
from handsell.core.json_files import read_json
from handsell.core.paths import Layout


@dataclass(frozen=True, slots=True)
class Materialization:
    """The last batch write of user rows; zeros before the first."""

    started_us: int = 0
    log_offset: int = 0  # the rows include the event log through this offset


def open_row_lock(layout: Layout) -> FileLock:
    """Return the lock that a process holds while it writes online rows; it is released when the process ends."""
    layout.feast.mkdir(parents=True, exist_ok=True)
    return FileLock(layout.feast / "online.lock", mode=0o600, thread_local=False)


def record_materialization(layout: Layout, log_offset: int) -> None:
    """Record a batch write before its first row, so that one that is killed half way is seen, too."""
    record = Materialization(time.time_ns() // 1_000, log_offset)
    path, draft = _path(layout), _path(layout).with_suffix(f".{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft.write_text(json.dumps(asdict(record)), encoding="utf-8")
    draft.replace(path)


def read_materialization(layout: Layout) -> Materialization:
    """Return the last batch write; one with offset 0 if its record is damaged."""
    path = _path(layout)
    try:
        modified = path.stat().st_mtime_ns // 1_000
    except FileNotFoundError:
        return Materialization()
    try:
        record = read_json(path, "run `handsell materialize` again")
        return Materialization(int(record["started_us"]), int(record["log_offset"]))
    except (HandsellError, KeyError, TypeError, ValueError):
        return Materialization(modified, 0)


def _path(layout: Layout) -> Path:
    return layout.feast / "materialization.json"
