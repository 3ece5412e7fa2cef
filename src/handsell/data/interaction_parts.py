"""The parts of the numbered log on disk: a settled file per partition of users, and files of later events.

    interactions/part-00000.parquet             SETTLED: the events of users u with u % partitions = 0
    interactions/new/part-00000-000004.parquet  KEYED: events that a later run has read, not merged yet
    interactions/_order.json                    the parts of the source in log order

Readers merge them, so that a run of the data step writes new events only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from handsell.data.interactions import NUMBERED
from handsell.data.numbering import SETTLED, settle_events, unsettle_events

ROW_GROUP = 131_072  # rows; a search for a few users reads their groups only


def list_parts(folder: Path) -> list[Path]:
    """Return the file of each partition; `read_part` reads it with its later events."""
    return sorted(folder.glob("part-*.parquet"))


def list_later_files(part: Path) -> list[Path]:
    """Return the files of later events of a partition, in the order of the runs that wrote them."""
    return sorted((part.parent / "new").glob(f"{part.stem}-*.parquet"))


def read_part(part: Path, columns: Sequence[str] = tuple(NUMBERED.names)) -> pa.Table:
    """Read columns of NUMBERED of a partition's events, sorted by user and time."""
    if not list_later_files(part):
        return pq.read_table(part, columns=list(columns))
    return merge_part(part).select(list(columns))


def merge_part(part: Path) -> pa.Table:
    """Return the events of a partition as SETTLED; users without later events stay as they are."""
    base = pq.read_table(part)
    tables = [pq.read_table(path) for path in list_later_files(part)]
    if not tables:
        return base
    later = pa.concat_tables(tables)
    size = max(int(np.max(table["user"].to_numpy(), initial=0)) for table in (base, later)) + 1
    touched = np.zeros(size, bool)
    touched[later["user"].to_numpy()] = True
    old = touched[base["user"].to_numpy()]
    rows = pa.concat_tables([unsettle_events(base.filter(pa.array(old))), later])
    whole = pa.concat_tables([base.filter(pa.array(~old)), settle_events(rows, read_order(part.parent))])
    return whole.take(pa.array(np.argsort(whole["user"].to_numpy(), kind="stable")))


def read_users(part: Path, users: np.ndarray) -> pa.Table:
    """Return the settled events of a few users of a partition."""
    chosen = [("user", "in", users.tolist())]
    tables = [unsettle_events(pq.read_table(part, filters=chosen))]
    tables += [pq.read_table(path, filters=chosen) for path in list_later_files(part)]
    return settle_events(pa.concat_tables(tables), read_order(part.parent))


def write_part(part: Path, rows: pa.Table) -> None:
    """Write the settled events of a partition."""
    part.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows.cast(SETTLED), part, row_group_size=ROW_GROUP)


def write_order(folder: Path, order: list[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "_order.json").write_text(json.dumps(order))


def read_order(folder: Path) -> list[int]:
    """Return the parts of the source in log order."""
    path = folder / "_order.json"
    return json.loads(path.read_text()) if path.is_file() else []
