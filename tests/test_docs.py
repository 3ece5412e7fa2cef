"""The documents are true: keys and commands are all there, links lead somewhere, no machine's path is in them."""

import importlib.util
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
import typer
from pymdownx import slugs

from handsell.cli import app
from handsell.config import Config

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\(([^)\s]+)\)")
MACHINE = re.compile(r"(?<![\w.])/(?:work|tmp/w|home/\w+|root)/\w")
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def tracked(*patterns: str) -> list[Path]:
    """Files of the checkout that are tracked, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file()]


def pages() -> list[Path]:
    return tracked("*.md")


def load_generator(name: str):
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generator():
    return load_generator("make_configuration")


def commands(group, prefix: str = "") -> list[str]:
    found = []
    for name, command in group.commands.items():
        found += commands(command, f"{prefix}{name} ") if hasattr(command, "commands") else [prefix + name]
    return found


def test_the_configuration_page_is_what_the_models_say(generator):
    assert generator.PAGE.read_text(encoding="utf-8") == generator.render_page(), (
        "run python docs/make_configuration.py"
    )


def test_the_page_of_features_is_what_the_registrations_say():
    features = load_generator("make_features")
    assert features.PAGE.read_text(encoding="utf-8") == features.page(), "run python docs/make_features.py"


def test_every_key_has_a_heading_or_a_row_with_a_description(generator):
    page = generator.PAGE.read_text(encoding="utf-8")
    silent = []
    for path, model, _ in generator.sections("", Config, None):
        heading = f"## [{path}]" if path else "## Top level"
        assert heading in page
        rows = page.split(heading + "\n", 1)[1].split("\n## ")[0]
        for name, field in model.model_fields.items():
            if field.json_schema_extra == {"written": "by name"}:
                continue  # each retriever has a heading of its own
            inner, named = generator.find_section(field.annotation)
            if inner is not None and not named:
                assert f"## [{f'{path}.{name}'.lstrip('.')}]" in page
            else:
                assert f"| `{name}` |" in rows, f"{path}.{name}"
                silent += [f"{path}.{name}"] if not field.description else []
    assert not silent, f"keys without a description: {silent}"


@pytest.mark.parametrize("command", commands(typer.main.get_command(app)))
def test_every_command_is_documented(command):
    said = "\n".join(page.read_text(encoding="utf-8") for page in pages() if page.name != "CHANGELOG.md")
    assert re.search(rf"handsell {command}\b", said), f"`handsell {command}` is in no document: see docs/commands.md"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    prose = FENCED.sub("", page.read_text(encoding="utf-8"))
    links = [link.partition("#") for link in LINK.findall(prose) if not re.match(r"[a-z]+:", link)]
    targets = [(page.parent / path if path else page, anchor) for path, _, anchor in links]
    assert not [(path, anchor) for path, anchor in targets if not path.exists()]
    assert not [
        (path, to) for path, to in targets if to and path.suffix == ".md" and to not in headings(path.resolve())
    ]


@cache
def headings(page: Path) -> set[str]:
    """The anchors of a page, as the site and GitHub make them of its headings."""
    prose, slugify, found = FENCED.sub("", page.read_text(encoding="utf-8")), slugs.slugify(case="lower"), set()
    for title in re.findall(r"^#+ (.*)$", prose, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).replace("`", "").replace("*", "")
        slug = slugify(plain, "-")
        found |= {slug, *(f"{slug}{mark}{n}" for mark in "-_" for n in range(1, 4))}  # of repeated headings
    return found


def test_files_named_in_prose_exist():
    """`tests/…py`, `src/…`, `docs/…` and `deployments/…` in backticks are paths of this checkout."""
    named = re.compile(r"`((?:src|tests|docs|deployments|feature_repo)/[\w./-]+\.\w+)`")
    dead = []
    for page in pages():
        for path in named.findall(page.read_text(encoding="utf-8")):
            dead += [] if (ROOT / path).exists() else [f"{page.name}: {path}"]
    assert not [d for d in dead if not d.endswith("shop.toml")]  # the reader's own file


def test_no_path_of_a_machine_is_in_the_repository():
    found = []
    for path in tracked():
        if path == Path(__file__).resolve():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}: {line.strip()[:80]}" for line in text.splitlines() if MACHINE.search(line)
        ]
    assert not found
