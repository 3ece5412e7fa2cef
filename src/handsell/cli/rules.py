"""`handsell rules`: files of business rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from handsell.cli.arguments import ConfigPath, load

app = typer.Typer(no_args_is_help=True, help="Check a file of business rules and preview its effect.")
RulesPath = Annotated[Path, typer.Option("--rules", help="File of business rules; see docs/rules.md.")]


@app.command("check")
def check(config: ConfigPath, rules: RulesPath) -> None:
    """Check that a file of rules fits this deployment, and show the items and surfaces of each rule."""
    from rich import print as show

    from handsell.core.clock import Clock
    from handsell.local.rules import open_rules
    from handsell.local.rules_view import build_rules_table

    opened, compiled = open_rules(load(config), rules)
    show(build_rules_table(compiled, Clock.of(opened.config.serving.clock, opened.manifest).now()))


@app.command("preview")
def preview(
    config: ConfigPath,
    rules: RulesPath,
    requests: Annotated[int, typer.Option(min=1, max=100_000, help="Use at most this many recent requests.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show what a file of rules would change in the responses to recorded requests, without activating it."""
    from handsell.local.rules import preview_rules, summarize_preview

    effect = summarize_preview(preview_rules(load(config), rules, requests))
    if as_json:
        print(json.dumps(effect, indent=2, ensure_ascii=False))
        return
    from handsell.local.rules_view import print_preview

    print_preview(effect)
