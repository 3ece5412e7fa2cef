"""A bundle in this process with the stores that its requests read: batch slates, replays and simulations use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from handsell.bundles.live_catalog import open_live_catalog
from handsell.bundles.stages import Stages, apply_choices, load_stages
from handsell.bundles.store import BundleStore
from handsell.catalog.vocabulary import Vocabulary
from handsell.config import Config
from handsell.core.batches import Requests
from handsell.core.failures import Failures
from handsell.core.paths import Layout
from handsell.events.live_catalog import LiveCatalog
from handsell.events.store.interface import EventReader
from handsell.features.request_builder import QueryBatch, build_requests
from handsell.features.row_columns import change_attributes
from handsell.features.storage.online_rows import OnlineRows
from handsell.features.store import FeatureStore, open_store


@dataclass
class LocalBundle:
    """Stages, live catalog and feature store of one bundle."""

    config: Config  # with the choices of the bundle's training
    stages: Stages  # on the catalog as of the last `read_changes`
    catalog: LiveCatalog
    store: FeatureStore
    users: Vocabulary

    @classmethod
    def open(cls, config: Config, bundle: str) -> LocalBundle:
        """Load a bundle by id; raises BundleError for one that is incomplete."""
        layout = Layout(config.state)
        bundles = BundleStore(layout.bundles)
        path = bundles.local_path(bundle)
        config = apply_choices(config, path)
        stages = load_stages(path, config)
        catalog = open_live_catalog(config, bundles.show(bundle), stages.snapshot)
        return cls(config, stages, catalog, open_store(config), Vocabulary.load(layout.catalog / "users"))

    def read_changes(self) -> None:
        """Apply the catalog changes since the last time; raises EventStoreError."""
        self.catalog.read()
        if self.catalog.snapshot is not self.stages.snapshot:
            self.stages = self.stages.with_snapshot(self.catalog.snapshot)

    def build_requests(
        self, user_ids: Sequence[str], time: np.ndarray, surface: str, reader: EventReader, away: int | None = None
    ) -> Requests:
        """Build requests as the gateway does at times (B,) µs; `away` µs as in `build_requests_from_rows`."""
        n, config = len(user_ids), self.config
        queries = QueryBatch.of(user_ids, time, np.full(n, config.surface_names.index(surface), np.int8))
        rows = change_attributes(OnlineRows(self.store, config).read(user_ids), user_ids, self.catalog.users)
        built = build_requests(
            queries, rows, reader, self.stages.snapshot, config, Failures(strict=True), without_later_events=True,
            away=None if away is None else np.full(n, away),
        )  # fmt: skip
        return built.requests
