"""A report in the terminal: the table that decides, and the sentences that say how it went."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

COLUMNS = ("recall@10", "recall@1000", "coverage@10", "diversity@10", "novelty@10", "gini@10")

WIDTH = 120  # the table's; a narrower terminal folds it, which still beats cut figures


def print_report(report: dict, console: Console | None = None) -> None:
    """Print `report.json` as a person reads it."""
    console = console or Console(width=max(Console().width, WIDTH))
    out = Table(title=f"{report['config']}: {report['requests']:,} requests of {report['users']:,} users, test window")
    out.add_column("", no_wrap=True)
    for column in ("ndcg@10", "95 % interval", *COLUMNS):
        out.add_column(column, justify="right", no_wrap=True)
    for name, contender in report["contenders"].items():
        metrics, interval = contender["metrics"], contender["interval"]
        span = f"{interval[0]:.4f}–{interval[1]:.4f}" if interval and interval[0] is not None else ""
        out.add_row(name, _figure(metrics.get("ndcg@10")), span, *(_figure(metrics.get(c)) for c in COLUMNS))
    console.print(out)
    console.print(report["summary"])
    for reason in report["reasons"]:
        console.print(f"- {reason}")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
