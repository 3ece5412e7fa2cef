"""The command line: help without heavy imports, and errors without tracebacks."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from handsell.cli import app

HEAVY = (
    "ray", "feast", "torch", "xgboost", "faiss", "implicit", "sklearn", "matplotlib",
    "pandas", "scipy", "numpy", "pyarrow", "duckdb", "fastapi",
)  # fmt: skip
HELP = f"""
import sys
from handsell.cli import app
try:
    app(["--help"])
except SystemExit as end:
    assert end.code in (0, None), end.code
print("heavy:", *sorted(set({HEAVY!r}) & set(sys.modules)))
"""
NAMED_IN_THE_ISSUE = ("doctor", "data", "features", "train", "evaluate", "serve", "recommend", "bundles")


def handsell(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "handsell", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_help_imports_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "heavy:"


def test_help_names_the_commands():
    done = handsell("--help")
    assert done.returncode == 0
    for name in NAMED_IN_THE_ISSUE:
        assert f" {name} " in done.stdout, name


@pytest.mark.parametrize("command", ["list", "show", "promote", "rollback"])
def test_bundles_have_their_own_commands(command):
    done = CliRunner().invoke(app, ["bundles", "--help"])
    assert done.exit_code == 0 and f" {command} " in done.output


def one_error(done: subprocess.CompletedProcess) -> str:
    """Return the error message after checking for exit status 1, a leading `error:`, and no traceback."""
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.startswith("error: ") and done.stderr.count("error: ") == 1
    assert not done.stdout
    return done.stderr


def test_a_missing_config_is_one_line(tmp_path):
    message = one_error(handsell("doctor", str(tmp_path / "none.toml")))
    assert len(message.splitlines()) == 1
    assert "none.toml does not exist" in message and "`handsell init NAME` writes one" in message


def test_an_unknown_key_is_named_with_its_section_and_value(tmp_path):
    path = tmp_path / "typo.toml"
    path.write_text('name = "typo"\n[ranking]\ntress = 300\n')
    message = one_error(handsell("bundles", "list", str(path)))
    assert str(path) in message
    assert "ranking.tress" in message and "300" in message


def test_an_error_names_the_allowed_range_and_the_value_received(tmp_path):
    path = tmp_path / "range.toml"
    path.write_text('name = "range"\n[surfaces.home]\ncount = 31\n')
    message = one_error(handsell("doctor", str(path)))
    assert "surfaces.home.count" in message and "30" in message and "31" in message


def test_a_file_that_is_not_toml_is_reported(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("name = \n")
    assert "not readable TOML" in one_error(handsell("doctor", str(path)))


def test_an_unknown_topology_is_rejected_before_anything_starts():
    done = handsell("up", "deployments/configs/world.toml", "--topology", "nope")
    assert done.returncode == 2 and "graph" in done.stderr and "ray" not in done.stdout
