"""Where everything of one deployment lies under its state folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below `Config.state`; nothing is created by asking for one."""

    state: Path

    # data: canonical tables as the readers wrote them
    @property
    def events(self) -> Path:
        """Folder of Parquet parts in `handsell.data.schemas.EVENTS`."""
        return self.state / "data" / "events"

    @property
    def items(self) -> Path:
        """Parquet file in schema ITEMS plus extra columns; row order is first appearance."""
        return self.state / "data" / "items.parquet"

    @property
    def users(self) -> Path:
        return self.state / "data" / "users.parquet"

    @property
    def data_meta(self) -> Path:
        """JSON: source fingerprint, counts, time span, whether rows are ordered in time."""
        return self.state / "data" / "meta.json"

    @property
    def truth(self) -> Path:
        """True preferences of the world: only evaluation and the simulator may read them."""
        return self.state / "truth"

    # catalog and numbered log
    @property
    def catalog(self) -> Path:
        return self.state / "catalog"

    @property
    def interactions(self) -> Path:
        """Folder of part-00000.parquet …: numbered events, a user wholly in one part, sorted by user and time."""
        return self.state / "interactions"

    # features: the offline sources of Feast, and its registry and online store
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
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def steps(self) -> Path:
        """What `make up` has done, and on which inputs."""
        return self.state / "steps"
