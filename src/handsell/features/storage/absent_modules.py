"""Import a package without one that it would import only to support it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class AbsentModule(MetaPathFinder):
    """Finds a module to be missing."""

    def __init__(self, name: str):
        self._name = name

    def find_spec(self, name: str, *_: Any) -> None:
        if name == self._name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


class AwaitedModule(MetaPathFinder):
    """Calls a function after the first import of a module."""

    def __init__(self, name: str, act: Callable[[], None]):
        self._name, self._act = name, act

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        """Return the module's own spec, with an execution that calls the function afterwards."""
        if name != self._name or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            self._act()

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec


@contextmanager
def leave_out(name: str) -> Iterator[None]:
    """Make an import of a module fail as if it were not installed, unless it is imported already."""
    finder = AbsentModule(name)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
