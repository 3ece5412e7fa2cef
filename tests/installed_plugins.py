"""The package tests/plugins/handsell_shop, installed as pip installs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tests" / "plugins" / "handsell_shop"


def install_package(folder: Path) -> tuple[dict[str, str], Path]:
    """Install into `folder`; returns the environment of a process that has the package, and a copy of its source."""
    place, source = folder / "site", folder / "source"
    shutil.copytree(PACKAGE, source)  # building leaves files beside the source
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--disable-pip-version-check", "--target", str(place), str(source)],
        check=True,
    )  # fmt: skip
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (place, ROOT / "src")))}, source
