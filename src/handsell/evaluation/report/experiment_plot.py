"""The effect of an experiment by day with its always-valid interval, as one SVG or HTML file."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import matplotlib.dates
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from handsell.evaluation.report.plots import FAINT, INK, RETRIEVERS, render_svg


@dataclass(frozen=True, slots=True)
class EffectPoint:
    """The relative effect of an arm at the end of a day; None where there was too little data."""

    until: int  # µs
    arm: str
    effect: float | None
    low: float | None
    high: float | None


def draw_effects(points: Sequence[EffectPoint], title: str) -> str | None:
    """Return the figure as SVG; None where no day has an interval."""
    return render_svg(lambda axes, report: _draw(axes, report), {"points": points, "title": title}, 7.2, 4.0)


def render_effects(points: Sequence[EffectPoint], title: str, sentences: Sequence[str]) -> str:
    """Return a page with the figure and the decision in words."""
    said = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
    figure = draw_effects(points, title) or "<p>No day has enough data for an interval yet.</p>"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        "<style>body{font-family:sans-serif;max-width:48rem;margin:2rem auto;color:#1f2933}svg{width:100%;height:auto}"
        f"</style><h1>{html.escape(title)}</h1>{figure}{said}</html>\n"
    )


def _draw(axes: Axes, report: dict[str, Any]) -> bool:
    points: Sequence[EffectPoint] = report["points"]
    known = [p for p in points if p.effect is not None and p.low is not None and p.high is not None]
    if not known:
        return False
    for place, arm in enumerate(dict.fromkeys(p.arm for p in known)):
        own = [p for p in known if p.arm == arm]
        # as numbers: dates of other types are converted by registries that other libraries change
        days = [float(matplotlib.dates.date2num(datetime.fromtimestamp(p.until / 1e6, UTC))) for p in own]
        color = RETRIEVERS[place % len(RETRIEVERS)]
        axes.fill_between(days, [p.low or 0.0 for p in own], [p.high or 0.0 for p in own], color=color, alpha=0.2)
        axes.plot(days, [p.effect or 0.0 for p in own], "o-", color=color, markersize=3, label=arm)
    bound = max(min(max(abs(p.low or 0), abs(p.high or 0)) for p in known) * 4, 0.01)
    axes.set_ylim(-bound, bound)
    axes.axhline(0, color=INK, linewidth=1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    locator = matplotlib.dates.AutoDateLocator(maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(locator))
    axes.set_ylabel("relative effect", color=FAINT)
    axes.set_title(report["title"], loc="left", fontsize=10)
    axes.grid(axis="y")
    axes.legend(frameon=False, fontsize=8.5, loc="upper right")
    return True
