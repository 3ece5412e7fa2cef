"""The catalog of the live bundle, with the changes since."""

from __future__ import annotations

from handsell.bundles.manifest import Manifest
from handsell.bundles.opening import open_bundles
from handsell.bundles.stages import load_snapshot
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.serving.graph.loading import LIVE, follow_catalog, resolve_bundle_id


class ServedCatalog:
    """Follows the live bundle and its catalog, as gateways do."""

    def __init__(self, config: Config):
        self._config, self._store = config, open_bundles(config, keeps_last=True)
        self._bundle = ""

    def snapshot(self) -> Snapshot:
        """Return the newest version of the live bundle's catalog."""
        self.follow()
        return self._catalog.snapshot

    def follow(self) -> Manifest:
        """Open the live bundle's catalog after a promotion; return its manifest."""
        bundle = resolve_bundle_id(self._config, LIVE)
        if bundle != self._bundle:
            manifest = self._store.show(bundle)
            self._catalog = follow_catalog(self._config, manifest, load_snapshot(self._store.local_path(bundle)))
            self._manifest, self._bundle = manifest, bundle
        return self._manifest
