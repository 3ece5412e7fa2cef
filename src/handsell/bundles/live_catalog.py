"""The live catalog of a bundle: its items with the catalog changes that came after its training."""

from __future__ import annotations

import time

from handsell.bundles.manifest import Manifest
from handsell.catalog.snapshot import Snapshot
from handsell.config import Config
from handsell.core.errors import BundleError
from handsell.events.live_catalog import LiveCatalog
from handsell.events.store.opening import open_reader
from handsell.features.registry import find_features

FIRST_READ_S = 5.0  # for the store to answer, when a bundle is opened
RETRY_S = 0.2


class ChangesNotRead(BundleError):
    """The store does not answer, so that a bundle would show items that have been deleted."""


def open_live_catalog(config: Config, manifest: Manifest, snapshot: Snapshot) -> LiveCatalog:
    """Read the catalog changes after those that the bundle includes; raises ChangesNotRead."""
    untouched = {feature.name: feature.default for feature in find_features("item").values()}
    catalog = LiveCatalog(snapshot, open_reader(config), manifest.changes_through, untouched, config)
    until = time.monotonic() + FIRST_READ_S
    while True:
        try:
            catalog.read()
            return catalog
        except Exception as error:
            if time.monotonic() > until:
                raise ChangesNotRead(
                    f"bundle {manifest.id}: the catalog changes in the event store cannot be read ({error!r}), and "
                    "without them it would show deleted items: check events.store"
                ) from error
        time.sleep(RETRY_S)
