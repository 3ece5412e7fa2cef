"""Sorted keys of events on disk: for each partition of users a large file and small ones of later runs.

    keys/part-00000.npy  keys/part-00000-000004.npy

They are mapped and searched, never read whole, so that looking up new keys does not cost the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

MOST_FILES, SHARE = 16, 0.2  # later files are merged into the large one when they are more, or a larger share of it


def save_keys(folder: Path, partition: int, keys: np.ndarray, run: int = 0) -> None:
    """Write distinct keys (N,) int64 of a partition; run 0 is the large file."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / (f"part-{partition:05d}-{run:06d}.npy" if run else f"part-{partition:05d}.npy"), np.sort(keys))


def list_key_files(folder: Path, partition: int) -> list[Path]:
    """Return the files of a partition, the large one first."""
    return sorted(folder.glob(f"part-{partition:05d}*.npy"), key=lambda path: (len(path.name), path.name))


def map_keys(paths: Sequence[Path]) -> list[np.ndarray]:
    return [np.asarray(np.load(path, mmap_mode="r")) for path in paths]


def find_keys(runs: Sequence[np.ndarray], wanted: np.ndarray) -> np.ndarray:
    """Return which of the keys (N,) are in one of the sorted runs, (N,) bool."""
    found = np.zeros(len(wanted), bool)
    for known in runs:
        place = np.searchsorted(known, wanted)
        inside = place < len(known)
        inside[inside] = known[place[inside]] == wanted[inside]
        found |= inside
    return found


def should_merge(sizes: Sequence[int]) -> bool:
    """Return whether later files, after the first one, are many or large enough to be merged into it."""
    return len(sizes) > MOST_FILES or sum(sizes[1:]) > SHARE * sizes[0]
