"""Keys of the events that the tables have, which the feature rows of users count already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from handsell.data.key_runs import find_keys, list_key_files, map_keys, save_keys


def save_table_keys(folder: Path, partition: int, keys: np.ndarray) -> None:
    """Write the keys (N,) int64 of one partition, in which user u is if u % partitions = partition."""
    save_keys(folder, partition, keys)


@dataclass
class TableKeys:
    """Sorted keys in mapped files per partition; read again when the data step has replaced the folder."""

    folder: Path
    _version: tuple[int, int] | None = None
    _parts: list[list[np.ndarray]] = field(default_factory=list)

    def contain(self, user: int, keys: Sequence[int | None]) -> np.ndarray:
        """Return which keys (N,) of a user's events the tables have, (N,) bool; none without the folder."""
        parts = self._load()
        wanted = np.array([key or 0 for key in keys], np.int64)
        if not parts or user < 0:
            return np.zeros(len(wanted), bool)
        return find_keys(parts[user % len(parts)], wanted)

    def _load(self) -> list[list[np.ndarray]]:
        """Return the keys of each partition; none while the folder is missing or being replaced."""
        try:
            about = self.folder.stat()
            if self._version != (about.st_ino, about.st_mtime_ns):
                partitions = sorted({path.name[:10] for path in self.folder.glob("part-*.npy")})
                self._parts = [map_keys(list_key_files(self.folder, int(name[5:]))) for name in partitions]
                self._version = (about.st_ino, about.st_mtime_ns)
        except OSError:
            self._version, self._parts = None, []
        return self._parts
