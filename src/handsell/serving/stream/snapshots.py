"""The item snapshot of the live bundle."""

from __future__ import annotations

from handsell.bundles.stages import load_snapshot
from handsell.bundles.store import BundleStore
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.paths import Layout
from handsell.serving.graph.loading import LIVE, resolve_bundle_id


class LiveSnapshot:
    """Returns the item snapshot of the live bundle; opens it again after a promotion."""

    def __init__(self, config: Config):
        self._config, self._store = config, BundleStore(Layout(config.state).bundles)
        self._opened: tuple[str, Snapshot] | None = None

    def __call__(self) -> Snapshot:
        bundle = resolve_bundle_id(self._config, LIVE)
        if self._opened is None or self._opened[0] != bundle:
            self._opened = bundle, load_snapshot(self._store.local_path(bundle))
        return self._opened[1]
