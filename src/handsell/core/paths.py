"""Paths of a deployment below its state folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

MAX_TEMPORARY = 24  # bytes of a temporary folder; the paths of Ray's sockets below it are up to 83 longer


def is_uri(path: str) -> bool:
    """Return whether a path is a URI, such as s3://bucket/folder."""
    return "://" in path


def find_socket_folder() -> Path:
    """Return a folder for sockets, whose paths have at most 107 bytes: the temporary folder, or /tmp if it is long."""
    folder = tempfile.gettempdir()
    return Path(folder if len(os.fsencode(folder)) <= MAX_TEMPORARY else "/tmp")


def find_ray_folder(state: Path) -> Path:
    """Return the folder of a deployment's local Ray cluster, outside the state folder because of its sockets."""
    return find_socket_folder() / f"handsell-{hashlib.sha256(str(state).encode()).hexdigest()[:8]}"


def has_content(*paths: Path) -> bool:
    """Return whether all paths exist, no folder lacks files, and no file is empty, as a full disk may leave it."""
    files = [[path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()] for path in paths]
    return all(files) and all(file.stat().st_size > 0 for found in files for file in found)


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below `Config.state`. Reading a property creates nothing."""

    state: Path

    # canonical tables, with the changes that came over HTTP
    @property
    def items(self) -> Path:
        """Parquet file in schema ITEMS plus extra columns, in order of first appearance."""
        return self.state / "data" / "items.parquet"

    @property
    def users(self) -> Path:
        return self.state / "data" / "users.parquet"

    @property
    def event_keys(self) -> Path:
        """Folder of the sorted keys of the source's events, in files per partition of users."""
        return self.state / "data" / "keys"

    @property
    def data_meta(self) -> Path:
        """JSON: source fingerprint, counts, time span, whether rows are ordered in time."""
        return self.state / "data" / "meta.json"

    @property
    def truth(self) -> Path:
        """True preferences of the synthetic world; only evaluation and the simulator may read them."""
        return self.state / "truth"

    # catalog and numbered log
    @property
    def catalog(self) -> Path:
        return self.state / "catalog"

    @property
    def interactions(self) -> Path:
        """Numbered events in partitions of users; `handsell.data.interaction_parts` reads them."""
        return self.state / "interactions"

    @property
    def compacted(self) -> Path:
        """Copies of closed offset ranges of the event store as Parquet files by date; see events/compaction.py."""
        return self.state / "compacted"

    # offline sources of Feast, its registry and online store
    @property
    def features(self) -> Path:
        """One folder of Parquet parts per feature view, named after the view."""
        return self.state / "features"

    @property
    def feast(self) -> Path:
        return self.state / "feast"

    @property
    def snapshot(self) -> Path:
        """The newest item snapshot."""
        return self.state / "snapshot"

    # training and serving
    @property
    def runs(self) -> Path:
        return self.state / "runs"

    @property
    def bundles(self) -> Path:
        return self.state / "bundles"

    @property
    def event_log(self) -> Path:
        """SQLite file of the durable event log."""
        return self.state / "events" / "log.db"

    @property
    def rules(self) -> Path:
        """Published versions of the file of business rules, and drafts of the console."""
        return self.state / "rules"

    @property
    def console(self) -> Path:
        """What the console computes: the words of the catalog, for its search."""
        return self.state / "console"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def log_key(self) -> Path:
        """The key by which ids are hashed in logs; readable by its owner alone."""
        return self.state / "run" / "log.key"

    @property
    def steps(self) -> Path:
        """Completed steps of `make up` and the inputs of each."""
        return self.state / "steps"
