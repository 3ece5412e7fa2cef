"""The documentation site builds without a warning, loads nothing from another host, and has every page of docs."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from markdown_it import MarkdownIt
from nbclient import NotebookClient

from test_docs import commands, tracked

pytestmark = pytest.mark.slow  # builds the site and runs the notebooks
ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "docs" / "notebooks"
LOADED = re.compile(
    r"<(?:script|img|iframe|source)[^>]+?src=[\"']?([^\"' >]+)|<link(?![^>]+canonical)[^>]+?href=[\"']?([^\"' >]+)"
)
DECIMAL = re.compile(r"[-+]?\d+\.\d+")  # of which the third place depends on the processor


@pytest.fixture(scope="module")
def modules():
    sys.path.insert(0, str(ROOT / "docs" / "site"))
    yield
    sys.path.remove(str(ROOT / "docs" / "site"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; strict, so that a link that leads nowhere fails."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_every_document_is_a_page(site):
    documents = [path.relative_to(ROOT / "docs") for path in tracked("docs/*.md", "docs/**/*.md", "docs/**/*.ipynb")]
    assert len(documents) > 60
    assert not [path for path in documents if not (site / path.with_suffix(".html")).exists()]


def test_every_page_of_docs_is_in_the_navigation(site):
    start = (site / "index.html").read_text(encoding="utf-8")
    pages = [path.stem for path in tracked("docs/*.md") if path.parent.name == "docs"]
    assert not [name for name in pages if f'href="{name}.html"' not in start and name != "index"]


def test_no_page_loads_anything_from_another_host(site):
    loaded = {
        first or second
        for page in site.rglob("*.html")
        for first, second in LOADED.findall(page.read_text(encoding="utf-8"))
    }
    assert any(address.endswith(".js") for address in loaded)
    assert not [address for address in loaded if re.match(r"(?:[a-z]+:)?//", address)]


def test_the_generated_pages_have_every_command_and_endpoint(modules, site):
    import typer.main
    from api_reference import build_document

    from handsell.cli import app

    listed = (site / "all-commands.html").read_text(encoding="utf-8")
    assert not [name for name in commands(typer.main.get_command(app)) if f">handsell {name}<" not in listed]
    endpoints = (site / "all-endpoints.html").read_text(encoding="utf-8")
    paths = build_document()["paths"]
    assert len(paths) > 30 and "/api/feedback" in paths
    assert not [path for path in paths if f" {path}<" not in endpoints]


def test_lists_and_tables_are_indented_as_the_site_needs_them(modules):
    from list_indentation import indent_lists

    written = (
        "Text:\n- one\n  more\n  1. inner\n- two\n\n  | a |\n  |---|\n\n  ```\n  code\n  ```\n\nafter\n| x |\n|---|\n"
    )
    inside = "    | a |\n    |---|\n\n    ```\n    code\n    ```\n"
    expected = f"Text:\n\n- one\n    more\n    1. inner\n- two\n\n{inside}\nafter\n\n| x |\n|---|\n"
    assert indent_lists(written) == expected
    assert indent_lists("a\n```sh\nb\n```\nc\n") == "a\n\n```sh\nb\n```\n\nc\n"
    kept = "```\n- no list\n| no table |\n```\n\nin the year\n2016. A sentence.\n"
    assert indent_lists(kept) == kept


def test_each_page_has_the_structure_that_other_readers_of_markdown_show(site):
    """As many tables, rows, list items and blocks as the rules of CommonMark give."""
    reader = MarkdownIt("commonmark").enable("table")
    different = {}
    for path in tracked("docs/*.md", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        name = {"README": "project", "CONTRIBUTING": "contributing", "CHANGELOG": "changelog"}.get(path.stem)
        page = site / (f"{name}.html" if name else path.relative_to(ROOT / "docs").with_suffix(".html"))
        article = page.read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]
        expected, found = count_elements(reader.render(path.read_text(encoding="utf-8"))), count_elements(article)
        different |= {path.name: (expected, found)} if expected != found else {}
    assert not different


def count_elements(html: str) -> dict[str, int]:
    return {name: len(re.findall(rf"<{name}[ >]", html)) for name in ("table", "tr", "li", "pre", "h2", "h3", "strong")}


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_run_and_print_what_they_show(path):
    shown, run = nbformat.read(path, 4), nbformat.read(path, 4)
    NotebookClient(run, timeout=300, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    for before, after in zip(shown.cells, run.cells, strict=True):
        texts = [[one for output in cell.get("outputs", ()) for one in _list_texts(output)] for cell in (before, after)]
        shown_numbers, run_numbers = (DECIMAL.findall("\n".join(one)) for one in texts)
        assert DECIMAL.sub("#", "\n".join(texts[1])) == DECIMAL.sub("#", "\n".join(texts[0]))
        assert list(map(float, run_numbers)) == pytest.approx(list(map(float, shown_numbers)), abs=0.01)


def _list_texts(output) -> list[str]:
    """Return what a person reads of an output; pictures are there or not."""
    data = output.get("data", {})
    return [output.get("text") or data.get("text/plain", ""), *(kind for kind in data if kind.startswith("image/"))]
