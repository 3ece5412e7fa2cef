"""Every block of code in the documents is executed, checked by its language, or marked as an illustration.

A block says its language. Before one that cannot be run stands `<!-- illustration: why -->`.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from typer.testing import CliRunner

from doc_commands import (
    ELSEWHERE,
    RUN_BY,
    check_command,
    check_mention,
    list_runnable,
    split_commands,
    split_lines,
)
from doc_requests import Translation, check_answer, send
from handsell.bundles.opening import open_bundles
from handsell.cli import app
from handsell.config import Config
from serving_service import start_service
from serving_world import publish_other_bundle, write_world
from test_docs import tracked

ROOT = Path(__file__).parent.parent
FENCE = re.compile(
    r"(?:<!-- illustration: (?P<why>[^>]+) -->\n\s*)?^(?P<indent> *)```(?P<language>[\w-]*)\n(?P<text>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)
INLINE = re.compile(r"(?<!`)`(handsell [^`\n]+)`(?!`)")
PLUGINS = "tests/plugins/handsell_shop"

EXECUTED = {
    ("docs/clients.md", "python"): "tests/unit/test_client_docs.py",
    ("docs/clients.md", "html"): "tests/browser/test_client_pages.py",
    ("docs/clients.md", "js"): "tests/browser/test_client_pages.py",
    ("docs/migration.md", "python"): "tests/unit/test_migration_page.py",
    ("docs/migration.md", "json"): "tests/unit/test_migration_page.py",
    ("docs/migration.md", "console"): "tests/unit/test_migration_page.py",
    ("docs/tutorial.md", "text"): "tests/unit/test_tutorial.py",
}
"""Blocks by page and language: the test that executes them and names the page."""
BASE = {
    "name": "shop",
    "data": {"format": "tables", "tables": {"events": {"path": "events.csv"}}},
    "events": {"types": {"view": {"weight": 1.0}, "like": {"weight": 2.0}}},
}


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str
    why: str | None  # it is an illustration


def list_documents() -> list[Path]:
    """The documents for readers; decisions and the changelog tell of the past."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def list_blocks() -> list[Block]:
    found = []
    for page in list_documents():
        text = page.read_text(encoding="utf-8")
        for block in FENCE.finditer(text):
            body = re.sub(f"^{block['indent']}", "", block["text"], flags=re.MULTILINE)
            line = text[: block.start("language")].count("\n") + 1
            found.append(Block(page.relative_to(ROOT).as_posix(), line, block["language"], body, block["why"]))
    return found


BLOCKS = list_blocks()


def get_blocks(*languages: str) -> list[Block]:
    """Blocks of some languages that are no illustrations and have no test of their own."""
    return [
        one
        for one in BLOCKS
        if one.language in languages and one.why is None and (one.page, one.language) not in EXECUTED
    ]


def name_block(block: Block) -> str:
    return f"{block.page}:{block.line}"


def each(*languages: str):
    return pytest.mark.parametrize("block", get_blocks(*languages), ids=name_block)


def test_every_block_is_of_a_language_that_is_checked():
    checked = {"console", "sh", "toml", "python", "json", "yaml", "html", "text"}
    unknown = [
        name_block(one)
        for one in BLOCKS
        if one.why is None and one.language not in checked and (one.page, one.language) not in EXECUTED
    ]
    assert not unknown, "name the language, or write <!-- illustration: why --> before the block"
    assert len(BLOCKS) > 90 and sum(one.why is not None for one in BLOCKS) < 15


def test_what_a_table_says_is_executed_is_executed():
    for (page, language), test in EXECUTED.items():
        assert any((one.page, one.language) == (page, language) for one in BLOCKS), f"{page} has no {language}"
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8"), f"{test} does not read {page}"
    for program, file in RUN_BY.items():
        assert not file or program in (ROOT / file).read_text(encoding="utf-8"), f"{file} does not run {program}"
    assert not [file for file in ELSEWHERE.values() if not (ROOT / file).exists()]


@each("text")
def test_a_text_has_no_command(block):
    assert not re.search(r"^(\$|make|handsell|curl|kubectl|pip|python) ", block.text, re.MULTILINE)


@each("console", "sh")
def test_every_command_is_right(block):
    for program in split_commands(get_commands(block)):
        if program[0] != "curl":
            check_command(program)


def get_commands(block: Block) -> str:
    """Return the commands of a block, without what they print."""
    if block.language == "sh":
        return block.text
    return "\n".join(command for command, _ in split_console(block.text))


