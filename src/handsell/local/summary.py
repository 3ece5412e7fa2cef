"""A report in the terminal: what a service would answer, what training picked, and the table of the test window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

COLUMNS = ("recall@10", "recall@1000", "coverage@10", "diversity@10", "novelty@10", "gini@10")
BY_KIND = ("funnel", "ranker", "blend", "baseline", "retriever")

WIDTH = 120  # the table's; a narrower terminal folds it, which still beats cut figures


def print_report(report: dict, console: Console | None = None) -> None:
    """Print `report.json` as a person reads it; sections that a report lacks are left out."""
    console = console or Console(width=max(Console().width, WIDTH))
    for part in (*_served(report), *_time_away(report), *_choices(report)):
        console.print(part)
    console.print(_test_window(report))
    console.print(report["summary"])
    for reason in report["reasons"]:
        console.print(f"- {reason}")


def _served(report: dict) -> Iterator[Table | str]:
    section = report.get("served")
    if not section:
        return
    contenders = section["models"]
    kinds = {name: entry["kind"] for name, entry in contenders.items()}
    out = _table(f"{report['config']}: asked as a service is asked, {section['requests']:,} requests")
    for column in ("ndcg@10", "95 % interval", "recall@10"):
        out.add_column(column, justify="right", no_wrap=True)
    for name in _order(kinds, {name: entry["ndcg"] for name, entry in contenders.items()}):
        entry = contenders[name]
        label = f"{name} (best)" if name == section["best_baseline"] else name
        out.add_row(label, _figure(entry["ndcg"]), _span(entry["low"], entry["high"]), _figure(entry["recall"]))
    yield section["sentence"]
    yield out


def _time_away(report: dict) -> Iterator[Table | str]:
    section = report.get("by_time_away")
    if not section:
        return
    lines = section["models"]
    out = _table(f"ndcg@10 by time since the last event, {section['requests']:,} requests")
    for pause in section["pauses"]:
        out.add_column(pause["name"], justify="right", no_wrap=True)
    for name in _order(section["kinds"], {name: values[0] for name, values in lines.items()}):
        out.add_row(name, *map(_figure, lines[name]))
    yield out
    yield from (f"- {sentence}" for sentence in section["sentences"])


def _choices(report: dict) -> Iterator[str]:
    """What training picked, in sentences."""
    choices = report.get("choices") or {}
    if sources := choices.get("sources"):
        picked = [source["name"] for source in sources["sources"] if source["picked"]]
        left_out = [source["name"] for source in sources["sources"] if not source["picked"]]
        without = f" and left out {', '.join(left_out)}" if left_out else ""
        yield (
            f"Training picked the sources {', '.join(picked)}{without}: ndcg@10 {_figure(sources['fused'])} of their "
            f"fused order on {sources['requests']:,} {sources['window']} requests."
        )
    if strength := choices.get("strength"):
        yield f"Training picked {strength['sentence']}."


def _test_window(report: dict) -> Table:
    out = _table(
        f"{report['config']}: {report['requests']:,} requests of {report['users']:,} users, made when they came back "
        "(test window)"
    )
    for column in ("ndcg@10", "95 % interval", *COLUMNS):
        out.add_column(column, justify="right", no_wrap=True)
    for name, contender in report["models"].items():
        metrics, interval = contender["metrics"], contender["interval"] or (None, None)
        figures = (_figure(metrics.get(column)) for column in COLUMNS)
        out.add_row(name, _figure(metrics.get("ndcg@10")), _span(*interval), *figures)
    return out


def _table(title: str) -> Table:
    out = Table(title=title)
    out.add_column("", no_wrap=True)
    return out


def _order(kinds: dict[str, str], scores: dict[str, Any]) -> list[str]:
    """Contenders in the order of BY_KIND, the better of one kind first."""
    return sorted(scores, key=lambda name: (BY_KIND.index(kinds[name]), -(scores[name] or 0.0)))


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4f}–{high:.4f}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
