"""Panels of Grafana dashboards, and the queries that they share."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models.common import BigValueGraphMode, LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableRefresh

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
JOB = 'job=~"$job"'


@dataclass(frozen=True, slots=True)
class Query:
    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """A diagram over time, or one number for each series (`is_number`); units are Grafana's names."""

    title: str
    unit: str
    description: str
    queries: tuple[Query, ...]
    is_number: bool = False

    def build(self, number: int, width: int) -> Any:
        panel = (
            stat.Panel().graph_mode(BigValueGraphMode.AREA)
            if self.is_number
            else timeseries.Panel().legend(_legend()).fill_opacity(10)
        )
        height = 4 if self.is_number else 8
        panel = panel.title(self.title).description(self.description).unit(self.unit).datasource(SOURCE)
        panel = panel.id(number).span(width).height(height)
        for place, query in enumerate(self.queries):
            target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + place))
            panel = panel.with_target(target)
        return panel


@dataclass(frozen=True, slots=True)
class Page:
    """One dashboard: rows of panels by title."""

    uid: str
    title: str
    rows: dict[str, tuple[Panel, ...]]

    def build(self) -> dict[str, Any]:
        made = (
            dashboard.Dashboard(self.title).uid(self.uid).tags(["handsell"]).refresh("30s").time("now-3h", "now")
            .timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR)
            .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
            .with_variable(
                dashboard.QueryVariable("job").query("label_values(handsell_bundle_info, job)").datasource(SOURCE)
                .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True).include_all(True).all_value(".+")
            )
        )  # fmt: skip
        number = count(1)
        for title, panels in self.rows.items():
            made = made.with_row(dashboard.Row(title).id(next(number)))
            for panel in panels:
                made = made.with_panel(panel.build(next(number), 24 // min(len(panels), 4)))
        return made.build()


def _legend() -> Any:
    return (
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
    )


def select(series: str, *labels: str) -> str:
    """A series of the chosen gateways."""
    return f"{series}{{{','.join((JOB, *labels))}}}"


def rate(counter: str, *labels: str, by: str = "") -> str:
    """Increase per second, summed over replicas."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({select(counter, *labels)}[$__rate_interval]))"


def quantile(share: float, histogram: str, *labels: str, by: str = "") -> str:
    grouped = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', *labels, by=grouped)})"


def mean(histogram: str, *labels: str, by: str = "") -> str:
    return f"{rate(f'{histogram}_sum', *labels, by=by)} / {rate(f'{histogram}_count', *labels, by=by)}"


def percentiles(histogram: str, *labels: str) -> tuple[Query, ...]:
    return tuple(Query(quantile(share, histogram, *labels), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99))


def highest(gauge: str, *labels: str, by: str = "") -> str:
    """The highest of the gateways that have told it within the last minutes: a scrape reaches one replica of a pod."""
    grouped = f" by ({by})" if by else ""
    return f"max{grouped} (max_over_time({select(gauge, *labels)}[2m]))"
