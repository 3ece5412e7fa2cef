"""Save and load the warm-up requests of a bundle: a replica answers them before it serves."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from handsell.core.batches import History, Profile, Ragged, Requests, Seen, to_object_array

NAME = "requests.npz"
MAX_REQUESTS = 32
PARTS = {"history": History, "profile": Profile, "seen": Seen}


def save_warm_up_requests(requests: Requests, folder: Path) -> None:
    """Save at most MAX_REQUESTS of the requests, evenly spaced, without their filters."""
    some = requests.take(
        np.unique(np.linspace(0, len(requests) - 1, min(MAX_REQUESTS, len(requests))).astype(np.int64))
    )
    if some.attributes is not None:  # as JSON: NumPy would pickle objects
        some = replace(some, attributes=np.array([json.dumps(cells) for cells in some.attributes.tolist()]))
    np.savez(folder / NAME, **_flatten_batch(some))  # type: ignore[arg-type]


def load_warm_up_requests(folder: Path) -> Requests | None:
    """Load the requests of a bundle, or None if it has none; raise ValueError or OSError if they cannot be read."""
    path = folder / NAME
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        requests = _build_batch(Requests, dict(arrays))
    if requests.attributes is None:
        return requests
    rows = [[tuple(c) if isinstance(c, list) else c for c in json.loads(text)] for text in requests.attributes]
    return replace(requests, attributes=to_object_array(rows, len(rows[0]) if rows else 0))


def _flatten_batch(batch: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Return every array of a batch and of the batches in it, by dotted name."""
    found: dict[str, np.ndarray] = {}
    for f in fields(batch):
        value, name = getattr(batch, f.name), prefix + f.name
        if isinstance(value, np.ndarray):
            found[name] = value
        elif isinstance(value, Ragged) or f.name in PARTS:
            found |= _flatten_batch(value, f"{name}.")
    return found


def _build_batch(kind: Any, arrays: dict[str, np.ndarray], prefix: str = "") -> Any:
    values: dict[str, Any] = {}
    for f in fields(kind):
        name = prefix + f.name
        if name in arrays:
            values[f.name] = arrays[name]
        elif f"{name}.values" in arrays:
            values[f.name] = Ragged(arrays[f"{name}.values"], arrays[f"{name}.offsets"])
        elif f.name in PARTS:
            values[f.name] = _build_batch(PARTS[f.name], arrays, f"{name}.")
    return kind(**values)
