"""The doctor's findings on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from handsell.data.doctor.doctor_report import DoctorReport, Finding

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def render(findings: DoctorReport, console: Console | None = None) -> None:
    """Counts, event types, problems with example rows, verdicts."""
    console = console or Console()
    console.print(counts(findings))
    console.print(types(findings))
    for problem in findings.problems:
        _problem(problem, console)
    for verdict in findings.verdicts:
        console.print(f"→ {escape(verdict)}")
    if findings.ok:
        console.print("[green]ready to train[/green]")
    else:
        console.print("[red]not ready: correct the errors above first[/red]")


def counts(f: DoctorReport) -> Table:
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
            "new in the test window" if f.split == "by_time" else "thin",
            f"{f.cold_users:.1%} of users, {f.cold_items:.1%} of items",
        ),
    ):
        table.add_row(name, escape(value))
    return table


def types(f: DoctorReport) -> Table:
    table = Table("event type", "events", "weight")
    for name, found in f.types.items():
        weight = "[red]not in \\[events.types][/red]" if found.weight is None else escape(found.weight)
        table.add_row(escape(name), f"{found.events:,}", weight)
    return table


def _problem(problem: Finding, console: Console) -> None:
    color = COLOURS[problem.severity]
    count = f" ({problem.count:,})" if problem.count else ""
    console.print(f"[{color}]{problem.severity}[/{color}] {problem.name}{count}: {escape(problem.says)}")
    for example in problem.examples:
        console.print("    " + escape(", ".join(f"{name}={value}" for name, value in example.items())), style="dim")
