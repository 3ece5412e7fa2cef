"""The report of a simulation: a table, comparisons between policies, and curves over the days."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import Any

from rich.console import Console
from rich.table import Table

from handsell.evaluation.report.daily_curves import render_daily_curves
from handsell.simulation.outcomes import DAILY, PolicyOutcomes, as_dict, compare_outcomes

FIGURES = {
    "satisfaction": "true satisfaction per visit, 0 to 1",
    "value": "true satisfaction per listener and day",
    "clicks": "tracks played per visit",
    "conversion": "visits with a saved track",
    "visits": "visits",
    "active_at_end": "listeners active in the last 7 days",
    "diversity": "diversity of a slate (1 − cosine of tags)",
    "gini": "Gini coefficient of impressions over tracks",
    "entropy_first_week": "entropy of tags played, first 7 days, bits",
    "entropy_last_week": "entropy of tags played, last 7 days, bits",
    "new_share": "share of impressions of tracks released meanwhile",
    "new_reaching_ten": "share of these with ten impressions",
    "days_to_tenth": "median days to the tenth impression",
}
"""Total → what it is."""
OURS = ("exploration", "funnel", "service")
COMPARED = {"satisfaction": "satisfaction per visit", "value": "satisfaction per user and day"}


def build_report(
    found: Mapping[str, PolicyOutcomes], notes: Mapping[str, list[str]], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything for JSON: options, totals and curves by policy, paired comparisons, outcomes of trainings."""
    comparisons = [
        {"policy": ours, "other": other, "figure": figure, **comparison.as_dict()}
        for ours in OURS
        if ours in found
        for (figure, other), comparison in compare_outcomes(found, ours).items()
    ]
    policies = {name: as_dict(outcomes) for name, outcomes in found.items()}
    return {"options": dict(options), "policies": policies, "comparisons": comparisons, "trainings": dict(notes)}


def print_summary(report: Mapping[str, Any], console: Console) -> None:
    options = report["options"]
    title = f"{options['days']} days, {options['users']:,} users, seed {options['seed']}"
    table = Table("", title=title, title_justify="left")
    for name in report["policies"]:
        table.add_column(name, justify="right")
    for total, label in FIGURES.items():
        table.add_row(label, *(_format(policy["totals"][total]) for policy in report["policies"].values()))
    console.print(table)
    for line in describe_comparisons(report):
        console.print(line, soft_wrap=True, highlight=False)


def describe_comparisons(report: Mapping[str, Any]) -> list[str]:
    """Return a sentence per compared pair of policies and figure of COMPARED."""
    return [
        f"{c['policy']} {c['outcome'] if c['outcome'] != 'undecided' else 'and'} {c['other']}"
        f"{' are undecided' if c['outcome'] == 'undecided' else ''} in {COMPARED[c['figure']]}: "
        f"{c['difference']:+.4f} [{c['low']:+.4f}, {c['high']:+.4f}]"
        for c in report["comparisons"]
        if c["figure"] in COMPARED and c["difference"] is not None
    ]


def render_page(report: Mapping[str, Any]) -> str:
    """Return one HTML file with the table, the comparisons, the trainings and the curves."""
    options, policies = report["options"], report["policies"]
    title = f"Simulation: {options['days']} days, {options['users']:,} users"
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *policies))
    rows = "".join(
        f"<tr><td>{escape(label)}</td>"
        + "".join(f"<td>{_format(policy['totals'][total])}</td>" for policy in policies.values())
        + "</tr>"
        for total, label in FIGURES.items()
    )
    figures = "".join(_render_figure(report, curve, label) for curve, label in DAILY.items())
    compared = "".join(f"<li>{escape(line)}</li>" for line in describe_comparisons(report))
    trained = "".join(
        f"<li>{escape(name)}: {escape(note)}</li>" for name, notes in report["trainings"].items() for note in notes
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>{STYLE}'
        f"<h1>{escape(title)}</h1><table><tr>{head}</tr>{rows}</table>"
        f"<h2>Paired comparisons over listeners, 95 % intervals</h2><ul>{compared}</ul><h2>Over the days</h2>{figures}"
        f"<h2>Trainings</h2><ul>{trained or '<li>none</li>'}</ul></html>"
    )


STYLE = (
    "<style>body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#1f2933}"
    "table{border-collapse:collapse;font-size:13px}td,th{padding:.3em .6em;text-align:right;border-bottom:1px solid "
    "#e4e7eb}td:first-child,th:first-child{text-align:left}img{max-width:100%}</style>"
)


def _render_figure(report: Mapping[str, Any], curve: str, label: str) -> str:
    options = report["options"]
    every, days = options.get("every", 0), options["days"]
    curves = {name: policy["daily"][curve] for name, policy in report["policies"].items()}
    svg = render_daily_curves(curves, label, list(range(every, days, every)) if every else [])
    if svg is None:
        return ""
    encoded = base64.b64encode(svg.encode()).decode()
    return f'<p><img alt="{escape(label)}" src="data:image/svg+xml;base64,{encoded}"></p>'


def _format(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}"
