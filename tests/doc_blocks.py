"""Code blocks of the documents, for tests that execute them."""

from __future__ import annotations

import re
from pathlib import Path

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def list_blocks(page: Path) -> list[tuple[str, str]]:
    """Return (language, text) of the code blocks of a page that name a language, in their order."""
    return [(found[1], found[2]) for found in BLOCK.finditer(page.read_text(encoding="utf-8"))]
