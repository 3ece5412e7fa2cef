"""Publish a whole state folder in object storage: after a restore, or to move a deployment there."""

from __future__ import annotations

from handsell.bundles.object_storage import ObjectStorage
from handsell.bundles.opening import open_bundle_storage
from handsell.bundles.storage import LocalStorage
from handsell.bundles.store import POINTER
from handsell.config import Config
from handsell.core.paths import Layout
from handsell.experiments.state import STATE, ExperimentStates
from handsell.maintenance.backup_manifest import BackupError
from handsell.storage.published_state import open_published_state


def require_unpublished(config: Config) -> None:
    """Raise BackupError if object storage holds a deployment of this name already."""
    storage = open_bundle_storage(config)
    if isinstance(storage, ObjectStorage) and (storage.read(POINTER) or not open_published_state(config).is_empty()):
        raise BackupError(
            f"{config.storage_uri} holds a deployment: `handsell restore CONFIG DIR --replace` replaces its data, "
            "and what is live"
        )


def publish_state(config: Config) -> None:
    """Make what is in the state folder the published state, with its bundles, live pointer and experiments.

    Other bundles in object storage stay. Without object storage, nothing is done.
    """
    remote, local = open_bundle_storage(config), LocalStorage(Layout(config.state).bundles)
    if not isinstance(remote, ObjectStorage):
        return
    there = remote.names()
    for name in local.names():
        if name not in there:
            remote.upload(local.local / name, name)
    open_published_state(config).push(force=True)
    remote.write(STATE, local.read(STATE) or ExperimentStates().model_dump_json().encode())
    if pointer := local.read(POINTER):  # last: what it names is there
        remote.write(POINTER, pointer)
