"""Every example of docs/migration.md, executed as it stands: imports, pygorse and UBI events."""

import contextlib
import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import requests
from typer.testing import CliRunner

import foreign_dumps as dumps
from gorse_shop import open_gorse_shop
from handsell.cli import app
from handsell.config import ServingConfig
from handsell.serving.http.access.route_scopes import ADMIN_ONLY, GORSE_SCOPES
from serving_world import write_world

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
COMMANDS = [text for _, text in BLOCKS if text.startswith("$ handsell")]
URL = "http://127.0.0.1:8000"


def get_blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with open_gorse_shop(write_world(tmp_path_factory.mktemp("shop"))) as shop:
        yield shop


@pytest.fixture
def folder(tmp_path):
    """The files that the page names."""
    export = tmp_path / "gorse-export"
    export.mkdir()
    feedback = dumps.draw_feedback(np.random.default_rng(5))
    bad = [{**feedback[0], "Timestamp": ""}, {**feedback[0], "UserId": ""}]
    feedback[3] = {**feedback[3], "Comment": "nice"}
    for name, records in (
        ("users", dumps.draw_users()),
        ("items", dumps.draw_items()),
        ("feedback", [*feedback, *bad]),
    ):
        dumps.write_json_lines(export / f"{name}.jsonl", records)
    (tmp_path / "events.jsonl").write_text(get_blocks("json")[0])
    (tmp_path / "orders.csv").write_text(next(text for text in get_blocks("text") if text.startswith("customer_id")))
    return tmp_path


@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: block.split()[3])
def test_the_imports_print_what_the_page_says(block, folder):
    command, output = block.split("\n", 1)
    with contextlib.chdir(folder):
        done = CliRunner().invoke(app, command.split()[2:])
    assert done.exit_code == 0, done.output
    assert done.output == output


def test_there_is_an_example_of_each_system():
    assert [block.split()[3] for block in COMMANDS] == ["gorse", "metarank", "csv"]


def test_the_switches_of_the_page_are_settings():
    (block,) = get_blocks("toml")
    assert ServingConfig(**tomllib.loads(block)["serving"]).gorse_api
    names = re.findall(r"serving\.(\w+) = (\{[^}]*\})", PAGE.read_text(encoding="utf-8"))
    assert [ServingConfig(**{key: tomllib.loads(f"v = {value}")["v"]}).ubi_types for key, value in names]


def test_the_client_of_gorse_works_as_the_page_says(shop):
    (block,) = get_blocks("python")
    *lines, last = block.replace(URL, shop.url).strip().split("\n")
    names = {}
    exec("\n".join(lines), names)
    assert len(eval(last, names)) == 3
    assert names["client"].get_item("vuejs:vue")["Categories"] == ["framework"]


def test_the_event_of_the_page_is_answered_as_the_page_says(shop):
    block = next(text for text in get_blocks("console") if text.startswith("$ curl"))
    body, expected = re.search(r"-d '(.*)'\n(.*)\n", block).groups()
    answer = requests.post(f"{shop.url}/v1/ubi_events", json=json.loads(body), timeout=20)
    assert (answer.status_code, answer.text) == (202, expected)


def test_every_route_of_the_page_exists(shop):
    """Of Gorse's API, and in the table with the scope that it needs."""
    text = PAGE.read_text(encoding="utf-8")
    for path in GORSE_SCOPES:
        plain = re.sub(r"\{(user|item)_id\}", r"{\1}", path).replace("{feedback_type}", "{type}").rstrip("/")
        base, _, last = plain.rpartition("/")
        assert plain in text or f"{base}[/{last}]" in text, path
    assert {path for _, path in ADMIN_ONLY} <= set(GORSE_SCOPES)
