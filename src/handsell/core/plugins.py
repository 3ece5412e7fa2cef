"""Discovery of plug-ins: a module-level object registers a retriever, feature or rule.

Built-in modules are found by scanning their package. Other installed packages name their modules as entry points:

    [project.entry-points."handsell.plugins"]
    shop = "shop_recommender.plugins"
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import ClassVar, TypeVar

from handsell.core.errors import ConfigError

ENTRY_POINTS = "handsell.plugins"

P = TypeVar("P", bound="Plugin")


@dataclass(frozen=True)
class Plugin:
    """Base of registration objects; each kind is a subclass that names the built-in package to scan."""

    package: ClassVar[str]  # such as "handsell.retrieval.models"
    name: str  # unique among plug-ins of the kind


@cache
def find_plugins(kind: type[P]) -> dict[str, P]:
    """Return all plug-ins of a kind by name: built-in ones in module order, then those of installed packages.

    Raises ConfigError if a package cannot be imported or a name is registered twice.
    """
    found: dict[str, P] = {}
    where: dict[str, str] = {}
    for module in (*_built_in(kind.package), *import_plugins()):
        for plugin in vars(module).values():
            if not isinstance(plugin, kind) or found.get(plugin.name) is plugin:
                continue
            if plugin.name in found:
                raise ConfigError(
                    f"{kind.__name__} {plugin.name!r} is registered by {where[plugin.name]} and by {module.__name__}: "
                    "rename one, or uninstall its package"
                )
            found[plugin.name], where[plugin.name] = plugin, module.__name__
    return found


def _built_in(package: str) -> Iterator[ModuleType]:
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        yield importlib.import_module(f"{package}.{module.name}")


def import_plugins() -> Iterator[ModuleType]:
    """Import the modules of installed plug-ins; raises ConfigError if one cannot be imported."""
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        try:
            yield importlib.import_module(point.module)
        except Exception as error:
            raise ConfigError(
                f"plug-in {point.name} ({point.value}) cannot be imported: {type(error).__name__}: {error}; "
                "correct it, or uninstall its package"
            ) from error
