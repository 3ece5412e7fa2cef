"""The page of all commands with their arguments and options, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer.main

from handsell.cli import app

OPENING = """\
# All options of the commands

What each command of `handsell` takes, as its own `--help` says. [Commands](commands.md) has what they are for.
"""


def render_commands() -> str:
    """Return the page."""
    return "\n".join([OPENING, *(_render(name, command) for name, command in list_commands())])


def list_commands() -> Iterator[tuple[str, Any]]:
    """Yield (name with its groups, command) in order of the names."""
    yield from _list_inside(typer.main.get_command(app), "handsell")


def _list_inside(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items()):
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _list_inside(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def _render(name: str, command: Any) -> str:
    context = typer.Context(command, info_name=name)
    text = " ".join(inspect.cleandoc(command.help or "").split("\f")[0].split())
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    lines = [f"## {name}\n", f"{text}\n", f"```text\n{usage}\n```\n"]
    rows = [record for one in command.params if (record := one.get_help_record(context))]
    if rows:
        lines += ["| argument or option | meaning |", "|---|---|"]
        lines += [f"| `{_escape(names)}` | {_escape(meaning)} |" for names, meaning in rows]
    return "\n".join([*lines, ""])


def _escape(text: str) -> str:
    """Escape what would end a table cell."""
    return " ".join(text.split()).replace("|", "\\|")