def split_console(text: str) -> list[tuple[str, str]]:
    """Return (command, output) of a block with prompts."""
    found = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command = split_lines(part)[0]
        found.append((command, part[len(command) :].strip()))
    return found


@pytest.mark.parametrize("page", list_documents(), ids=lambda page: page.name)
def test_every_command_in_a_sentence_exists(page):
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for text in INLINE.findall(prose):
        check_mention(text)


@each("toml")
def test_every_setting_exists(block):
    Config.model_validate(merge(BASE, tomllib.loads(block.text)))


def merge(base: dict, more: dict) -> dict:
    out = dict(base)
    for key, value in more.items():
        out[key] = merge(out.get(key, {}), value) if isinstance(value, dict) else value
    return out


@each("json", "yaml")
def test_every_document_can_be_read(block):
    (json.loads if block.language == "json" else yaml.safe_load)(block.text)


@each("python")
def test_every_function_is_one_that_a_test_runs(block):
    """Recipes show a part of a plug-in whose tests run it."""
    compile(block.text, name_block(block), "exec")
    sources = "".join(
        path.read_text(encoding="utf-8") for path in tracked(f"{PLUGINS}/*.py", "src/handsell/features/*.py")
    )
    defined = re.findall(r"^def .*$", block.text, re.MULTILINE)
    assert defined and not [line for line in defined if line not in sources]


@each("html")
def test_every_attribute_of_the_slate_exists(block):
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "clients" / "web" / "src").glob("*.ts"))
    names = [
        name for tag in re.findall(r"<handsell-slate([^>]*)>", block.text) for name in re.findall(r"([\w-]+)=", tag)
    ]
    assert names and not [name for name in names if f'"{name}"' not in source]


PLACES = re.compile(r"([\w/]*rules/world\.toml)|(\.\./before-upgrade|DIR)|(BUNDLE)|[\w/]*\.toml|CONFIG")
RULES = '[[rule]]\nname = "more"\nkind = "boost"\nitems = "\'red\' in item.tags"\nfactor = 1.5\n'


RUNNABLE = {
    page: [
        arguments
        for block in get_blocks("console", "sh")
        if block.page == page
        for arguments in list_runnable(get_commands(block))
    ]
    for page in sorted({block.page for block in BLOCKS})
}
"""By page: what can run on a small deployment."""


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, commands in RUNNABLE.items() if commands])
def test_every_command_that_needs_no_cluster_runs(page, tmp_path):
    """In the order of the page."""
    world = write_world(tmp_path)
    open_bundles(world.config).promote(publish_other_bundle(world, 2))
    (tmp_path / "rules.toml").write_text(RULES)
    (tmp_path / "elsewhere").mkdir()
    given = (str(tmp_path / "rules.toml"), str(tmp_path / "backup"), world.bundle)

    def replace(word: str) -> str:
        if (found := PLACES.search(word)) is None:
            return word
        return next((one for one, text in zip(given, found.groups(), strict=True) if text), str(world.config.source))

    for arguments in RUNNABLE[page]:
        if arguments[0] == "restore" and "--replace" not in arguments:
            shutil.rmtree(world.config.state)  # on another machine
        with contextlib.chdir(tmp_path / "elsewhere"):
            done = CliRunner().invoke(app, [replace(word) for word in arguments])
        assert done.exit_code == 0, (arguments, done.output, done.exception)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("shop"))


WORDS = {
    '"save"': '"like"', "drum and bass": "red", "item.year >= 2015": "item.item_id != 'x'", "'techno'": "'red'",
    "not item.explicit": "item.title != 'x'",
}  # fmt: skip
"""Words of the pages' world: what they are in the small shop."""


@pytest.mark.parametrize("page", sorted({one.page for one in get_blocks("console", "sh") if "curl " in one.text}))
async def test_every_request_is_answered_as_the_page_shows(world, page):
    translation, cursor, sent = Translation(WORDS), None, 0
    async with start_service(world) as (client, _):
        for block in get_blocks("console", "sh"):
            if block.page != page:
                continue
            pairs = split_console(block.text) if block.language == "console" else [(block.text, "")]
            for command, shown in pairs:
                for program in split_commands(translation.translate(command)):
                    if program[0] == "curl":
                        answer = await send(client, program[1:], cursor)
                        check_answer(answer, shown)
                        sent += 1
                        cursor = answer.json().get("next_cursor") if answer.content else None
    assert sent
