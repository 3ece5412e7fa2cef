"""List metrics by day as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from handsell.experiments.analysis.list_history import DayOfLists
from handsell.experiments.analysis.text.verdict_text import format_value, open_console


def print_days(days: Sequence[DayOfLists], console: Console | None = None) -> None:
    """Print one row per day."""
    console = console or open_console()
    if not days:
        console.print("no slates are logged yet: request some recommendations first")
        return
    table = Table()
    table.add_column("day (UTC)", no_wrap=True)
    columns = ("slates", "people", "items", "coverage", "gini", "diversity", "novelty", "repeated", "small creators")
    for column in columns:
        table.add_column(column, justify="right")
    for day in days:
        figures = (
            day.items_per_slate, day.coverage, day.gini, day.diversity, day.novelty, day.repeat_rate,
            day.exposure.get("small", float("nan")),
        )  # fmt: skip
        table.add_row(day.day, f"{day.slates:,}", f"{day.people:,}", *map(format_value, figures))
    console.print(table)
