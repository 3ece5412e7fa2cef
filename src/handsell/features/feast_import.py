"""`import feast` without what it does to the process: 0.8 s of CPU instead of 6, for every gateway and worker.

Feast 0.67 does three things when it is imported. It rewrites its classes to check the types of all arguments
(typeguard; 4 s): the stock command, which registers a deployment's views, still does. It imports torch if it is there
(1 s, 200 MiB), for conversions to tensors that are not used here. And it makes prometheus_client count in files that
every registry and child process shares, so that metrics of several services would add up.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import prometheus_client  # noqa: F401 - before Feast, as it chooses where to count when it is imported
import typeguard


@contextmanager
def _unchecked() -> Iterator[None]:
    """typeguard's decorator changes nothing."""
    check = typeguard.typechecked

    def unchanged(target: Any = None, **_: Any) -> Any:
        return (lambda later: later) if target is None else target

    typeguard.typechecked = unchanged
    try:
        yield
    finally:
        typeguard.typechecked = check


@contextmanager
def _without_torch() -> Iterator[None]:
    """`import torch` fails as where it is not installed, unless it is imported already."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]


with _unchecked(), _without_torch():
    import feast

for _name in ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR"):
    if "feast_metrics_" in (_folder := os.environ.get(_name, "")):
        del os.environ[_name]  # it is for this process's children too: Ray's workers
        with suppress(OSError):  # Feast made the folder, too
            Path(_folder).rmdir()

__all__ = ["feast"]
