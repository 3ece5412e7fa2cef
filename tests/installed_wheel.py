"""The wheel of this checkout, installed into a folder of its own, as somebody has it who has no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUILT = ("src", "feature_repo", "deployments", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
KERNELS = Path("src", "handsell", "core", "kernels", "_compiled.abi3.so")
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
OFFLINE = ["--no-deps", "--no-build-isolation", "--no-index"]


@dataclass(frozen=True)
class InstalledWheel:
    """`file` is the wheel, `site` the folder where it is installed: the first one on the path of `run`'s processes."""

    file: Path
    site: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.site)}

    def run(self, *command: str, folder: Path, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a program of this Python's environment in a folder: `handsell`, `feast`, `python` …"""
        program = [sys.executable] if command[0] == "python" else [str(Path(sys.executable).with_name(command[0]))]
        if command[0] == "handsell":
            program = [sys.executable, "-m", "handsell"]
        return subprocess.run(
            [*program, *command[1:]],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )


def list_sources() -> list[Path]:
    """Return the files that a clone of this checkout would have, relative to it."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z", "--", *BUILT]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [Path(name) for name in listed if name and (ROOT / name).is_file()]


def install_wheel(folder: Path) -> InstalledWheel:
    """Build the wheel from a copy, because building leaves files beside the source, and install it."""
    source, place = folder / "source", folder / "site"
    for path in list_sources():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, source / path)
    former = source / KERNELS  # as kernels built for a checkout are: newer than the C files
    former.write_bytes(b"kernels of another machine")
    os.utime(former, (time.time() + 3_600,) * 2)
    subprocess.run([*PIP, "wheel", *OFFLINE, "--wheel-dir", str(folder), str(source)], check=True)
    (file,) = folder.glob("*.whl")
    shutil.rmtree(source)
    subprocess.run([*PIP, "install", "--no-deps", "--no-index", "--target", str(place), str(file)], check=True)
    return InstalledWheel(file, place)
