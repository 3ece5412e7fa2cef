"""The package files of clients/web: complete for npm, without dependencies, and built from the source beside them."""

import json
from pathlib import Path

import pytest

import handsell

WEB = Path(__file__).parents[2] / "clients" / "web"
SOURCES = sorted((WEB / "src").glob("*.ts"))


@pytest.fixture(scope="module")
def package():
    return json.loads((WEB / "package.json").read_text())


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_built_file_is_of_this_source(source):
    """Source maps quote the source that they were built from; the slow tests build it again."""
    built = json.loads((WEB / "dist" / f"{source.stem}.js.map").read_text())
    assert built["sourcesContent"] == [source.read_text(encoding="utf-8")], "run npm run build in clients/web"


def test_no_built_file_is_left_of_a_source_that_is_gone():
    assert {path.name.partition(".")[0] for path in (WEB / "dist").iterdir()} == {path.stem for path in SOURCES}


def test_the_package_has_what_npm_needs(package):
    lock = json.loads((WEB / "package-lock.json").read_text())
    assert package["version"] == lock["version"] == handsell.__version__
    assert "dependencies" not in package
    for entry in package["exports"].values():
        assert all((WEB / path).is_file() for path in entry.values())
    assert all((WEB / name).exists() for name in (*package["files"], "README.md", "LICENSE"))
