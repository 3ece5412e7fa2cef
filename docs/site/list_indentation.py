"""Lists as GitHub reads them, written as Python-Markdown reads them: indented by four spaces, after an empty line."""

from __future__ import annotations

import re

ITEM = re.compile(r" *(?:[-*+]|\d+\.) +(?=\S)")
FIRST_ITEM = re.compile(r" *(?:[-*+]|1\.) ")  # another number does not begin a list within a paragraph
BLOCK = re.compile(r" *(?:\||#{1,6} |```)")  # a table, a heading, a code block: it ends a paragraph
INDENT, FENCE = "    ", "```"


def indent_lists(markdown: str) -> str:
    """Return the text with each line of a list item indented by four spaces for each open item."""
    lines: list[str] = []
    texts: list[int] = []  # column at which the text of each open item begins
    fence: int | None = None  # indentation of the open code block
    for line in markdown.splitlines():
        indent = len(line) - len(line.lstrip(" "))
        before = lines[-1].strip() if lines else ""
        if fence is not None:
            lines.append(INDENT * len(texts) + line[min(fence, indent) :])
            fence = None if line.strip() == FENCE else fence
            continue
        if before == FENCE and line.strip():  # what follows a code block is a paragraph of its own
            lines.append("")
            before = ""
        item = ITEM.match(line)
        if item and before and not texts and not FIRST_ITEM.match(line):
            item = None
        if line.strip() and (item or not before or BLOCK.match(line)):
            while texts and indent < texts[-1]:
                texts.pop()
        begins = (item and not texts) or (line.lstrip().startswith("|") and not before.startswith("|"))
        begins = begins or line.lstrip().startswith(FENCE)
        if begins and before and not (item and ITEM.match(lines[-1])):
            lines.append("")
        lines.append(INDENT * len(texts) + line.lstrip(" ") if texts and line.strip() else line)
        if item:
            texts.append(item.end())
        if line.lstrip().startswith(FENCE):
            fence = indent
    return "\n".join(lines) + "\n"
