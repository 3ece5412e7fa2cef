"""Folders and files that are found from the place of a config file."""

from __future__ import annotations

import os
from pathlib import Path

from handsell.core.errors import ConfigError


def expand_path(path: Path | str, name: str) -> Path:
    """Return a caller's path, absolute; raises ConfigError if it has an unknown user or is not UTF-8."""
    try:
        absolute = make_absolute(Path(path).expanduser())
        str(absolute).encode()
    except (RuntimeError, ValueError, OSError) as error:
        raise ConfigError(f"{name} is {str(path)!r}: expected a path in UTF-8 that can be resolved ({error})") from None
    return absolute


def make_absolute(path: Path | str) -> Path:
    """Return an absolute path without `..`, keeping its symbolic links.

    Paths are passed to other processes, for which a link may point elsewhere: Kubernetes replaces the target of the
    links in a mounted ConfigMap with each change, and its name differs between pods. Folders before a `..` are
    resolved, because their parent is that of the target.
    """
    path = Path(path).absolute()
    if ".." not in path.parts:
        return path
    last = len(path.parts) - path.parts[::-1].index("..")
    return Path(*path.parts[:last]).resolve().joinpath(*path.parts[last:])


def project_root(source: Path) -> Path:
    """Return the nearest folder above a config file that holds `feature_repo`, or the file's own folder."""
    for folder in source.parents:
        if (folder / "feature_repo").is_dir():
            return folder
    return source.parent


def state_home(source: Path) -> Path:
    """Return the folder that holds the state of all deployments: $HANDSELL_HOME, or `.handsell` in the project root."""
    home = os.environ.get("HANDSELL_HOME")
    return expand_path(home, "HANDSELL_HOME") if home else project_root(source) / ".handsell"


def find_shipped(source: Path, part: str) -> Path | None:
    """Find a file of `feature_repo` or `deployments`: above the config file, else the one that handsell brings."""
    folders = (*source.parents, shipped_root())
    return next((folder / part for folder in folders if (folder / part).exists()), None)


def shipped_root() -> Path:
    """Return the folder of the `feature_repo` and `deployments` that handsell brings.

    It is `handsell/shipped` where a wheel is installed (setup.py puts it there), and the checkout of an editable one.
    """
    package = Path(__file__).parents[1]
    inside = package / "shipped"
    return inside if inside.is_dir() else package.parents[1]
