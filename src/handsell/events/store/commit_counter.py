"""Counts the commits of a SQLite file beside it, so that commits which the file has lost are noticed.

Where a bit of the log of writes (`-wal`) has flipped, SQLite takes the rest of it for a write that a crash cut off, and
drops it without a word. The counter is a mapped file, which survives a killed process. After a power failure it may
be behind the file, never ahead of it.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import apsw

from handsell.events.store.sqlite_file import build_damage_error

_RECORD = struct.Struct("<QQQ")  # inode of the file, commits, their exclusive or
ADD_ONE = (
    "INSERT INTO offsets (name, last) VALUES ('commits', 1) ON CONFLICT (name) DO UPDATE SET last = last + 1 "
    "RETURNING last"
)


class CommitCounter:
    """The counter of one file; raises EventStoreError if the file has fewer commits than were acknowledged."""

    def __init__(self, path: Path, db: apsw.Connection):
        counter = path.with_suffix(".commits")
        if not counter.exists() or counter.stat().st_size != _RECORD.size:
            counter.write_bytes(bytes(_RECORD.size))
        with counter.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _RECORD.size)
        self._inode = path.stat().st_ino
        found = db.execute("SELECT last FROM offsets WHERE name = 'commits'").fetchall()
        stored = int(str(found[0][0])) if found else 0
        lost = self._read() - stored
        if lost > 0:
            self.close()
            raise build_damage_error(
                path, f"it lacks {lost} commits that were on disk; delete {counter} if you replaced it by an older one"
            )
        self.save(stored)

    def _read(self) -> int:
        """Return the commits of this file; 0 if the counter is of another one, or damaged."""
        inode, commits, check = _RECORD.unpack(self._map[:])
        return commits if inode == self._inode and check == inode ^ commits else 0

    def save(self, commits: int) -> None:
        self._map[:] = _RECORD.pack(self._inode, commits, self._inode ^ commits)

    def close(self) -> None:
        self._map.close()
