"""Times at which the offline rows of a key change, read from the Parquet files of its views."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from handsell.features.views import CREATED, TIMESTAMP


def find_changes(files: Sequence[Path], key: str, ids: Sequence[str], times_us: np.ndarray) -> np.ndarray:
    """Return for each (id, time) the latest time, not after it, at which a row of the id becomes visible, (B,) µs.

    A row is visible from its timestamp and its `created` on. Before the first row of an id, any time will do: the
    earliest of `times_us` is returned.
    """
    times = np.asarray(times_us, np.int64)
    if not len(times):
        return times
    codes = pa.array(ids, pa.string()).dictionary_encode()
    changes = [_read_changes(file, key, codes.dictionary) for file in files]
    owner, when = (np.concatenate([one[i] for one in changes]) for i in (0, 1))
    every, place = np.unique(np.concatenate([when, times]), return_inverse=True)
    changed = np.unique(owner << 32 | place[: len(when)])
    wanted = codes.indices.to_numpy().astype(np.int64) << 32 | place[len(when) :]
    at = np.searchsorted(changed, wanted, side="right") - 1
    found = changed[np.maximum(at, 0)] if len(changed) else np.zeros(len(wanted), np.int64)
    known = (at >= 0) & (found >> 32 == wanted >> 32)
    return np.where(known, every[found & 0xFFFFFFFF], times.min())


def _read_changes(file: Path, key: str, ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return for the rows of some ids the id's position and the time at which the row becomes visible, (N,) int64."""
    table = pq.read_table(file, columns=[key, TIMESTAMP, CREATED])
    owner = pc.index_in(table[key], value_set=ids).combine_chunks()
    kept = pc.is_valid(owner)
    stamps = (
        table[name].filter(kept).cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()) for name in (TIMESTAMP, CREATED)
    )
    return owner.filter(kept).to_numpy().astype(np.int64), np.maximum(*(one.to_numpy() for one in stamps))
