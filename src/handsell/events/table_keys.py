"""Keys of the events that the tables have, which the feature rows of users count already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


def save_table_keys(folder: Path, partition: int, keys: np.ndarray) -> None:
    """Write the keys (N,) int64 of one partition, in which user u is if u % partitions = partition."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"part-{partition:05d}.npy", np.sort(keys))


@dataclass
class TableKeys:
    """Sorted keys in one mapped file per partition; read again when the data step has replaced the folder."""

    folder: Path
    _version: tuple[int, int] | None = None
    _parts: list[np.ndarray] = field(default_factory=list)

    def contain(self, user: int, keys: Sequence[int | None]) -> np.ndarray:
        """Return which keys (N,) of a user's events the tables have, (N,) bool; none without the folder."""
        parts = self._load()
        wanted = np.array([key or 0 for key in keys], np.int64)
        if not parts or user < 0:
            return np.zeros(len(wanted), bool)
        known = parts[user % len(parts)]
        place = np.searchsorted(known, wanted)
        inside = place < len(known)
        inside[inside] = known[place[inside]] == wanted[inside]
        return inside

    def _load(self) -> list[np.ndarray]:
        """Return the keys of each partition; none while the folder is missing or being replaced."""
        try:
            about = self.folder.stat()
            if self._version != (about.st_ino, about.st_mtime_ns):
                paths = sorted(self.folder.glob("part-*.npy"))
                self._parts = [np.asarray(np.load(path, mmap_mode="r")) for path in paths]
                self._version = (about.st_ino, about.st_mtime_ns)
        except OSError:
            self._version, self._parts = None, []
        return self._parts
