"""The truth of a world on disk: a NumPy archive for the catalog, and one per partition of users.

Only evaluation may read this folder and import `oracle`.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from handsell.core.errors import DataError
from handsell.data.config import WorldConfig
from handsell.data.world.catalog import Catalog, Groups
from handsell.data.world.listeners import Listeners


def write_catalog(world: WorldConfig, tracks: Catalog, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "world.json").write_text(world.model_dump_json(indent=1))
    _save(folder / "catalog.npz", _flat(tracks))


def write_listeners(people: Listeners, folder: Path, partition: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / f"users-{partition:05d}.npz", _flat(people))


def read(folder: Path) -> tuple[WorldConfig, Catalog, Listeners]:
    """Read the truth; raise DataError if the folder is not one or a partition is missing."""
    try:
        world = WorldConfig.model_validate(json.loads((folder / "world.json").read_text()))
        with np.load(folder / "catalog.npz", allow_pickle=False) as archive:
            tracks = _unflat(Catalog, archive)
        parts = []
        for path in sorted(folder.glob("users-*.npz")):
            with np.load(path, allow_pickle=False) as archive:
                parts.append({name: archive[name] for name in archive.files})
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"expected the truth of a world in {folder}, got {error}; run handsell data again") from None
    people = Listeners(**{f.name: np.concatenate([p[f.name] for p in parts]) for f in fields(Listeners)})
    if len(people) != world.users:
        raise DataError(
            f"{folder}: expected the truth of {world.users} users, got {len(people)}; run handsell data again"
        )
    return world, tracks, people


def _flat(thing: Any) -> dict[str, np.ndarray]:
    flat = {}
    for f in fields(thing):
        value = getattr(thing, f.name)
        nested = _flat(value) if isinstance(value, Groups) else {"": value}
        flat.update({f"{f.name}.{name}".rstrip("."): array for name, array in nested.items()})
    return flat


def _unflat(kind: type, archive: Any) -> Any:
    groups = {n.split(".")[0] for n in archive.files if "." in n}
    nested = {g: Groups(**{f.name: archive[f"{g}.{f.name}"] for f in fields(Groups)}) for g in groups}
    return kind(**nested, **{n: archive[n] for n in archive.files if "." not in n})


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a temporary file and rename it, so that the file is complete or absent."""
    temporary = path.with_suffix(".part.npz")
    np.savez(temporary, allow_pickle=False, **arrays)
    temporary.rename(path)
