"""Where a deployment keeps data: the folders that are searched for a person, and how each is cleaned."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from handsell.bundles.opening import open_bundles
from handsell.config import Config
from handsell.core.paths import Layout, find_ray_folder
from handsell.storage.published_state import open_published_state

LOCKS = (".lock", ".data.lock")


def fetch_published(config: Config) -> None:
    """Bring what is in object storage to the state folder, where it is searched and cleaned."""
    if config.storage_uri is None:
        return
    open_published_state(config).pull()
    store = open_bundles(config)
    for bundle in store.list():
        store.local_path(bundle)


def list_places(config: Config) -> dict[str, list[Path]]:
    """Return the files of a deployment by place: the folders of its state, and the logs of its local Ray cluster.

    The event store is searched through its engine, and its file is not opened here.
    """
    layout = Layout(config.state)
    log = layout.event_log
    places: dict[str, list[Path]] = {}
    for path in list_files(config.state):
        if path.parent == log.parent and path.name.startswith(log.name):
            continue
        inner = path.relative_to(config.state).parts
        places.setdefault(inner[0] if len(inner) > 1 else ".", []).append(path)
    ray = [path for path in list_files(find_ray_folder(config.state)) if "logs" in path.parts]
    return places | ({f"{find_ray_folder(config.state)}": ray} if ray else {})


def list_files(folder: Path) -> Iterator[Path]:
    """Yield the regular files below a folder, sorted by folder; links are not followed."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent) / name
            if path.is_file() and not path.is_symlink() and not name.endswith(LOCKS):
                yield path


def describes_items(layout: Layout, path: Path) -> bool:
    """Whether a file describes items, not people; an item may have the id of a user, and a creator may be one."""
    if path == layout.items or layout.snapshot in path.parents or layout.console in path.parents:
        return True
    if layout.bundles in path.parents:
        return "snapshot" in path.relative_to(layout.bundles).parts
    for folder in (layout.catalog, layout.features):
        if folder in path.parents:
            first = path.relative_to(folder).parts[0]
            return first in ("items", "creators", "tags") or first.startswith("item_")
    return False


def is_sealed(config: Config, path: Path) -> bool:
    """Whether a file is not rewritten: of a bundle, which is hashed, of items, or cleaned in an earlier step."""
    layout = Layout(config.state)
    folders = (layout.bundles, layout.truth, layout.catalog, layout.event_keys, layout.compacted, layout.interactions)
    return describes_items(layout, path) or path == layout.users or any(folder in path.parents for folder in folders)
