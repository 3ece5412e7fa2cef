"""`handsell rules`: files of business rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from handsell.cli.arguments import ConfigPath, load, load_on_cluster

app = typer.Typer(no_args_is_help=True, help="Check, preview, publish and roll back business rules.")
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


@app.command("publish")
def publish(
    config: ConfigPath,
    rules: RulesPath,
    note: Annotated[str, typer.Option(help="Why, for the history.")] = "",
) -> None:
    """Check a file of rules and make it the served one; replicas follow within seconds."""
    from handsell.core.errors import ConfigError
    from handsell.jobs.audited_command import audit_command, name_person
    from handsell.local.rules import open_rules
    from handsell.reranking.rules.publication import RulesFile

    loaded = load_on_cluster(config)
    file = RulesFile(loaded)
    open_rules(loaded, rules)
    try:
        content = rules.read_bytes()
    except OSError as error:
        raise ConfigError(f"rules {rules} cannot be read ({error.strerror})") from None
    with audit_command(loaded, "rules publish", f"rules from {rules}"):
        done = file.publish(content, name_person(), note)
    print(f"published: rules {done.version}, {done.rules} enabled")


@app.command("rollback")
def roll_back(
    config: ConfigPath,
    version: Annotated[str | None, typer.Option(help="Version to publish again; by default the one before.")] = None,
) -> None:
    """Publish an earlier version of the rules again."""
    from handsell.jobs.audited_command import audit_command, name_person
    from handsell.reranking.rules.publication import RulesFile

    loaded = load_on_cluster(config)
    file = RulesFile(loaded)
    with audit_command(loaded, "rules rollback", f"rules to {version or 'the version before'}"):
        done = file.roll_back(name_person(), version)
    print(f"published: rules {done.version}, {done.rules} enabled ({done.note})")


@app.command("history")
def list_history(config: ConfigPath) -> None:
    """List the published versions of the rules, newest first."""
    from rich import print as show

    from handsell.local.rules_view import build_versions_table
    from handsell.reranking.rules.publication import RulesFile
    from handsell.reranking.rules.reading import version_of

    file = RulesFile(load(config))
    show(build_versions_table(file.list_versions(), version_of(file.read())))
