"""The machine on which measurements were made."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = (
    "handsell", "ray", "feast", "xgboost", "faiss-cpu", "torch", "implicit", "scikit-learn",
    "numpy", "scipy", "pyarrow",
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, system, and the versions of Python and of the installed libraries."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "libraries": {name: found for name in LIBRARIES if (found := _find_version(name))},
    }


def _find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
