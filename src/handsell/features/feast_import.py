"""Import Feast without its side effects: 0.8 s of CPU instead of 6 s in every gateway and worker.

The import of Feast 0.67 has three side effects, which this module prevents:
- typeguard rewrites its classes to check the types of all arguments (4 s); the `feast` command keeps these checks;
- it imports torch if that is installed (1 s, 200 MiB), for conversions to tensors that handsell does not use;
- it switches prometheus_client to files that all registries and child processes share, so that the metrics of several
  services would be added up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import prometheus_client  # noqa: F401 - before Feast: it chooses files or memory at import
import typeguard

from handsell.features.storage.absent_modules import leave_out


@contextmanager
def _unchecked() -> Iterator[None]:
    """Make typeguard's decorator return its argument unchanged."""
    check = typeguard.typechecked

    def leave_unchanged(target: Any = None, **_: Any) -> Any:
        return (lambda later: later) if target is None else target

    typeguard.typechecked = leave_unchanged
    try:
        yield
    finally:
        typeguard.typechecked = check


with _unchecked(), leave_out("torch"):
    import feast

for _name in ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR"):
    if "feast_metrics_" in (_folder := os.environ.get(_name, "")):
        del os.environ[_name]  # child processes (Ray's workers) would inherit it
        with suppress(OSError):  # Feast also created the folder
            Path(_folder).rmdir()

__all__ = ["feast"]
