"""Open the bundles of a deployment, in its state folder or in object storage."""

from __future__ import annotations

from handsell.bundles.object_storage import ObjectStorage
from handsell.bundles.storage import LocalStorage, Storage
from handsell.bundles.store import BundleStore
from handsell.config import Config
from handsell.core.paths import Layout
from handsell.storage.objects import Objects


def open_bundle_storage(config: Config, keeps_last: bool = False) -> Storage:
    """Open the storage of bundles; with `keeps_last` it reads what is known while object storage does not answer."""
    folder = Layout(config.state).bundles
    if config.storage_uri is None:
        return LocalStorage(folder)
    return ObjectStorage(Objects(f"{config.storage_uri}/bundles"), folder, keeps_last)


def open_bundles(config: Config, keeps_last: bool = False) -> BundleStore:
    return BundleStore(open_bundle_storage(config, keeps_last))
