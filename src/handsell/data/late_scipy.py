"""Modules of SciPy that are imported when something of them is used: most replicas do without, and save 15 MiB each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scipy import linalg, sparse, special

    __all__ = ["linalg", "sparse", "special"]
else:

    class LateModule:
        """Stands for a module until an attribute of it is read."""

        def __init__(self, name: str):
            self._name = name

        def __getattr__(self, name: str) -> Any:
            value = getattr(import_module(self._name), name)
            setattr(self, name, value)  # the next read finds it
            return value

    linalg, sparse, special = (LateModule(f"scipy.{name}") for name in ("linalg", "sparse", "special"))
