"""The checked-in JavaScript is what the TypeScript compiler builds from the checked-in source."""

import shutil
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "clients" / "web"


def test_a_build_gives_the_files_that_are_checked_in(tmp_path):
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm")
    copy = tmp_path / "web"
    shutil.copytree(WEB, copy, ignore=shutil.ignore_patterns("node_modules", "dist", "demo"))
    subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=copy, check=True, capture_output=True)
    subprocess.run([npm, "run", "build"], cwd=copy, check=True, capture_output=True)
    built, kept = ({path.name: path.read_bytes() for path in (folder / "dist").iterdir()} for folder in (copy, WEB))
    assert built.keys() == kept.keys()
    assert [name for name in built if built[name] != kept[name]] == [], "run npm run build in clients/web"
