"""Print a doctor report on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from handsell.doctor.doctor_report import DoctorReport, Finding

COLORS = {"error": "red", "warning": "yellow", "note": "cyan"}


def render(report: DoctorReport, console: Console | None = None) -> None:
    """Print counts, event types, problems with example rows, and advice."""
    console = console or Console()
    console.print(build_counts_table(report))
    console.print(build_types_table(report))
    print_problems(report.problems, console)
    for line in report.advice:
        console.print(f"→ {escape(line)}")
    if report.ok:
        console.print("[green]ready to train[/green]")
    else:
        console.print("[red]not ready to train: correct the errors above[/red]")


def print_problems(problems: Sequence[Finding], console: Console) -> None:
    """Print problems with their example rows."""
    for problem in problems:
        _print_problem(problem, console)


def build_counts_table(f: DoctorReport) -> Table:
    table = Table(title=escape(f.source), show_header=False, title_justify="left")
    times = f"{f.first} … {f.last} ({f.days:.1f} days)" if f.ordered else "none, only the order per user"
    for name, value in (
        ("events", f"{f.events:,}, of which {f.interactions:,} interactions"),
        ("users", f"{f.users:,} with interactions, {f.described_users:,} in the users table"),
        ("items", f"{f.items:,} with interactions, {f.described_items:,} in the items table"),
        ("without interactions", f"{f.untouched_items:.1%} of the items table"),
        ("time", times),
        ("density", f"{f.density:.4%} of all user-item pairs have an interaction"),
        ("per user", f"median {f.per_user.median:g}, p90 {f.per_user.p90:g}, maximum {f.per_user.most:,}"),
        ("per item", f"median {f.per_item.median:g}, p90 {f.per_item.p90:g}, maximum {f.per_item.most:,}"),
        (
            "new in the test window" if f.split == "by_time" else "too few events for the split",
            f"{f.cold_users:.1%} of users, {f.cold_items:.1%} of items",
        ),
    ):
        table.add_row(name, escape(value))
    return table


def build_types_table(f: DoctorReport) -> Table:
    table = Table("event type", "events", "weight")
    for name, found in f.types.items():
        weight = "[red]not in \\[events.types][/red]" if found.weight is None else escape(found.weight)
        table.add_row(escape(name), f"{found.events:,}", weight)
    return table


def _print_problem(problem: Finding, console: Console) -> None:
    color = COLORS[problem.severity]
    count = f" ({problem.count:,})" if problem.count else ""
    console.print(f"[{color}]{problem.severity}[/{color}] {problem.name}{count}: {escape(problem.message)}")
    for example in problem.examples:
        console.print("    " + escape(", ".join(f"{name}={value}" for name, value in example.items())), style="dim")
