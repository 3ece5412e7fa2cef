"""A training report in the terminal: the served evaluation, what training picked, the metrics of the test window."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from handsell.evaluation.report.model_order import order_by_kind

COLUMNS = ("recall@10", "recall@1000", "coverage@10", "diversity@10", "novelty@10", "gini@10")
WIDTH = 120  # of the tables; a narrower terminal wraps their lines but shows all figures


def print_report(report: dict, console: Console | None = None) -> None:
    """Print the content of `report.json`; sections that a report lacks are left out."""
    console = console or Console(width=max(Console().width, WIDTH))
    for part in (*_build_served_table(report), *_time_away(report), *_choices(report)):
        console.print(part)
    console.print(_test_window(report))
    console.print(report["summary"])
    for reason in report["reasons"]:
        console.print(f"- {reason}")


def _build_served_table(report: dict) -> Iterator[Table | str]:
    section = report.get("served")
    if not section:
        return
    models = section["models"]
    kinds = {name: entry["kind"] for name, entry in models.items()}
    table = _start_table(f"{report['config']}: evaluated as served, {section['requests']:,} requests")
    for column in ("ndcg@10", "95 % interval", "recall@10"):
        table.add_column(column, justify="right", no_wrap=True)
    for name in order_by_kind(kinds, {name: entry["ndcg"] for name, entry in models.items()}):
        entry = models[name]
        label = f"{name} (best)" if name == section["best_baseline"] else name
        interval = _format_interval(entry["low"], entry["high"])
        table.add_row(label, _format(entry["ndcg"]), interval, _format(entry["recall"]))
    yield section["sentence"]
    yield table


def _time_away(report: dict) -> Iterator[Table | str]:
    section = report.get("by_time_away")
    if not section:
        return
    models = section["models"]
    table = _start_table(f"ndcg@10 by time since the last event, {section['requests']:,} requests")
    for pause in section["pauses"]:
        table.add_column(pause["name"], justify="right", no_wrap=True)
    for name in order_by_kind(section["kinds"], {name: values[0] for name, values in models.items()}):
        table.add_row(name, *map(_format, models[name]))
    yield table
    yield from (f"- {sentence}" for sentence in section["sentences"])


def _choices(report: dict) -> Iterator[str]:
    choices = report.get("choices") or {}
    if sources := choices.get("sources"):
        picked = [source["name"] for source in sources["sources"] if source["picked"]]
        others = [source["name"] for source in sources["sources"] if not source["picked"]]
        without = f" and left out {', '.join(others)}" if others else ""
        yield (
            f"Training picked the sources {', '.join(picked)}{without}: their fused order reaches ndcg@10 "
            f"{_format(sources['fused'])} on {sources['requests']:,} {sources['window']} requests."
        )
    if strength := choices.get("strength"):
        yield f"Training picked {strength['sentence']}."


def _test_window(report: dict) -> Table:
    table = _start_table(
        f"{report['config']}: test window, {report['requests']:,} requests of {report['users']:,} users at the times "
        "when they returned"
    )
    for column in ("ndcg@10", "95 % interval", *COLUMNS):
        table.add_column(column, justify="right", no_wrap=True)
    for name, entry in report["models"].items():
        metrics, interval = entry["metrics"], entry["interval"] or (None, None)
        figures = (_format(metrics.get(column)) for column in COLUMNS)
        table.add_row(name, _format(metrics.get("ndcg@10")), _format_interval(*interval), *figures)
    return table


def _start_table(title: str) -> Table:
    table = Table(title=title)
    table.add_column("", no_wrap=True)
    return table


def _format_interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4f}–{high:.4f}"


def _format(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
