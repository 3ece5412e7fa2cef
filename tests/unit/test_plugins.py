"""Plug-ins are found in the built-in package and in installed packages, each name once."""

import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import ClassVar

import pytest

from handsell.core import plugins
from handsell.core.errors import ConfigError
from handsell.core.plugins import ENTRY_POINTS, Plugin, find_plugins


@dataclass(frozen=True)
class Sauce(Plugin):
    package: ClassVar[str] = "handsell.catalog"  # holds none


@pytest.fixture
def installed(monkeypatch):
    """Pretend that modules with these plug-ins are installed as entry points."""
    find_plugins.cache_clear()

    def install(**modules):
        points = []
        for name, content in modules.items():
            module = ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)
            points.append(EntryPoint(name, name, ENTRY_POINTS))
        monkeypatch.setattr(plugins, "entry_points", lambda group: points)

    yield install
    find_plugins.cache_clear()


def test_plugins_of_installed_packages_are_found_by_kind(installed):
    mustard, other = Sauce("mustard"), Plugin("other")
    installed(shop={"MUSTARD": mustard, "AGAIN": mustard, "OTHER": other})
    assert find_plugins(Sauce) == {"mustard": mustard}


def test_a_name_that_is_registered_twice_is_refused(installed):
    installed(shop={"ONE": Sauce("mustard")}, mall={"TWO": Sauce("mustard")})
    with pytest.raises(ConfigError, match="'mustard' is registered by mall and by shop"):
        find_plugins(Sauce)


def test_a_package_that_cannot_be_imported_is_named(installed, monkeypatch):
    installed()
    monkeypatch.setattr(plugins, "entry_points", lambda group: [EntryPoint("shop", "no_such_package", ENTRY_POINTS)])
    with pytest.raises(ConfigError, match=r"plug-in shop \(no_such_package\) cannot be imported: ModuleNotFoundError"):
        find_plugins(Sauce)
