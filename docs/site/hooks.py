"""What MkDocs calls while it builds the site: adds generated pages, and pages for files to which documents link."""

from __future__ import annotations

import logging
import posixpath
import re
from typing import Any

from api_reference import render_api
from command_reference import render_commands
from list_indentation import indent_lists
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from source_pages import (
    DECISIONS,
    DOCS,
    DOCUMENTS,
    ROOT,
    find_linked_paths,
    find_page,
    render_decisions,
    render_source,
    replace_links,
    resolve_link,
)

log = logging.getLogger("mkdocs.hooks.site")
NOTEBOOK_LINK = re.compile(r'href="([^":#]+\.(?:md|py))(#[^"]*)?"')

GENERATED = {"all-commands.md": render_commands, "all-endpoints.md": render_api, DECISIONS: render_decisions}
WRITTEN_AT = {page: document for document, page in DOCUMENTS.items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents beside docs, the generated pages, and the pages of linked files."""
    for document, page in DOCUMENTS.items():
        files.append(File.generated(config, page, content=(ROOT / document).read_text(encoding="utf-8")))
    for page, render in GENERATED.items():
        files.append(File.generated(config, page, content=render()))
    linked: set[str] = set()
    for file in files.documentation_pages():
        if not file.src_uri.endswith(".ipynb"):
            linked |= find_linked_paths(file.content_string, _find_document(file.src_uri))
    for path in sorted(linked - set(DOCUMENTS)):
        files.append(File.generated(config, find_page(path), content=render_source(path, linked)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Write links and lists as the site needs them."""
    uri = page.file.src_uri
    if uri in GENERATED or uri.startswith("source/") or uri.endswith(".ipynb"):
        return markdown
    return indent_lists(replace_links(markdown, _find_document(uri), uri))


def on_page_content(html: str, page: Any, files: Files, **_: Any) -> str:
    """Lead the links of a notebook to pages of the site; one that leads nowhere is a warning, and so an error."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def replace(found: re.Match[str]) -> str:
        target, anchor = found.groups()
        there = files.get_file_from_path(find_page(resolve_link(target, _find_document(page.file.src_uri))))
        if there is None:
            log.warning("%s contains a link %r, but there is no such page", page.file.src_uri, target)
            return found[0]
        return f'href="{there.url_relative_to(page.file)}{anchor or ""}"'

    return NOTEBOOK_LINK.sub(replace, html)


def _find_document(page: str) -> str:
    """Return the path in the repository of the document of a page."""
    return WRITTEN_AT.get(page, posixpath.join(DOCS, page))
