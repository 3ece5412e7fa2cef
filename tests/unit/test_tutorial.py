"""The steps of docs/tutorial.md that need no cluster, executed as they stand; the data suits the rest of them."""

import contextlib
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from doc_blocks import list_blocks
from handsell.cli import app
from handsell.config import load_config

ROOT = Path(__file__).parents[2]
BLOCKS = list_blocks(ROOT / "docs" / "tutorial.md")
STEPS = [
    (command.strip(), output)
    for (language, command), (after, output) in pairwise(BLOCKS)
    if (language, after) == ("sh", "text")
]


def run_step(command: str) -> str:
    program, *arguments = shlex.split(command)
    if program == "handsell":
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        return done.output
    if program == "python":
        program, arguments = sys.executable, [str(ROOT / arguments[0]), *arguments[1:]]
    found = [path for one in arguments for path in (sorted(map(str, Path().glob(one))) if "*" in one else [one])]
    return subprocess.run([program, *found], capture_output=True, text=True, check=True).stdout


def hide_times(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder in which the steps were run; their outputs are those of the page, but for times."""
    folder = tmp_path_factory.mktemp("reader")
    with contextlib.chdir(folder):
        for command, output in STEPS:
            assert hide_times(run_step(command)) == hide_times(output), command
    return folder


def test_each_step_prints_what_the_page_says(folder):
    assert [command.split()[0] for command, _ in STEPS] == ["python", "head", "handsell"]


def test_the_config_has_the_types_of_the_page(folder):
    (shown,) = [text for language, text in BLOCKS if language == "toml"]
    written = tomllib.loads((folder / "shop" / "shop.toml").read_text(encoding="utf-8"))
    assert tomllib.loads(shown)["events"] == written["events"]


def test_the_doctor_has_no_objection(folder):
    with contextlib.chdir(folder):
        assert run_step("handsell doctor shop/shop.toml").rstrip().endswith("ready to train")


def test_the_example_shop_has_the_button_of_the_page(folder):
    spec = importlib.util.spec_from_file_location("example_shop", ROOT / "clients" / "web" / "demo" / "shop.py")
    shop = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shop)
    assert shop.choose_event_types(load_config(folder / "shop" / "shop.toml"))[2] == ["purchase"]
