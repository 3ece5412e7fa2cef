"""The doctor's findings on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from handsell.core.config import Config
from handsell.data.findings import Findings, Problem

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def render(findings: Findings, config: Config, console: Console) -> None:
    """Counts, event types, problems with example rows, verdicts."""
    console.print(counts(findings, config))
    console.print(types(findings, config))
    for problem in findings.problems:
        _problem(problem, console)
    for verdict in findings.verdicts:
        console.print(f"→ {escape(verdict)}")
    if findings.ok:
        console.print("[green]ready to train[/green]")
    else:
        console.print("[red]not ready: correct the errors above first[/red]")


def counts(f: Findings, config: Config) -> Table:
    table = Table(title=escape(f.source), show_header=False, title_justify="left")
    times = f"{f.first} … {f.last} ({f.days:.1f} days)" if f.ordered else "none, only order"
    for name, value in (
        ("events", f"{f.events:,}, of which {f.interactions:,} interactions"),
        ("users", f"{f.users:,} active, {f.described_users:,} described"),
        ("items", f"{f.items:,} active, {f.described_items:,} described, {f.untouched_items:.1%} of these untouched"),
        ("time", times),
        ("density", f"{f.density:.4%} of all user-item pairs"),
        ("per user", f"median {f.per_user.median:g}, p90 {f.per_user.p90:g}, most {f.per_user.most:,}"),
        ("per item", f"median {f.per_item.median:g}, p90 {f.per_item.p90:g}, most {f.per_item.most:,}"),
        (
            "new in the test window" if config.split.kind == "by_time" else "thin",
            f"{f.cold_users:.1%} of users, {f.cold_items:.1%} of items",
        ),
    ):
        table.add_row(name, escape(value))
    return table


def types(f: Findings, config: Config) -> Table:
    table = Table("event type", "events", "weight", title_justify="left")
    for name, count in f.types.items():
        known = config.events.types.get(name)
        weight = "[red]not in [events.types][/red]" if known is None else f"{known.weight:g}"
        if known is not None and known.weight_by_value:
            weight = "by value: " + ", ".join(f"{w:g} from {v:g}" for v, w in known.weight_by_value)
        table.add_row(escape(name), f"{count:,}", escape(weight) if known else weight)
    return table


def _problem(problem: Problem, console: Console) -> None:
    colour = COLOURS[problem.severity]
    count = f" ({problem.count:,})" if problem.count else ""
    console.print(f"[{colour}]{problem.severity}[/{colour}] {problem.name}{count}: {escape(problem.says)}")
    for example in problem.examples:
        console.print("    " + escape(", ".join(f"{name}={value}" for name, value in example.items())), style="dim")
