"""Import a package without one that it would import only to support it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from typing import Any


class AbsentModule(MetaPathFinder):
    """Finds a module to be missing."""

    def __init__(self, name: str):
        self._name = name

    def find_spec(self, name: str, *_: Any) -> None:
        if name == self._name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextmanager
def leave_out(name: str) -> Iterator[None]:
    """Make an import of a module fail as if it were not installed, unless it is imported already."""
    finder = AbsentModule(name)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
