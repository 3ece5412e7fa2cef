"""Writes docs/metrics.md from the metrics that the code declares: `python docs/make_metrics.py`. A test compares."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from handsell.serving.telemetry.metric_table import RAY_METRICS, ExportedMetric, list_own_metrics

PAGE = Path(__file__).with_name("metrics.md")
OPENING = """\
# Metrics
<!-- written by docs/make_metrics.py from src/handsell/serving/telemetry/metric_table.py -->

Every series that handsell exports for Prometheus. [monitoring.md](monitoring.md) has the dashboards and alerts made
from them. A counter's series end in `_total`; a histogram's in `_bucket`, `_sum` and `_count`.

## Of the API
At `/metrics` of the API. On a cluster every series also has the label `replica`: a scrape reaches one gateway replica
behind its address.
"""
OF_RAY = """
## Of Ray
At port 8080 of each pod, or the port that `ray start --metrics-export-port` names. Ray exports many more; the
dashboards and alerts use these, and each has further labels (`SessionName`, …).
"""


def render_page() -> str:
    """The whole document."""
    return f"{OPENING}\n{_table(list_own_metrics())}\n{OF_RAY}\n{_table(RAY_METRICS)}\n"


def _table(metrics: Iterable[ExportedMetric]) -> str:
    rows = [
        f"| `{m.name}` | {m.kind} | {', '.join(f'`{label}`' for label in m.labels) or '–'} | {m.meaning} |"
        for m in metrics
    ]
    return "\n".join(["| metric | kind | labels | meaning |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    PAGE.write_text(render_page(), encoding="utf-8")
