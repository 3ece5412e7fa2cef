"""A page for each file and folder of the repository to which a document links, so that every link leads somewhere."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs"
DOCUMENTS = {"README.md": "project.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Documents beside the folder docs: their pages."""
DECISIONS = "decisions.md"
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
EXTERNAL = re.compile(r"[a-z][a-z+.-]*:", re.IGNORECASE)
CODE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".sh": "bash"}
LARGEST = 400_000  # characters


def find_linked_paths(markdown: str, document: str) -> set[str]:
    """Return the paths of the repository, outside docs, to which a document links; `document` is its path there."""
    prose = CODE.sub("", markdown)
    targets = (resolve_link(target, document) for _, target, _, _ in LINK.findall(prose) if not EXTERNAL.match(target))
    return {path for path in targets if find_page(path).startswith("source/") and (ROOT / path).exists()}


def replace_links(markdown: str, document: str, page: str) -> str:
    """Return a document's text with links that hold on the site; `page` is its path there."""

    def replace(found: re.Match[str]) -> str:
        before, target, anchor, after = found.groups()
        if EXTERNAL.match(target):
            return found[0]
        path = posixpath.relpath(find_page(resolve_link(target, document)), posixpath.dirname(page) or ".")
        return f"{before}{path}{anchor or ''}{after}"

    parts, end = [], 0
    for code in CODE.finditer(markdown):
        parts += [LINK.sub(replace, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(replace, markdown[end:])])


def find_page(path: str) -> str:
    """Return the page of a path of the repository, as a path on the site."""
    if path in DOCUMENTS:
        return DOCUMENTS[path]
    if path == f"{DOCS}/decisions":
        return DECISIONS
    if path.startswith(f"{DOCS}/") and path.endswith((".md", ".ipynb")):
        return path.removeprefix(f"{DOCS}/")
    return f"source/{path}/index.md" if (ROOT / path).is_dir() else f"source/{path}.md"


def render_decisions() -> str:
    """Return the page that lists all decisions."""
    opening = "# Decisions\n\nChoices between two ways, each with the measurement that decided.\n\n"
    pages = sorted((ROOT / DOCS / "decisions").glob("*.md"))
    titles = [(page.name, page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")) for page in pages]
    return opening + "\n".join(f"- [{title}](decisions/{name})" for name, title in titles) + "\n"


def render_source(path: str, paths: set[str]) -> str:
    """Return the page of a file, with its text, or of a folder, with the names of its files; `paths` have pages."""
    opening = f"---\nsearch:\n  exclude: true\n---\n# {posixpath.basename(path)}\n\n`{path}`\n\n"
    if not (ROOT / path).is_dir():
        text = (ROOT / path).read_text(encoding="utf-8")[:LARGEST].rstrip("\n")
        ticks = "`" * max(3, 1 + max(map(len, re.findall(r"`{3,}", text)), default=0))
        return f"{opening}{ticks} {LANGUAGES.get(Path(path).suffix, 'text')}\n{text}\n{ticks}\n"
    inside = sorted(one for one in (ROOT / path).iterdir() if one.name[0] not in "._" and one.suffix != ".pyc")
    entries = (_show_entry(one.relative_to(ROOT).as_posix(), path, paths) for one in inside)
    return opening + "\n".join(f"- {entry}" for entry in entries) + "\n"


def _show_entry(path: str, folder: str, paths: set[str]) -> str:
    name = posixpath.basename(path) + ("/" if (ROOT / path).is_dir() else "")
    if path not in paths:
        return f"`{name}`"
    here = posixpath.dirname(find_page(folder))
    return f"[{name}]({posixpath.relpath(find_page(path), here)})"


def resolve_link(target: str, document: str) -> str:
    """Return the path in the repository to which a link of a document leads."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(document), target))
